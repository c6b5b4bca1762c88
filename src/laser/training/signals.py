"""Grounded signals: what else than the loss can tell a selector how good its choice was.

The loss is blind to a reward model that is consistently wrong, because a consistent ranking is as easy to fit as the
right one. Each signal here knows something about right and wrong, at a cost of its own, and is mixed with the scaled
loss:

    bandit reward = (1 - weight) * scaled loss + weight * signal,     or the scaled loss where there is no signal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from laser.evaluation.answers import IsRight
from laser.policy.generation import Generator
from laser.rewards.pool import RewardPool
from laser.seeding import stream_seed
from laser.training.charges import Charge
from laser.types import FloatArray, Prompt, Responses, StateDict


@dataclass(frozen=True, slots=True)
class SignalInput:
    """What a signal may look at once a batch has been trained on.

    Attributes:
        iteration: Iteration of the batch.
        step: Batch of the iteration.
        prompts: The B prompts.
        responses: Their responses.
        charges: One per bandit reward.
    """

    iteration: int
    step: int
    prompts: Sequence[Prompt]
    responses: Responses
    charges: Sequence[Charge]


class Signal(Protocol):
    """Judges the charges of a batch."""

    def measure(self, given: SignalInput) -> FloatArray:
        """One value in [0, 1] per charge, shape (E,); NaN where there is none."""
        ...

    def state_dict(self) -> StateDict:
        """Everything needed to continue identically."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        ...


def mixed(bandit_rewards_E: FloatArray, signals_E: FloatArray, weight: float) -> FloatArray:
    """Mix scaled losses and signals; see the module."""
    mixture: FloatArray = (1 - weight) * bandit_rewards_E + weight * signals_E
    return np.where(np.isnan(signals_E), bandit_rewards_E, mixture)


class _Stateless:
    """The state of a signal without one."""

    def state_dict(self) -> StateDict:
        """Nothing."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """Nothing to restore."""


class NoSignal(_Stateless):
    """The loss alone, as in the paper."""

    def measure(self, given: SignalInput) -> FloatArray:
        """NaN for every charge."""
        return np.full(len(given.charges), np.nan)


class AccuracyGap(_Stateless):
    """LASeR with Acc: Acc(chosen) - Acc(rejected) over a charge's pairs, from [-1, 1] to [0, 1].

    Source: arXiv 2410.01735, Table 13. Needs a gold answer for every prompt, and calls no reward model.

    Args:
        is_right: Whether a response answers a prompt rightly.
    """

    def __init__(self, is_right: IsRight) -> None:
        self._is_right = is_right

    def measure(self, given: SignalInput) -> FloatArray:
        """(1 + gap) / 2; NaN for a charge without a pair whose prompt has a gold answer."""
        return np.array([self._gap(given, charge) for charge in given.charges], dtype=np.float64)

    def _gap(self, given: SignalInput, charge: Charge) -> float:
        gaps = []
        for pair in charge.pairs:
            prompt, row = given.prompts[pair.prompt], given.responses[pair.prompt]
            if prompt.answer is not None:
                chosen = self._is_right(prompt, row[pair.chosen].text)
                gaps.append(float(chosen) - float(self._is_right(prompt, row[pair.rejected].text)))
        return 0.5 + 0.5 * float(np.mean(gaps)) if gaps else float("nan")


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How a probe is done.

    Attributes:
        every: Batches between probes.
        num_responses: Responses sampled per probe prompt.
        temperature: Sampling temperature.
        max_new_tokens: Longest response.
        gold_format: A right response made from a gold answer, for prompts the policy never gets right.
        seed: The run's seed.
    """

    every: int
    num_responses: int
    temperature: float
    max_new_tokens: int
    gold_format: str
    seed: int


@dataclass(frozen=True, slots=True)
class _Item:
    """A probe prompt with right and wrong responses to it."""

    prompt: Prompt
    right: tuple[str, ...]
    wrong: tuple[str, ...]


class Probe:
    """Tests the selected reward model on a handful of prompts with gold answers, by category.

    At the start of each iteration the policy answers the probe prompts; right and wrong responses to the same prompt
    make labelled pairs. The signal of a reward model is its accuracy on the pairs of the categories it was chosen for.
    An accuracy is measured once per iteration, reward model and category, when first asked for: at most K times
    categories times (prompts x responses) scores an iteration, which the step records count like any others.

    Args:
        pool: The reward models.
        generator: Samples the answers.
        prompts: Probe prompts with gold answers, by category.
        is_right: Whether a response answers a prompt rightly.
        settings: How it is done.
    """

    def __init__(
        self,
        pool: RewardPool,
        generator: Generator,
        prompts: Mapping[str, Sequence[Prompt]],
        is_right: IsRight,
        settings: ProbeSettings,
    ) -> None:
        self._pool, self._generator, self._is_right, self._settings = pool, generator, is_right, settings
        self._prompts = {prompt.id: prompt for of_category in prompts.values() for prompt in of_category}
        self._categories = dict(prompts)
        self._iteration = -1
        self._items: dict[str, list[_Item]] = {}
        self._known: dict[str, float] = {}

    def measure(self, given: SignalInput) -> FloatArray:
        """Pair accuracy of each charge's reward model, weighted by how many prompts are of which category."""
        if given.step % self._settings.every:
            return np.full(len(given.charges), np.nan)
        if given.iteration != self._iteration:
            self._sample(given.iteration)
        return np.array([self._of_charge(given, charge) for charge in given.charges], dtype=np.float64)

    def _of_charge(self, given: SignalInput, charge: Charge) -> float:
        counts = Counter(given.prompts[prompt].category for prompt in charge.prompts)
        known = [(self._accuracy(charge.arm, category), count) for category, count in counts.items()]
        known = [(accuracy, count) for accuracy, count in known if not np.isnan(accuracy)]
        total = sum(count for _, count in known)
        return sum(accuracy * count for accuracy, count in known) / total if total else float("nan")

    def _accuracy(self, arm: int, category: str) -> float:
        key = f"{arm}:{category}"
        if key not in self._known:
            self._known[key] = self._measured(arm, self._items.get(category, []))
        return self._known[key]

    def _measured(self, arm: int, items: Sequence[_Item]) -> float:
        if not items:
            return float("nan")
        texts = [[*item.right, *item.wrong] for item in items]
        scores = self._pool.score(arm, [item.prompt for item in items], texts)
        per_prompt = []
        for item, row in zip(items, scores, strict=True):
            gaps = np.subtract.outer(row[: len(item.right)], row[len(item.right) :]).ravel()
            gaps = gaps[np.isfinite(gaps)]
            if len(gaps):
                per_prompt.append(float(np.mean((gaps > 0) + 0.5 * (gaps == 0))))
        return float(np.mean(per_prompt)) if per_prompt else float("nan")

    def _sample(self, iteration: int) -> None:
        self._iteration, self._known = iteration, {}
        self._items = {category: self._answered(prompts) for category, prompts in self._categories.items()}

    def _answered(self, prompts: Sequence[Prompt]) -> list[_Item]:
        settings = self._settings
        replies = self._generator.generate(
            prompts,
            num_responses=settings.num_responses,
            temperature=settings.temperature,
            top_p=1.0,
            max_new_tokens=settings.max_new_tokens,
            seeds=[stream_seed(settings.seed, "probe", self._iteration, row) for row in range(len(prompts))],
        )
        items = []
        for prompt, row in zip(prompts, replies, strict=True):
            texts = sorted({response.text for response in row if response.text.strip()})
            right = tuple(text for text in texts if self._is_right(prompt, text))
            wrong = tuple(text for text in texts if text not in right)
            if wrong:
                items.append(_Item(prompt, right or (settings.gold_format.format(answer=prompt.answer),), wrong))
        return items

    def state_dict(self) -> StateDict:
        """The answers of this iteration and what is known of the reward models."""
        items = {
            category: [[item.prompt.id, list(item.right), list(item.wrong)] for item in of_category]
            for category, of_category in self._items.items()
        }
        known = {key: None if np.isnan(value) else value for key, value in self._known.items()}
        return {"iteration": self._iteration, "items": items, "known": known}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        self._iteration = int(state["iteration"])
        self._known = {key: float("nan") if value is None else value for key, value in state["known"].items()}
        self._items = {
            category: [_Item(self._prompts[name], tuple(right), tuple(wrong)) for name, right, wrong in rows]
            for category, rows in state["items"].items()
        }


class PoolAgreement(_Stateless):
    """How much of the pool agrees with the reward model that was chosen, on every so many batches.

    The other reward models score the responses of its pairs; the signal is the share of their opinions that order a
    pair alike. It needs no gold answer, and is no better than the majority of the pool.

    Args:
        pool: The reward models.
        every: Batches between measurements; each asks the K - 1 others.
    """

    def __init__(self, pool: RewardPool, *, every: int) -> None:
        self._pool, self._every = pool, every

    def measure(self, given: SignalInput) -> FloatArray:
        """Share of agreeing opinions; NaN where nobody else has one."""
        if given.step % self._every:
            return np.full(len(given.charges), np.nan)
        return np.array([self._agreement(given, charge) for charge in given.charges], dtype=np.float64)

    def _agreement(self, given: SignalInput, charge: Charge) -> float:
        others = [arm for arm in range(len(self._pool.names)) if arm != charge.arm]
        gaps = [self._gaps(given, charge, arm) for arm in others if charge.pairs]
        opinions = np.concatenate([row[np.isfinite(row) & (row != 0)] > 0 for row in gaps]) if gaps else np.empty(0)
        return float(opinions.mean()) if len(opinions) else float("nan")

    def _gaps(self, given: SignalInput, charge: Charge, arm: int) -> FloatArray:
        """Score of chosen minus rejected response of every pair by another reward model."""
        needed: dict[int, list[int]] = {}
        for pair in charge.pairs:
            needed.setdefault(pair.prompt, []).extend((pair.chosen, pair.rejected))
        texts = [[given.responses[row][index].text for index in indices] for row, indices in needed.items()]
        scores = self._pool.score(arm, [given.prompts[row] for row in needed], texts)
        by_prompt = {row: iter(values.reshape(-1, 2)) for row, values in zip(needed, scores, strict=True)}
        rows = [next(by_prompt[pair.prompt]) for pair in charge.pairs]
        return np.array([chosen - rejected for chosen, rejected in rows])


class DevGain:
    """How the dev metric moved since it was last looked at, credited to the batch that looks.

    Args:
        evaluate: Measures accuracy in [0, 1] on a few held-out prompts.
        every: Batches between looks; 1 credits each batch with its own gain.
        span: Gain in accuracy that counts as a full bandit reward.
    """

    def __init__(self, evaluate: Callable[[], float], *, every: int, span: float) -> None:
        self._evaluate, self._every, self._span = evaluate, every, span
        self._last: float | None = None

    def measure(self, given: SignalInput) -> FloatArray:
        """0.5 for no change, 1 for a gain of `span` or more; NaN at the first look and between looks."""
        nothing = np.full(len(given.charges), np.nan)
        if given.step % self._every:
            return nothing
        before, self._last = self._last, self._evaluate()
        if before is None:
            return nothing
        return np.full(len(given.charges), float(np.clip(0.5 + 0.5 * (self._last - before) / self._span, 0.0, 1.0)))

    def state_dict(self) -> StateDict:
        """The last look."""
        return {"last": self._last}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the last look."""
        self._last = state["last"]

"""The probe: how good the reward models are on a handful of prompts, before and during training.

The policy answers the probe prompts. Its responses to one prompt make labeled pairs, and a reward model's accuracy on
them is its bandit reward. Labels come from gold answers ("gold": a right response above a wrong one) or, without any,
from the pool itself ("consensus": the order of the summed raw scores; a reward model that knows a category has the
widest scores there, so it dominates the sum). At the start every reward model is tested on every probe prompt, and the
selector learns the results as if it had chosen each of them there. So it begins with K observations per prompt for a
few scores each, and no batch is spent on a reward model only to try it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from laser.bandits.base import Selector
from laser.config.schema import GenerationConfig
from laser.config.selection import ProbeSignal
from laser.core.seeding import stream_seed
from laser.core.types import Batch, FloatArray, Prompt, Responses, StateDict
from laser.evaluation.answers import IsRight
from laser.policy.generation import Generator
from laser.rewards.pool import QuarantinedError, RewardPool
from laser.training.charges import Charge
from laser.training.signals import Prepare


@dataclass(frozen=True, slots=True)
class _Item:
    """A probe prompt with distinct responses, the right ones first; with consensus labels `num_right` is 0."""

    prompt: Prompt
    responses: tuple[str, ...]
    num_right: int


class Probe:
    """Tests reward models on probe prompts, by category; see the module.

    The accuracy of a reward model in a category is measured when first needed and kept until the next refresh: at most
    K x prompts x responses scores, which the steps count like any others.

    Args:
        section: How it is done; its labels are "gold" or "consensus".
        sampling: How the policy samples.
        pool: The reward models.
        generator: Samples the answers.
        prompts: Probe prompts, by category; with gold answers if the labels are gold.
        is_right: Whether a response answers a prompt correctly.
        gold_format: A right response made from a gold answer, for prompts that the policy always gets wrong.
        seed: The run's seed.
    """

    def __init__(
        self,
        section: ProbeSignal,
        sampling: GenerationConfig,
        pool: RewardPool,
        generator: Generator,
        prompts: Mapping[str, Sequence[Prompt]],
        is_right: IsRight,
        *,
        gold_format: str = "{answer}",
        seed: int,
    ) -> None:
        self._section, self._sampling, self._gold_format, self._seed = section, sampling, gold_format, seed
        self._pool, self._generator, self._is_right = pool, generator, is_right
        self._prompts = {prompt.id: prompt for of_category in prompts.values() for prompt in of_category}
        self._categories = dict(prompts)
        self._iteration = -1  # of the answers; -1: none yet
        self._items: dict[str, list[_Item]] = {}
        self._known: dict[str, list[float]] = {}  # "arm:category" -> accuracy on each item, NaN where it has none
        self._untaught: list[int] = []  # arms that could not be tested yet

    def prepare(self, iteration: int, selector: Selector, contexts: Prepare) -> None:
        """Sample fresh answers if they are due, and teach the selector how good the reward models are on them."""
        refresh = self._section.refresh
        if self._iteration < 0 or (refresh and iteration >= self._iteration + refresh):
            self._iteration, self._known = iteration, {}
            self._items = {category: self._answered(prompts) for category, prompts in self._categories.items()}
            teach = self._section.warm_start and any(self._items.values())
            self._untaught = list(range(len(self._pool.names))) if teach else []
        self._teach(selector, contexts)

    def measure(self, batch: Batch, responses: Responses, charges: Sequence[Charge]) -> FloatArray:
        """Pair accuracy of each charge's reward model, a mean over the categories of the charge's prompts."""
        return np.array([self._of_charge(batch, charge) for charge in charges], dtype=np.float64)

    def _teach(self, selector: Selector, contexts: Prepare) -> None:
        arms = [arm for arm in self._untaught if self._pool.available_K[arm]]
        if not arms:
            return
        rows_MD = contexts([item.prompt for items in self._items.values() for item in items])
        for arm in arms:
            accuracies = [value for category in self._items for value in self._accuracies(arm, category)]
            if all(f"{arm}:{category}" in self._known for category in self._items):
                selection = selector.select(rows_MD, np.arange(len(self._pool.names)) == arm)
                selector.update(selection.id, np.array(accuracies))
                self._untaught.remove(arm)

    def _of_charge(self, batch: Batch, charge: Charge) -> float:
        counts = Counter(batch.prompts[prompt].category for prompt in charge.prompts)
        total, weight = 0.0, 0
        for category, count in counts.items():
            known = [value for value in self._accuracies(charge.arm, category) if not np.isnan(value)]
            if known:
                total += count * float(np.mean(known))
                weight += count
        return total / weight if weight else float("nan")

    def _accuracies(self, arm: int, category: str) -> list[float]:
        """Accuracy on each item of a category; NaN, and measured later, if the reward model cannot score now."""
        key, items = f"{arm}:{category}", self._items.get(category, [])
        if key not in self._known:
            if self._section.labels == "gold":
                scores = self._scores(arm, items)
                if scores is not None:
                    self._known[key] = [_order(row, item.num_right) for row, item in zip(scores, items, strict=True)]
            else:
                self._score_all(category, items)
        return self._known.get(key, [float("nan")] * len(items))

    def _score_all(self, category: str, items: Sequence[_Item]) -> None:
        """Measure all reward models at once, because consensus labels need all scores."""
        scores_of = {arm: self._scores(arm, items) for arm in range(len(self._pool.names))}
        scored = {arm: scores for arm, scores in scores_of.items() if scores is not None}
        sums = [np.sum([scores[index] for scores in scored.values()], axis=0) for index in range(len(items))]
        for arm, scores in scored.items():
            agreements = [_agreement(row, total) for row, total in zip(scores, sums, strict=True)]
            self._known[f"{arm}:{category}"] = agreements

    def _scores(self, arm: int, items: Sequence[_Item]) -> list[FloatArray] | None:
        """Scores of the items' responses; None if the reward model is in quarantine or gave no score at all."""
        if not items:
            return []
        try:
            scores = self._pool.score(arm, [item.prompt for item in items], [item.responses for item in items])
        except QuarantinedError:
            return None
        return scores if any(np.isfinite(row).any() for row in scores) else None

    def _answered(self, prompts: Sequence[Prompt]) -> list[_Item]:
        replies = self._generator.generate(
            prompts,
            num_responses=self._section.num_responses,
            temperature=self._sampling.temperature,
            top_p=1.0,
            max_new_tokens=self._sampling.max_new_tokens,
            seeds=[stream_seed(self._seed, "probe", self._iteration, row) for row in range(len(prompts))],
        )
        items = [
            self._item(prompt, sorted({response.text for response in row if response.text.strip()}))
            for prompt, row in zip(prompts, replies, strict=True)
        ]
        return [item for item in items if len(item.responses) > max(1, item.num_right)]

    def _item(self, prompt: Prompt, texts: Sequence[str]) -> _Item:
        if self._section.labels == "consensus":
            return _Item(prompt, tuple(texts), 0)
        right = [text for text in texts if self._is_right(prompt, text)]
        wrong = [text for text in texts if text not in right]
        right = right or [self._gold_format.format(answer=prompt.answer)]
        return _Item(prompt, (*right, *wrong), len(right))

    def state_dict(self) -> StateDict:
        """The answers and the accuracies measured so far."""
        items = {
            category: [[item.prompt.id, list(item.responses), item.num_right] for item in of_category]
            for category, of_category in self._items.items()
        }
        known = {key: [None if np.isnan(value) else value for value in row] for key, row in self._known.items()}
        return {"iteration": self._iteration, "items": items, "known": known, "untaught": list(self._untaught)}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        self._iteration = int(state["iteration"])
        self._untaught = [int(arm) for arm in state.get("untaught", [])]
        self._known = {
            key: [float("nan") if value is None else value for value in row] for key, row in state["known"].items()
        }
        self._items = {
            category: [_Item(self._prompts[name], tuple(texts), num_right) for name, texts, num_right in rows]
            for category, rows in state["items"].items()
        }


def _order(scores_N: FloatArray, num_right: int) -> float:
    """Share of (right, wrong) pairs with the right response scored higher, a tie counting half; NaN without a pair."""
    return _share(np.subtract.outer(scores_N[:num_right], scores_N[num_right:]).ravel())


def _agreement(scores_N: FloatArray, reference_N: FloatArray) -> float:
    """Share of pairs that two sets of scores order alike, ties of the first counting half; NaN without such a pair."""
    first, second = np.triu_indices(len(scores_N), 1)
    direction = np.sign(reference_N[first] - reference_N[second])
    gaps = (scores_N[first] - scores_N[second]) * direction
    return _share(gaps[direction != 0])


def _share(gaps: FloatArray) -> float:
    gaps = gaps[np.isfinite(gaps)]
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0))) if len(gaps) else float("nan")

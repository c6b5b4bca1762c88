"""Grounded signals: what a selector can learn about its choice beyond the loss.

The loss does not detect a reward model that is consistently wrong, because a consistent ranking is as easy to fit as
the right one. Each signal here uses some ground truth, at a cost, and is mixed with the scaled loss:

    bandit reward = (1 - weight) * scaled loss + weight * signal,     or the scaled loss where there is no signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from laser.bandits.base import Selector
from laser.core.types import Batch, FloatArray, Prompt, Responses, StateDict
from laser.evaluation.answers import IsRight
from laser.rewards.pool import QuarantinedError, RewardPool
from laser.training.charges import Charge

Prepare = Callable[[Sequence[Prompt]], FloatArray]
"""Bandit contexts of prompts, shape (M, D)."""


class Signal(Protocol):
    """Judges the charges of a batch."""

    def prepare(self, iteration: int, selector: Selector, contexts: Prepare) -> None:
        """Get ready for a selection, for example by teaching the selector something first.

        Args:
            iteration: Number of the iteration.
            selector: Chooses next.
            contexts: Computes the bandit contexts of prompts.
        """

    def measure(self, batch: Batch, responses: Responses, charges: Sequence[Charge]) -> FloatArray:
        """Measure the signal of each charge after training on the batch.

        Args:
            batch: The prompts, and where in the run they are.
            responses: Responses of each prompt.
            charges: The E reward models that earn a bandit reward, and their pairs.

        Returns:
            One value in [0, 1] per charge, shape (E,); NaN where there is none.
        """

    def state_dict(self) -> StateDict:
        """Everything needed to continue identically."""

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""


def mixed(bandit_rewards_E: FloatArray, signals_E: FloatArray, weight: float) -> FloatArray:
    """Bandit rewards from scaled losses and signals, both of shape (E,); see the module."""
    mixture: FloatArray = (1 - weight) * bandit_rewards_E + weight * signals_E
    return np.where(np.isnan(signals_E), bandit_rewards_E, mixture)


class Stateless:
    """Base of a signal that needs no preparation and has no state."""

    def prepare(self, iteration: int, selector: Selector, contexts: Prepare) -> None:
        """Do nothing."""

    def state_dict(self) -> StateDict:
        """An empty state."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """Do nothing."""


class NoSignal(Stateless):
    """The loss alone, as in the paper."""

    def measure(self, batch: Batch, responses: Responses, charges: Sequence[Charge]) -> FloatArray:
        """NaN for every charge."""
        return np.full(len(charges), np.nan)


class AccuracyGap(Stateless):
    """LASeR with Acc: Acc(chosen) - Acc(rejected) over a charge's pairs, from [-1, 1] to [0, 1].

    Source: arXiv 2410.01735, Table 13. Needs a gold answer for every prompt, and calls no reward model.

    Args:
        is_right: Whether a response answers a prompt correctly.
    """

    def __init__(self, is_right: IsRight) -> None:
        self._is_right = is_right

    def measure(self, batch: Batch, responses: Responses, charges: Sequence[Charge]) -> FloatArray:
        """(1 + gap) / 2; NaN for a charge without a pair whose prompt has a gold answer."""
        return np.array([self._gap(batch, responses, charge) for charge in charges], dtype=np.float64)

    def _gap(self, batch: Batch, responses: Responses, charge: Charge) -> float:
        gaps = []
        for pair in charge.pairs:
            prompt, row = batch.prompts[pair.prompt], responses[pair.prompt]
            if prompt.answer is not None:
                chosen = self._is_right(prompt, row[pair.chosen].text)
                gaps.append(float(chosen) - float(self._is_right(prompt, row[pair.rejected].text)))
        return 0.5 + 0.5 * float(np.mean(gaps)) if gaps else float("nan")


class PoolAgreement(Stateless):
    """How much of the pool agrees with the chosen reward model, measured in one of `every` batches.

    The other reward models score the responses of its pairs; the signal is the share of their scores that order a pair
    the same way. It needs no gold answer. It is at best as good as the majority of the pool.

    Args:
        pool: The reward models.
        every: Batches between measurements; each calls the K - 1 others.
    """

    def __init__(self, pool: RewardPool, *, every: int) -> None:
        self._pool, self._every = pool, every

    def measure(self, batch: Batch, responses: Responses, charges: Sequence[Charge]) -> FloatArray:
        """Share of the other reward models' orders that agree; NaN where no other one orders a pair."""
        if batch.step % self._every:
            return np.full(len(charges), np.nan)
        return np.array([self._agreement(batch, responses, charge) for charge in charges], dtype=np.float64)

    def _agreement(self, batch: Batch, responses: Responses, charge: Charge) -> float:
        others = [arm for arm in range(len(self._pool.names)) if arm != charge.arm]
        gaps = [self._gaps(batch, responses, charge, arm) for arm in others if charge.pairs]
        agrees = np.concatenate([row[np.isfinite(row) & (row != 0)] > 0 for row in gaps]) if gaps else np.empty(0)
        return float(agrees.mean()) if len(agrees) else float("nan")

    def _gaps(self, batch: Batch, responses: Responses, charge: Charge, arm: int) -> FloatArray:
        """Score of chosen minus rejected response of every pair by another reward model."""
        needed: dict[int, list[int]] = {}
        for pair in charge.pairs:
            needed.setdefault(pair.prompt, []).extend((pair.chosen, pair.rejected))
        texts = [[responses[row][index].text for index in indices] for row, indices in needed.items()]
        try:
            scores = self._pool.score(arm, [batch.prompts[row] for row in needed], texts)
        except QuarantinedError:
            return np.full(len(charge.pairs), np.nan)
        by_prompt = {row: iter(values.reshape(-1, 2)) for row, values in zip(needed, scores, strict=True)}
        rows = [next(by_prompt[pair.prompt]) for pair in charge.pairs]
        return np.array([chosen - rejected for chosen, rejected in rows])


class DevGain(Stateless):
    """Change of the dev metric since its last measurement, credited to the batch that measures it.

    Args:
        evaluate: Measures accuracy in [0, 1] on a few held-out prompts.
        every: Batches between measurements; 1 credits each batch with its own gain.
        span: Gain in accuracy that counts as a full bandit reward.
    """

    def __init__(self, evaluate: Callable[[], float], *, every: int, span: float) -> None:
        self._evaluate, self._every, self._span = evaluate, every, span
        self._last: float | None = None

    def measure(self, batch: Batch, responses: Responses, charges: Sequence[Charge]) -> FloatArray:
        """0.5 for no change, 1 for a gain of `span` or more; NaN at the first measurement and between two."""
        nothing = np.full(len(charges), np.nan)
        if batch.step % self._every:
            return nothing
        before, self._last = self._last, self._evaluate()
        if before is None:
            return nothing
        return np.full(len(charges), float(np.clip(0.5 + 0.5 * (self._last - before) / self._span, 0.0, 1.0)))

    def state_dict(self) -> StateDict:
        """The last measurement."""
        return {"last": self._last}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the last measurement."""
        self._last = state["last"]

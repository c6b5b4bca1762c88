"""What all selectors share that choose one arm per row: checks, drawing, open selections, state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
from threadpoolctl import ThreadpoolController

from laser.bandits.base import check_state_version
from laser.bandits.open_selections import OpenSelections, checked_available
from laser.core.seeding import stream
from laser.core.types import BoolArray, FloatArray, IntArray, Selection, StateDict

_STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """A selector's valuation of M contexts.

    Attributes:
        values_MK: The value of every arm.
        probabilities_MK: The probability of choosing each arm; rows sum to 1, unavailable arms have 0.
        memo: Intermediate results that save work in `learn`, which recomputes them if they are lost.
    """

    values_MK: FloatArray
    probabilities_MK: FloatArray
    memo: Any = None


@dataclass(frozen=True, slots=True)
class Observations:
    """The rows of one closed selection that have a bandit reward, in order.

    Attributes:
        contexts_MD: Contexts; no columns for a selector without contexts.
        arms_M: The arm chosen for each row.
        rewards_M: Finite bandit rewards.
        probabilities_M: The probability with which each row's arm was drawn.
        memo_rows: For each row, its index in the `Judgement` it comes from.
        memo: The memo of that judgement, or None.
    """

    contexts_MD: FloatArray
    arms_M: IntArray
    rewards_M: FloatArray
    probabilities_M: FloatArray
    memo_rows: IntArray
    memo: Any = None


class ArmSelector(ABC):
    """Chooses one arm per row by drawing from the probabilities that a subclass gives.

    A deterministic rule gives probability 1 to one arm, or spreads it evenly over arms that tie: everything that is
    random about a choice is drawn here, from one seeded stream, and every choice has an exact propensity.

    Args:
        num_arms: K.
        dim: D, features of a context; None: contexts are not looked at.
        forced_pulls: Pulls every arm gets first, the least pulled one next.
        seed: Seeds the draws.
        settings: What a state must agree on to be restored.

    Raises:
        ValueError: An argument is out of its range.
    """

    kind: str
    threaded_dim = 64  # features from which on BLAS would start a second thread

    def __init__(
        self,
        num_arms: int,
        dim: int | None = None,
        *,
        forced_pulls: int = 0,
        seed: int = 0,
        settings: Mapping[str, float | int | str | None] | None = None,
    ) -> None:
        if num_arms < 1 or (dim is not None and dim < 1) or forced_pulls < 0:
            raise ValueError(f"need num_arms >= 1, dim >= 1, forced_pulls >= 0: {num_arms}, {dim}, {forced_pulls}")
        self._num_arms = num_arms
        self._dim = dim
        self._forced_pulls = forced_pulls
        self._settings = dict(settings or {})
        self._draws = stream(seed, "bandit", 1)
        self._open = OpenSelections()
        self._memos: dict[int, Any] = {}
        self._pulls_K = np.zeros(num_arms, dtype=np.int64)
        self._one_hot_KK = np.eye(num_arms)
        self._penalties_of: Callable[[], FloatArray] = partial(np.zeros, num_arms)
        # A second BLAS thread costs time at these sizes and changes the last bits; below the threshold BLAS does not
        # start one. The controller is made once: making it takes 0.7 ms, its `limit` 0.01 ms. BLAS only, so that torch
        # keeps its OpenMP threads.
        self._threads = (
            ThreadpoolController().select(user_api="blas") if dim is not None and dim >= self.threaded_dim else None
        )

    @abstractmethod
    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """Values and probabilities of every arm for M checked contexts."""

    @abstractmethod
    def learn(self, seen: Observations) -> None:
        """Learn from the rows of a selection that have a bandit reward."""

    @abstractmethod
    def learned_state(self) -> StateDict:
        """What was learned; keys without the prefix that `state_dict` adds."""

    @abstractmethod
    def load_learned_state(self, state: StateDict) -> None:
        """Restore `learned_state`."""

    @property
    def num_arms(self) -> int:
        """K."""
        return self._num_arms

    @final
    def penalize(self, penalties_of: Callable[[], FloatArray]) -> None:
        """Subtract a penalty from each arm's value in every choice from now on, such as its price.

        A price is known, so it is subtracted where arms are compared and not from the bandit rewards: estimates and
        their confidence stay those of the quality, and a price that changes has effect at once.

        Args:
            penalties_of: Returns the current penalties, in units of a bandit reward, shape (K,).
        """
        self._penalties_of = penalties_of

    @property
    def penalties_K(self) -> FloatArray:
        """The current penalties, shape (K,); zeros without `penalize`."""
        return self._penalties_of()

    @property
    def pulls_K(self) -> IntArray:
        """Observations learned from, by arm."""
        return self._pulls_K.copy()

    @final
    def select(self, contexts_MD: FloatArray, available_K: BoolArray | None = None) -> Selection:
        """Choose arms for M contexts; see `Selector.select`."""
        contexts_MD = self._checked(contexts_MD)
        available_K = checked_available(available_K, self._num_arms)
        with self._one_thread():
            judgement = self.judge(contexts_MD, available_K)
        arms_M, probabilities_MK = self._draw(judgement.probabilities_MK, available_K)
        drawn_M = probabilities_MK[np.arange(len(arms_M)), arms_M]
        selection_id = self._open.add(contexts_MD, arms_M, drawn_M)
        if judgement.memo is not None:
            self._memos[selection_id] = judgement.memo
        charged_E = tuple(enumerate(arms_M.tolist()))
        return Selection(selection_id, self._one_hot_KK[arms_M], probabilities_MK, judgement.values_MK, charged_E)

    @final
    def propensities(self, contexts_MD: FloatArray, available_K: BoolArray | None = None) -> FloatArray:
        """Probability of each arm for each of M contexts, shape (M, K), without choosing; nothing is kept open."""
        contexts_MD = self._checked(contexts_MD)
        available_K = checked_available(available_K, self._num_arms)
        least = self._pulls_K[available_K].min()
        if least < self._forced_pulls:
            owed = available_K & (self._pulls_K == least)
            return np.tile(owed / owed.sum(), (len(contexts_MD), 1))
        with self._one_thread():
            return self.judge(contexts_MD, available_K).probabilities_MK

    @final
    def update(self, selection_id: int, bandit_rewards_E: FloatArray) -> None:
        """Learn from a selection; see `Selector.update`."""
        rewards_M = np.asarray(bandit_rewards_E, dtype=np.float64)
        selection = self._open.close_with(selection_id, rewards_M)
        memo = self._memos.pop(selection_id, None)
        contexts_MD, arms_M, probabilities_M = selection.contexts_MD, selection.arms_M, selection.probabilities_M
        rows = np.arange(len(rewards_M))
        missing = np.isnan(rewards_M)
        if missing.any():
            rows = np.flatnonzero(~missing)
            contexts_MD, arms_M, probabilities_M = contexts_MD[rows], arms_M[rows], probabilities_M[rows]
            rewards_M = rewards_M[rows]
        self._learn(Observations(contexts_MD, arms_M, rewards_M, probabilities_M, rows, memo))

    @final
    def observe(
        self, contexts_MD: FloatArray, arms_M: IntArray, rewards_M: FloatArray, probabilities_M: FloatArray
    ) -> None:
        """Learn from choices that another selector made.

        Args:
            contexts_MD: Contexts, shape (M, D).
            arms_M: The arm chosen for each.
            rewards_M: Finite bandit rewards.
            probabilities_M: The probability with which each arm was drawn.
        """
        rows = np.arange(len(arms_M))
        self._learn(Observations(self._checked(contexts_MD), arms_M, rewards_M, probabilities_M, rows))

    @final
    def expire(self, selection_id: int) -> None:
        """Close a selection without learning; see `Selector.expire`."""
        self._open.close(selection_id)
        self._memos.pop(selection_id, None)

    @final
    def state_dict(self) -> StateDict:
        """What was learned, open selections and the state of the drawing stream."""
        state: StateDict = {
            "version": _STATE_VERSION,
            **self._identity(),
            "draws": self._draws.bit_generator.state,
            "pulls": self._pulls_K.copy(),
        }
        state |= {f"learned.{name}": value for name, value in self.learned_state().items()}
        return state | {f"open.{name}": value for name, value in self._open.state_dict().items()}

    @final
    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; see `Selector.load_state_dict`."""
        check_state_version(state.get("version"), _STATE_VERSION)
        for name, here in self._identity().items():
            if state.get(name) != here:
                raise ValueError(f"state is of a selector with {name} {state.get(name)!r}, this one has {here!r}")
        self._draws.bit_generator.state = state["draws"]
        self._pulls_K = np.array(state["pulls"], dtype=np.int64)
        self._open.load_state_dict(section(state, "open."))
        self._memos = {}
        self.load_learned_state(section(state, "learned."))

    def _learn(self, seen: Observations) -> None:
        with self._one_thread():
            self.learn(seen)
        self._pulls_K += np.bincount(seen.arms_M, minlength=self._num_arms)

    def _one_thread(self) -> AbstractContextManager[object]:
        limit: AbstractContextManager[object] = self._threads.limit(limits=1) if self._threads else nullcontext()
        return limit

    def _identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "dim": self._dim,
            "num_arms": self._num_arms,
            "settings": self._settings,
        }

    def _checked(self, contexts_MD: FloatArray) -> FloatArray:
        contexts_MD = np.array(contexts_MD, dtype=np.float64, order="C")  # a copy: it is learned from later
        if self._dim is None:
            return np.empty((len(contexts_MD), 0))
        if contexts_MD.ndim != 2 or contexts_MD.shape[1] != self._dim:
            raise ValueError(f"contexts have shape {contexts_MD.shape}, expected (M, {self._dim})")
        if not np.isfinite(contexts_MD).all():
            raise ValueError("contexts must be finite")
        return contexts_MD

    def _draw(self, wanted_MK: FloatArray, available_K: BoolArray) -> tuple[IntArray, FloatArray]:
        """Draw an arm for every row, those that are owed forced pulls first; returns arms and propensities."""
        forced = self._forced_pulls > 0
        pulls_K = self._pulls_K + self._open.counts(self._num_arms) if forced else self._pulls_K
        probabilities_MK = wanted_MK.copy() if forced else wanted_MK
        arms_M = probabilities_MK.argmax(axis=1)
        certain = not forced and np.count_nonzero(probabilities_MK) == len(arms_M)
        for row in range(0 if certain else len(arms_M)):
            if forced and (least := pulls_K[available_K].min()) < self._forced_pulls:
                owed = available_K & (pulls_K == least)
                probabilities_MK[row] = owed / owed.sum()
                arms_M[row] = owed.argmax()
            if np.count_nonzero(probabilities_MK[row]) > 1:
                options = np.flatnonzero(probabilities_MK[row])
                arms_M[row] = self._draws.choice(options, p=probabilities_MK[row, options])
            if forced:
                pulls_K[arms_M[row]] += 1
        return arms_M, probabilities_MK


def best_arms(values_MK: FloatArray, available_K: BoolArray) -> FloatArray:
    """Probability 1 for the available arm of the largest value, shared evenly where several tie."""
    masked_MK = values_MK if available_K.all() else np.where(available_K, values_MK, -np.inf)
    best_MK = masked_MK == masked_MK.max(axis=1, keepdims=True)
    unique = np.count_nonzero(best_MK) == len(best_MK)  # the usual case, which is not worth a division
    probabilities: FloatArray = best_MK.astype(np.float64) if unique else best_MK / best_MK.sum(axis=1, keepdims=True)
    return probabilities


def section(state: StateDict, prefix: str) -> StateDict:
    """The entries under a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

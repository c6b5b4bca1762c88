"""Selectors that do not learn: one fixed reward model, or a random one (arXiv 2410.01735, Sec. 4.1)."""

from __future__ import annotations

import numpy as np

from laser.bandits.open_selections import OpenSelections, checked_available
from laser.seeding import stream
from laser.types import BoolArray, FloatArray, Selection, StateDict


class Fixed:
    """Always the same reward model: the paper's Best RM baseline, and one run of Avg. RM.

    Args:
        num_arms: K.
        arm: Which one, from 0.

    Raises:
        ValueError: There is no such arm.
    """

    def __init__(self, num_arms: int, arm: int) -> None:
        if not 0 <= arm < num_arms:
            raise ValueError(f"arm {arm} is not one of {num_arms}")
        self._weights_K = np.eye(num_arms)[arm]
        self._open = OpenSelections()

    @property
    def num_arms(self) -> int:
        """K."""
        return len(self._weights_K)

    def select(self, contexts_MD: FloatArray, available_K: BoolArray | None = None) -> Selection:
        """Choose the fixed arm for every row; raises ValueError if it is not available."""
        arm = int(self._weights_K.argmax())
        if not checked_available(available_K, self.num_arms)[arm]:
            raise ValueError("the fixed arm is not available")
        weights_MK = np.tile(self._weights_K, (len(contexts_MD), 1))
        selection_id = self._open.add(contexts_MD, np.full(len(contexts_MD), arm, dtype=np.int64))
        return Selection(selection_id, weights_MK, weights_MK, np.zeros_like(weights_MK))

    def update(self, selection_id: int, bandit_rewards_M: FloatArray) -> None:
        """Close the selection; nothing is learned."""
        self._open.close_with(selection_id, np.asarray(bandit_rewards_M, dtype=np.float64))

    def expire(self, selection_id: int) -> None:
        """Close the selection."""
        self._open.close(selection_id)

    def state_dict(self) -> StateDict:
        """Open selections."""
        return {"weights": self._weights_K} | self._open.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises ValueError if it belongs to another arm."""
        if not np.array_equal(state["weights"], self._weights_K):
            raise ValueError("state belongs to another fixed arm")
        self._open.load_state_dict(state)


class UniformRandom:
    """A uniformly random available reward model for every row: the paper's random baseline.

    Args:
        num_arms: K.
        seed: Seeds the draws.
    """

    def __init__(self, num_arms: int, *, seed: int = 0) -> None:
        self._num_arms = num_arms
        self._draws = stream(seed, "bandit", 2)
        self._open = OpenSelections()

    @property
    def num_arms(self) -> int:
        """K."""
        return self._num_arms

    def select(self, contexts_MD: FloatArray, available_K: BoolArray | None = None) -> Selection:
        """Draw an arm for every row; raises ValueError if none is available."""
        available_K = checked_available(available_K, self._num_arms)
        rows = len(contexts_MD)
        arms_M = self._draws.choice(np.flatnonzero(available_K), size=rows).astype(np.int64)
        probabilities_MK = np.tile(available_K / available_K.sum(), (rows, 1))
        selection_id = self._open.add(contexts_MD, arms_M)
        return Selection(
            selection_id, np.eye(self._num_arms)[arms_M], probabilities_MK, np.zeros((rows, self._num_arms))
        )

    def update(self, selection_id: int, bandit_rewards_M: FloatArray) -> None:
        """Close the selection; nothing is learned."""
        self._open.close_with(selection_id, np.asarray(bandit_rewards_M, dtype=np.float64))

    def expire(self, selection_id: int) -> None:
        """Close the selection."""
        self._open.close(selection_id)

    def state_dict(self) -> StateDict:
        """Open selections and the state of the stream."""
        return {"num_arms": self._num_arms, "draws": self._draws.bit_generator.state} | self._open.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises ValueError if it belongs to another number of arms."""
        if state["num_arms"] != self._num_arms:
            raise ValueError(f"state is of {state['num_arms']} arms, this selector has {self._num_arms}")
        self._draws.bit_generator.state = state["draws"]
        self._open.load_state_dict(state)

"""Selections that wait for their bandit rewards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from laser.core.types import BoolArray, FloatArray, IntArray, StateDict


@dataclass(frozen=True, slots=True)
class OpenSelection:
    """Contexts, shape (M, D), the arms chosen for them and the probabilities with which they were, both (M,)."""

    contexts_MD: FloatArray
    arms_M: IntArray
    probabilities_M: FloatArray


class OpenSelections:
    """Numbers selections and keeps them until they are closed, in any order."""

    def __init__(self) -> None:
        self._next = 0
        self._open: dict[int, OpenSelection] = {}

    def add(self, contexts_MD: FloatArray, arms_M: IntArray, probabilities_M: FloatArray) -> int:
        """Keep a selection and return its id."""
        self._open[self._next] = OpenSelection(contexts_MD, arms_M, probabilities_M)
        self._next += 1
        return self._next - 1

    def close(self, selection_id: int) -> OpenSelection:
        """Remove and return a selection; raises KeyError if it is not open."""
        if selection_id not in self._open:
            raise KeyError(f"selection {selection_id} is not open: unknown, updated or expired")
        return self._open.pop(selection_id)

    def close_with(self, selection_id: int, bandit_rewards_M: FloatArray) -> OpenSelection:
        """Check the rewards of a selection, then close it; a refused call leaves it open.

        Raises:
            KeyError: It is not open.
            ValueError: The rewards have another shape than its rows, or are infinite.
        """
        if selection_id in self._open:
            rows = len(self._open[selection_id].arms_M)
            if np.shape(bandit_rewards_M) != (rows,):
                raise ValueError(
                    f"selection {selection_id} has {rows} rows, got rewards of shape {np.shape(bandit_rewards_M)}"
                )
            if np.isinf(bandit_rewards_M).any():
                raise ValueError("bandit rewards must be finite, or NaN where nothing was observed")
        return self.close(selection_id)

    def counts(self, num_arms: int) -> IntArray:
        """How many open rows wait on each arm, shape (K,)."""
        arms = [arm for selection in self._open.values() for arm in selection.arms_M]
        return np.bincount(np.array(arms, dtype=np.int64), minlength=num_arms).astype(np.int64)

    def state_dict(self) -> StateDict:
        """Open selections and the next id."""
        state: StateDict = {"next": self._next, "ids": list(self._open)}
        for selection_id, selection in self._open.items():
            state[f"{selection_id}.contexts"] = selection.contexts_MD
            state[f"{selection_id}.arms"] = selection.arms_M
            state[f"{selection_id}.probabilities"] = selection.probabilities_M
        return state

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        self._next = int(state["next"])
        self._open = {
            int(selection_id): OpenSelection(
                *(state[f"{selection_id}.{name}"] for name in ("contexts", "arms", "probabilities"))
            )
            for selection_id in state["ids"]
        }


def checked_available(available_K: BoolArray | None, num_arms: int) -> BoolArray:
    """The mask of arms that may be chosen, all of them if None; ValueError for another shape, or if there is none."""
    if available_K is None:
        return np.ones(num_arms, dtype=np.bool_)
    available_K = np.asarray(available_K, dtype=np.bool_)
    if available_K.shape != (num_arms,):
        raise ValueError(f"available has shape {available_K.shape}, expected ({num_arms},)")
    if not available_K.any():
        raise ValueError("no arm is available")
    return available_K

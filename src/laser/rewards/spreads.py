"""The spread of each reward model's scores: the unit in which the opinions of several reward models can be added.

A reward model is compared with itself elsewhere, never within one prompt: its opinion counts more where it is stronger
than usual, and multiplying its scores by a constant changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from laser.core.types import FloatArray, StateDict

WINDOW = 4096  # latest deviations of a reward model that its running spread sees


def deviations(scores_N: FloatArray) -> FloatArray:
    """Scores minus the mean of the finite ones: exactly 0 where all are equal, NaN where there is no score."""
    finite = np.isfinite(scores_N)
    if not finite.any():
        return np.full(len(scores_N), np.nan)
    shifted = np.where(finite, scores_N, np.nan) - scores_N[finite][0]  # equal scores leave no rounding error
    centered: FloatArray = shifted - shifted[finite].mean()
    return centered


def spread(deviations_N: FloatArray) -> float:
    """Median absolute value of deviations, in the unit of the scores.

    Where more than half of them are 0, their root mean square instead; 0 if all are 0 or there is none.
    """
    sizes = np.abs(deviations_N[np.isfinite(deviations_N)])
    largest = float(sizes.max(initial=0.0))
    if largest == 0.0:
        return 0.0
    return float(np.median(sizes)) or largest * float(np.sqrt(np.mean((sizes / largest) ** 2)))  # squares stay finite


def deviations_by_arm(scores_BKN: Sequence[FloatArray]) -> list[FloatArray]:
    """The finite deviations of each of K reward models; a prompt with fewer than two of its scores has none.

    Args:
        scores_BKN: Scores of B prompts, each of shape (K, number of responses), NaN where there is none.
    """
    found: list[list[FloatArray]] = [[] for _ in range(len(scores_BKN[0]) if scores_BKN else 0)]
    for scores_KN in scores_BKN:
        for of_arm, scores_N in zip(found, scores_KN, strict=True):
            finite = scores_N[np.isfinite(scores_N)]
            if len(finite) > 1:
                of_arm.append(deviations(finite))
    return [np.concatenate([np.zeros(0), *of_arm]) for of_arm in found]


class RunningSpreads:
    """The spread of each reward model over its latest deviations.

    Args:
        num_arms: K.
        window: Number of an arm's latest deviations that count.
    """

    def __init__(self, num_arms: int, *, window: int = WINDOW) -> None:
        self._latest: list[deque[float]] = [deque(maxlen=window) for _ in range(num_arms)]

    @property
    def values_K(self) -> FloatArray:
        """Spreads in each reward model's unit, shape (K,); 0 for one without any."""
        return np.array([spread(np.array(latest, dtype=np.float64)) for latest in self._latest])

    def add(self, deviations_KM: Iterable[Iterable[float]]) -> None:
        """Add deviations of each arm, oldest first."""
        for latest, fresh in zip(self._latest, deviations_KM, strict=True):
            latest.extend(float(value) for value in fresh)

    def state_dict(self) -> StateDict:
        """The latest deviations, by arm."""
        return {"deviations": [list(latest) for latest in self._latest]}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises ValueError if it is of another pool."""
        rows = state["deviations"]
        if len(rows) != len(self._latest):
            raise ValueError(f"it is of {len(rows)} reward models, the pool has {len(self._latest)}")
        for latest in self._latest:
            latest.clear()
        self.add(rows)

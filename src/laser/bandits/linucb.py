"""LinUCB, one disjoint linear model per reward model (arXiv 2410.01735, Sec. 3.2; Li et al. 2010)."""

from __future__ import annotations

import numpy as np

from laser.bandits.arm_selector import Judgement, best_arms
from laser.bandits.linear import LinearSelector
from laser.core.types import BoolArray, FloatArray


class LinUCB(LinearSelector):
    """Selects argmax_k [c' theta_k + alpha sqrt(c' A_k^-1 c)] (Eq. 1) and learns A_k += c c', b_k += r c (Eq. 2).

    Source: arXiv 2410.01735, Sec. 3.2 and A.2. Deviations: the ridge and the scale of the random initial b are
    settings (the paper's are 1 and unknown), ties are broken by a seeded stream, arms may be pulled a number of
    times before the bound decides.

    Args:
        num_arms: K.
        dim: D, features of a context.
        alpha: Width of the confidence bound.
        ridge: lambda of A_k = lambda I at the start.
        initial_b_scale: Standard deviation of the initial b_k; 0 gives zeros.
        forced_pulls: Pulls every arm gets first, the least pulled one next.
        seed: Seeds initial b and ties.

    Raises:
        ValueError: An argument is out of its range.
    """

    kind = "linucb"

    def __init__(
        self,
        num_arms: int,
        dim: int,
        *,
        alpha: float = 0.1,
        ridge: float = 1.0,
        initial_b_scale: float = 0.0,
        forced_pulls: int = 0,
        seed: int = 0,
    ) -> None:
        if not (ridge > 0 and alpha >= 0 and initial_b_scale >= 0):
            raise ValueError(f"need ridge > 0, alpha >= 0, initial_b_scale >= 0: {ridge}, {alpha}, {initial_b_scale}")
        super().__init__(
            num_arms, dim, ridge=ridge, initial_b_scale=initial_b_scale, forced_pulls=forced_pulls, seed=seed
        )
        self.alpha = alpha

    def estimates(self, contexts_MD: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Means c' theta_k and widths sqrt(c' A_k^-1 c) of every arm, both of shape (M, K)."""
        with self._one_thread():
            estimates = self._ridges.estimate(self._checked(contexts_MD))
        return estimates.means_MK, np.sqrt(estimates.variances_MK)

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """Eq. 1; O(K n D) per row for n observations of an arm."""
        estimates = self._ridges.estimate(contexts_MD)
        values_MK = estimates.means_MK + self.alpha * np.sqrt(estimates.variances_MK)  # Eq. 1
        return Judgement(values_MK, best_arms(values_MK - self.penalties_K, available_K), estimates)

"""Linear Thompson sampling, and BayesianRouter, which is that with a prior learned offline."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from laser.bandits.arm_selector import Judgement
from laser.bandits.linear import LinearSelector
from laser.core.types import BoolArray, FloatArray

_NUM_QUANTILES = 512
_QUANTILES = ndtri((np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES)


class LinearThompson(LinearSelector):
    """Draws theta_k ~ N(A_k^-1 b_k, scale^2 A_k^-1) and takes the arm with the largest c' theta_k.

    Source: Agrawal and Goyal 2013 (arXiv 1209.3352), disjoint arms. With a `prior_KD` it is the online part of
    BayesianRouter (arXiv 2510.02850): Bayesian linear regression with a Gaussian prior N(theta_0, scale^2 / ridge I)
    whose mean comes from an offline router. Deviation: for disjoint arms only the marginal N(mean, scale^2 c'A^-1c) of
    each arm matters, so the probability that an arm's draw is the largest is integrated (512 quantiles per arm) and the
    arm drawn from it; choices have the same distribution to 1/512, and exact propensities.

    Args:
        num_arms: K.
        dim: D.
        scale: Standard deviation of the noise, which scales exploration.
        ridge: Precision of the prior: A_k = ridge I at the start.
        prior_KD: Prior means theta_0; None: zeros.
        forced_pulls: Pulls every arm gets first.
        seed: Seeds the draws.

    Raises:
        ValueError: An argument is out of its range or the prior has another shape.
    """

    kind = "thompson"

    def __init__(
        self,
        num_arms: int,
        dim: int,
        *,
        scale: float = 0.1,
        ridge: float = 1.0,
        prior_KD: FloatArray | None = None,
        forced_pulls: int = 0,
        seed: int = 0,
    ) -> None:
        if not (ridge > 0 and scale > 0):
            raise ValueError(f"need ridge > 0 and scale > 0: {ridge}, {scale}")
        if prior_KD is not None and prior_KD.shape != (num_arms, dim):
            raise ValueError(f"the prior has shape {prior_KD.shape}, expected ({num_arms}, {dim})")
        initial_b_KD = None if prior_KD is None else ridge * prior_KD  # theta_0 = A_0^-1 b_0
        super().__init__(num_arms, dim, ridge=ridge, initial_b_KD=initial_b_KD, forced_pulls=forced_pulls, seed=seed)
        self.scale = scale

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """The probability that each arm's draw is the largest; values are the posterior means."""
        estimates = self._ridges.estimate(contexts_MD)
        deviations_MK = self.scale * np.sqrt(estimates.variances_MK)
        probabilities_MK = np.zeros_like(deviations_MK)
        arms = np.flatnonzero(available_K)
        means_MK = estimates.means_MK - self.penalties_K
        for row, (means_K, deviations_K) in enumerate(zip(means_MK, deviations_MK, strict=True)):
            probabilities_MK[row, arms] = probability_of_largest(means_K[arms], deviations_K[arms])
        return Judgement(estimates.means_MK, probabilities_MK, estimates)


def probability_of_largest(means_K: FloatArray, deviations_K: FloatArray) -> FloatArray:
    """P(k = argmax_j N(means_j, deviations_j^2)) for independent normals, to about 1/512 each.

    Integrates prod_{j != k} Phi((x - m_j) / s_j) over the quantiles x of arm k.

    Args:
        means_K: Means, shape (K,).
        deviations_K: Standard deviations, shape (K,), not negative.
    """
    deviations_K = np.maximum(deviations_K, 1e-12)
    draws_KQ = means_K[:, None] + deviations_K[:, None] * _QUANTILES
    below_KQJ = ndtr((draws_KQ[:, :, None] - means_K) / deviations_K)
    others = np.arange(len(means_K))
    below_KQJ[others, :, others] = 1.0
    probabilities_K = below_KQJ.prod(axis=2).mean(axis=1)
    normalized: FloatArray = probabilities_K / probabilities_K.sum()
    return normalized

"""Labels without gold answers: an order of a prompt's answers in which reward models and the policy have a say.

Source: ours, chosen in a pilot with laboratory models. What distinguishes an expert is that its opinions are stronger
where it knows than elsewhere. Dividing its scores by their spread over all categories keeps that and removes the unit;
dividing by the spread within a prompt would remove both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from laser.core.types import FloatArray
from laser.rewards.spreads import deviations, deviations_by_arm, spread

CONSISTENCY_WEIGHT = 2.0  # of the policy's own consistency, in votes of a reward model
_SMOOTHING = 0.3  # samples; keeps one answer more or less from counting fully where all are about as frequent
_TIE = 1e-9  # spreads; rounding differs with a reward model's unit and must not order answers


def consensus(scores_KN: FloatArray, spreads_K: FloatArray, counts_N: FloatArray) -> FloatArray:
    """Consensus value of each of a prompt's distinct answers: higher is better, and it has no unit.

        r = sum_k (s_k - mean(s_k)) / spread_k + 2 (c - mean(c)) / (std(c) + 0.3)

    Args:
        scores_KN: Scores s of K reward models for N distinct answers; NaN, no opinion, counts as the mean.
        spreads_K: Spread of each reward model's deviations over many prompts; one with spread 0 has no say.
        counts_N: How many of the policy's samples c were each answer.

    Returns:
        Shape (N,).
    """
    say = spreads_K > 0
    votes = [deviations(row) / unit for row, unit in zip(scores_KN[say], spreads_K[say], strict=True)]
    consistency_N = (counts_N - counts_N.mean()) / (counts_N.std() + _SMOOTHING)
    total: FloatArray = np.nansum([CONSISTENCY_WEIGHT * consistency_N, *votes], axis=0)
    return total


def voting_spreads(scores_BKN: Sequence[FloatArray], counts_BN: Sequence[FloatArray]) -> FloatArray:
    """Spread of each reward model's deviations, in the unit of its scores; 0 for one that has no say.

    A reward model that contradicts the consensus of all others, such as the negative of another one, has none. The one
    that agrees with the others least leaves first (all, if several agree equally little), as long as the share of
    pairs that it orders as they do is below 1/2 by more than about two standard errors, 1 / sqrt(number of pairs).

    Args:
        scores_BKN: Scores of B prompts' distinct answers, each of shape (K, N), NaN where there is none.
        counts_BN: How many of the policy's samples were each answer.

    Returns:
        Shape (K,).
    """
    spreads_K = np.array([spread(row) for row in deviations_by_arm(scores_BKN)])
    while (spreads_K > 0).sum() > 1:
        margins_K = np.full(len(spreads_K), np.inf)
        for arm in np.flatnonzero(spreads_K > 0):
            others_K = np.where(np.arange(len(spreads_K)) == arm, 0.0, spreads_K)
            gaps = np.concatenate(
                [
                    consensus_gaps(scores_KN[arm], consensus(scores_KN, others_K, counts_N))
                    for scores_KN, counts_N in zip(scores_BKN, counts_BN, strict=True)
                ]
            )
            if len(gaps):
                margins_K[arm] = share_agreeing(gaps) - 0.5 + 1 / np.sqrt(len(gaps))
        if margins_K.min() >= 0:
            break
        spreads_K[margins_K <= margins_K.min() + _TIE] = 0.0
    return spreads_K


def gold_gaps(scores_N: FloatArray, num_right: int) -> FloatArray:
    """Score of the right minus the wrong response, for each such pair with both scores; the right ones come first."""
    gaps = np.subtract.outer(scores_N[:num_right], scores_N[num_right:]).ravel()
    return gaps[np.isfinite(gaps)]


def consensus_gaps(scores_N: FloatArray, consensus_N: FloatArray) -> FloatArray:
    """Score of the better minus the worse answer, for each pair with both scores that the consensus orders."""
    first, second = np.triu_indices(len(scores_N), 1)
    lead = consensus_N[first] - consensus_N[second]
    gaps = (scores_N[first] - scores_N[second]) * np.sign(lead)
    return gaps[(np.abs(lead) > _TIE) & np.isfinite(gaps)]


def num_agreeing(gaps: FloatArray) -> float:
    """Number of gaps above 0, a tie counting half."""
    return float(np.sum((gaps > 0) + 0.5 * (gaps == 0)))


def share_agreeing(gaps: FloatArray) -> float:
    """Share of gaps above 0, a tie counting half; NaN without any."""
    return num_agreeing(gaps) / len(gaps) if len(gaps) else float("nan")

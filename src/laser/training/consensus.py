"""Labels without gold answers: an order of a prompt's answers in which reward models and the policy have a say.

Source: ours, chosen in a pilot with laboratory models. What distinguishes an expert is that its opinions are stronger
where it knows than elsewhere. Dividing its scores by their spread over all categories keeps that and removes the unit;
dividing by the spread within a prompt would remove both.
"""

from __future__ import annotations

import numpy as np

from laser.core.types import FloatArray
from laser.rewards.spreads import deviations

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

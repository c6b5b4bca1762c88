"""How the scores of several weighted reward models become one."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.stats import rankdata

from laser.core.types import FloatArray

Combination = Literal["raw", "zscore", "rank", "agreement"]


def combine_scores(scores_KN: FloatArray, weights_K: FloatArray, combination: Combination = "raw") -> FloatArray:
    """The weighted mean over reward models of one prompt's scores.

    A one-hot row of weights gives that model's scores, in whatever scale. With several, raw scores let the model with
    the widest scale dominate (the paper's RM Score Ensemble); standardised over the prompt's responses, or replaced by
    their ranks, every model has the same say.

    Args:
        scores_KN: Raw scores, shape (K, N).
        weights_K: Weights of the models, summing to 1.
        combination: "raw", "zscore" or "rank"; "agreement" is decided pair by pair (`orient_by_agreement`), and the
            mean rank is what its scores are.

    Returns:
        Shape (N,); NaN where any model with weight has no finite score.
    """
    arms = np.flatnonzero(weights_K)
    if combination == "raw" or len(arms) == 1:
        combined: FloatArray = weights_K[arms] @ scores_KN[arms]
        return combined
    standard = _standardised if combination == "zscore" else _ranked
    rows = np.stack([standard(scores_KN[arm]) for arm in arms])
    mean: FloatArray = weights_K[arms] @ rows
    return mean


def _standardised(scores_N: FloatArray) -> FloatArray:
    finite = scores_N[np.isfinite(scores_N)]
    deviation = finite.std() if len(finite) else 0.0
    if deviation == 0.0:
        return np.where(np.isfinite(scores_N), 0.0, np.nan)
    standard: FloatArray = (scores_N - finite.mean()) / deviation
    return standard


def _ranked(scores_N: FloatArray) -> FloatArray:
    """Mean ranks in [0, 1], ties sharing theirs."""
    finite = np.isfinite(scores_N)
    ranks = np.full(len(scores_N), np.nan)
    if finite.any():
        ranks[finite] = (rankdata(scores_N[finite]) - 0.5) / finite.sum()
    return ranks

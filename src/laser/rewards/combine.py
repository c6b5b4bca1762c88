"""How the scores of several weighted reward models become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from laser.core.types import FloatArray
from laser.rewards.spreads import deviations

Combination = Literal["raw", "zscore", "variation", "rank", "scaled", "agreement"]

_LARGEST = 1e8  # coefficient of variation of scores whose mean is 0


def combine_scores(
    scores_KN: FloatArray,
    weights_K: FloatArray,
    combination: Combination = "raw",
    spreads_K: FloatArray | None = None,
) -> FloatArray:
    """The weighted mean over reward models of one prompt's scores, shape (N,).

    A one-hot row of weights gives that model's scores, in whatever scale. With several, raw scores let the model with
    the widest scale dominate (the paper's RM Score Ensemble); standardized over the prompt's responses, or replaced by
    their ranks, every model has the same say. A sum of scores standardized within the prompt's group is GDPO's
    normalization (arXiv 2601.05242), and with `weights_by_variation` SAW's. Scaled, a model's deviations from the
    prompt's mean are divided by its own spread over many prompts, so its unit does not matter and strong opinions count
    for more than weak ones. A model without a finite score for a response takes no part in its mean; where scales
    differ that shifts a raw mean, so use another combination for models that abstain.

    Args:
        scores_KN: Raw scores, shape (K, N).
        weights_K: Weights of the models, summing to 1.
        combination: "variation" standardizes as "zscore" does, because its weights were adapted to the batch before;
            "agreement" is decided pair by pair (`orient_by_agreement`), and its scores are mean ranks.
        spreads_K: Spread of each model's scores, for "scaled"; a model whose spread is 0 takes no part.

    Returns:
        Shape (N,); NaN where no model with weight has a finite score.
    """
    arms = np.flatnonzero(weights_K)
    rows = scores_KN[arms]
    if combination != "raw" and len(arms) > 1:
        if combination == "scaled":
            rows = _scaled(rows, np.zeros(len(arms)) if spreads_K is None else spreads_K[arms])
        else:
            standard = _standardized if combination in ("zscore", "variation") else _ranked
            rows = np.stack([standard(row) for row in rows])
    weights_N = weights_K[arms] @ np.isfinite(rows)
    totals_N = weights_K[arms] @ np.where(np.isfinite(rows), rows, 0.0)
    mean: FloatArray = np.divide(totals_N, weights_N, out=np.full(rows.shape[1], np.nan), where=weights_N > 0)
    return np.where(np.isfinite(rows).all(axis=0), totals_N, mean)  # no rounding where nothing is missing


def weights_by_variation(scores_BKN: Sequence[FloatArray], weights_BK: FloatArray) -> FloatArray:
    """Weights times each reward model's coefficient of variation over the batch, rows summing to 1; shape (B, K).

    Source: arXiv 2606.07705 (SAW): a reward that varies more in the batch, relative to its mean, has more left to
    teach. Decisions where it is silent: scores that are all equal have weight 0, and weights stay as they are where no
    reward model's scores vary. Its unit plays no part, but its zero does: log-likelihoods and random numbers around 0
    are not comparable.

    Args:
        scores_BKN: Raw scores of B prompts, each of shape (K, number of responses), NaN where there is none.
        weights_BK: Weights of the models, rows summing to 1.
    """
    rows = (np.concatenate([scores_KN[arm] for scores_KN in scores_BKN]) for arm in range(weights_BK.shape[1]))
    adapted_BK = weights_BK * np.array([_variation(scores_M[np.isfinite(scores_M)]) for scores_M in rows])
    totals_B1 = adapted_BK.sum(axis=1, keepdims=True)
    adapted: FloatArray = np.divide(adapted_BK, totals_B1, out=weights_BK.copy(), where=totals_B1 > 0)
    return adapted


def _variation(scores_M: FloatArray) -> float:
    """Standard deviation over the size of the mean; 0 where all scores are equal."""
    if not len(scores_M) or np.ptp(scores_M) == 0:
        return 0.0
    deviation, size = float(scores_M.std()), abs(float(scores_M.mean()))
    return min(deviation / size, _LARGEST) if size > 0 else _LARGEST


def _scaled(scores_KN: FloatArray, spreads_K: FloatArray) -> FloatArray:
    """Deviations divided by spreads; 0, which makes ties, where no model has a spread.

    Source: ours, chosen in a pilot with laboratory models.
    """
    if not spreads_K.any():
        return np.where(np.isfinite(scores_KN), 0.0, np.nan)
    units_K = np.where(spreads_K > 0, spreads_K, np.nan)
    scaled: FloatArray = np.stack([deviations(row) for row in scores_KN]) / units_K[:, None]
    return scaled


def _standardized(scores_N: FloatArray) -> FloatArray:
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

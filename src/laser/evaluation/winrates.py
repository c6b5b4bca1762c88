"""Win rates from pairwise preferences, and what they would be at equal length.

Source: Dubois et al. 2024, "Length-Controlled AlpacaEval" (arXiv 2404.04475), Sec. 3. With the difference of lengths
d_x and its standard deviation s over prompts, the probability that a response is preferred to the baseline's is

    logit P(x) = theta + phi * tanh(d_x / s) + psi * gamma_x,

and the length-controlled win rate is the mean of P over prompts with d_x = 0.

Deviations: (1) gamma_x, how hard a prompt is for models against the baseline, comes from the annotations of many models
on the same prompts; without them the term is left out. (2) One comparison is fitted at a time, as their released code
does, but with a small ridge on phi and psi in place of an L1 penalty chosen by cross-validation, and without
annotations of the baseline made verbose and concise on purpose: where one side is longer on almost every prompt, length
and quality cannot be separated, and `LengthControl.extrapolated` says so. (3) Preferences are means over both orders.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from laser.core.statistics import Share, bootstrap_rows, percentiles
from laser.core.types import FloatArray

RIDGE = 0.1
_LEAST_OVERLAP = 0.05  # of the prompts on either side of equal length


@dataclass(frozen=True, slots=True)
class LengthControl:
    """A win rate with the effect of length taken out.

    Attributes:
        win_rate: At equal length; 95% bootstrap interval over prompts.
        theta: Log-odds of winning at equal length, and at difficulty 0.
        phi: Effect of length: gain in log-odds of a response that is much longer.
        psi: Effect of the prompt's difficulty; None without that term.
        extrapolated: One side is longer on 95% of the prompts or more, so equal length was hardly seen.
    """

    win_rate: Share
    theta: float
    phi: float
    psi: float | None
    extrapolated: bool


def control_length(
    preferences_N: FloatArray,
    extra_length_N: FloatArray,
    *,
    difficulty_N: FloatArray | None = None,
    seed: int,
) -> LengthControl | None:
    """Estimate the win rate at equal length; the module says how.

    Args:
        preferences_N: How much each response is preferred to the baseline's, in [0, 1].
        extra_length_N: Its length minus the baseline's, in characters.
        difficulty_N: gamma_x of each prompt, if known.
        seed: Seeds the bootstrap.

    Returns:
        None where every length difference is the same but not zero, or there is a single prompt: the effect of length
        cannot be seen there.
    """
    spread = float(np.std(extra_length_N))
    if spread == 0 and (len(extra_length_N) < 2 or extra_length_N[0] != 0):
        return None
    columns = [
        np.ones(len(preferences_N)),
        np.tanh(extra_length_N / spread) if spread else np.zeros(len(preferences_N)),
    ]
    if difficulty_N is not None:
        columns.append(difficulty_N)
    features_NF = np.stack(columns, axis=1)
    equal_NF = features_NF * np.where(np.arange(len(columns)) == 1, 0.0, 1.0)
    penalties_F = np.array([0.0, RIDGE, RIDGE][: len(columns)])
    weights_F = fit_logistic(features_NF, preferences_N, penalties_F)
    draws = []
    for rows in bootstrap_rows(len(preferences_N), seed):
        drawn_F = fit_logistic(features_NF[rows], preferences_N[rows], penalties_F, start_F=weights_F)
        draws.append(float(expit(equal_NF[rows] @ drawn_F).mean()))
    low, high = percentiles(np.array(draws))
    shorter, longer = float((extra_length_N <= 0).mean()), float((extra_length_N >= 0).mean())
    return LengthControl(
        win_rate=Share(float(expit(equal_NF @ weights_F).mean()), low, high, len(preferences_N)),
        theta=float(weights_F[0]),
        phi=float(weights_F[1]),
        psi=float(weights_F[2]) if difficulty_N is not None else None,
        extrapolated=min(shorter, longer) < _LEAST_OVERLAP,
    )


def fit_logistic(
    features_NF: FloatArray, targets_N: FloatArray, penalties_F: FloatArray, *, start_F: FloatArray | None = None
) -> FloatArray:
    """Weights w that minimize the cross-entropy of expit(features w) with targets in [0, 1], plus penalties w^2 / 2."""

    def loss(weights_F: FloatArray) -> tuple[float, FloatArray]:
        logits_N = features_NF @ weights_F
        cross_entropy = np.logaddexp(0.0, logits_N) - targets_N * logits_N
        gradient_F = features_NF.T @ (expit(logits_N) - targets_N) + penalties_F * weights_F
        return float(cross_entropy.sum() + 0.5 * (penalties_F * weights_F**2).sum()), gradient_F

    start_F = np.zeros(features_NF.shape[1]) if start_F is None else start_F
    fitted: FloatArray = minimize(loss, start_F, jac=True, method="L-BFGS-B").x
    return fitted

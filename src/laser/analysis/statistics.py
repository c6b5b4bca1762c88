"""Means over seeds with intervals, paired tests, and the correction for several of them. The one place for these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: Of the values; NaN without any.
        sd: Sample standard deviation (n - 1); NaN with fewer than two values.
        half: Half-width of the mean's 95% t-interval; NaN with fewer than two values.
        num: Number of values.
    """

    mean: float
    sd: float
    half: float
    num: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, deviation and 95% interval by Student's t with n - 1 degrees of freedom."""
    num = len(values)
    mean = float(np.mean(values)) if num else float("nan")
    if num < 2:
        return Estimate(mean, float("nan"), float("nan"), num)
    sd = float(np.std(values, ddof=1))
    return Estimate(mean, sd, float(stats.t.ppf(0.975, num - 1)) * sd / num**0.5, num)


@dataclass(frozen=True, slots=True)
class Paired:
    """One method against another on the seeds they share.

    Attributes:
        difference: Ours minus theirs.
        p: Two-sided p-value of the paired t-test; None with fewer than two shared seeds, or where every seed differs by
            the same amount, so that no variance is left to judge by.
    """

    difference: Estimate
    p: float | None


def paired(ours: Mapping[K, float], theirs: Mapping[K, float]) -> Paired:
    """Compare two methods seed by seed.

    Args:
        ours: Value by seed.
        theirs: Value by seed; seeds that only one of them has are left out.
    """
    shared = [key for key in ours if key in theirs]
    differences = np.array([ours[key] - theirs[key] for key in shared])
    scale = max((abs(value) for key in shared for value in (ours[key], theirs[key])), default=0.0)
    constant = len(shared) < 2 or float(np.ptp(differences)) <= 1e-12 * scale
    p = None if constant else float(stats.ttest_1samp(differences, 0.0).pvalue)
    return Paired(estimate(differences.tolist()), p)


def holm(p_values: Mapping[K, float | None]) -> dict[K, float | None]:
    """Adjust p-values for their number, by Holm's step-down rule (Scand. J. Statist. 6, 1979).

    The i-th smallest of m is multiplied by m - i + 1, kept at least as large as the one before, and at most 1. Each
    adjusted value at or below a level keeps the probability of any false rejection at that level.

    Args:
        p_values: None where there was no test; these do not count.
    """
    order = sorted((p, position, key) for position, (key, p) in enumerate(p_values.items()) if p is not None)
    adjusted: dict[K, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, (p, _, key) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[key] = largest
    return adjusted

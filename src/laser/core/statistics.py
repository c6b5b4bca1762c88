"""Intervals and tests, the one place for them: over seeds, over prompts, and of a change on the same prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from laser.core.errors import DataError
from laser.core.seeding import stream
from laser.core.types import FloatArray, IntArray

K = TypeVar("K")

NUM_DRAWS = 1000
"""Draws of a bootstrap over prompts."""

_Z95 = 1.959963984540054  # 97.5% quantile of the standard normal distribution


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


@dataclass(frozen=True, slots=True)
class Share:
    """A mean over prompts.

    Attributes:
        value: The mean.
        low: Lower end of its 95% interval.
        high: Upper end.
        num_prompts: Number of prompts.
    """

    value: float
    low: float
    high: float
    num_prompts: int


def mean_share(values_N: FloatArray, *, seed: int, is_proportion: bool = False) -> Share:
    """The mean of one value per prompt, with a 95% interval.

    Args:
        values_N: At least one value.
        seed: Seeds the bootstrap.
        is_proportion: The values are 0 and 1. Then the interval is Wilson's, which needs no draws and is sensible at
            the ends; otherwise percentiles of a bootstrap over prompts.

    Raises:
        DataError: There is no value.
    """
    num = len(values_N)
    if num == 0:
        raise DataError("there are no prompts to take a mean over; add some")
    if is_proportion:
        low, high = wilson_interval(float(values_N.sum()), num)
    else:
        low, high = percentiles(np.array([float(values_N[rows].mean()) for rows in bootstrap_rows(num, seed)]))
    return Share(float(values_N.mean()), low, high, num)


def wilson_interval(num_right: float, num_total: float) -> tuple[float, float]:
    """95% score interval of a proportion, within [0, 1] and sensible at 0 and 1.

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927). Counts need not be whole: an effective number of trials is one.
    """
    share, z2 = num_right / num_total, _Z95**2
    center = (share + z2 / (2 * num_total)) / (1 + z2 / num_total)
    variance = max(0.0, share * (1 - share) / num_total + z2 / (4 * num_total**2))
    half = _Z95 / (1 + z2 / num_total) * math.sqrt(variance)
    return min(share, max(0.0, center - half)), max(share, min(1.0, center + half))  # rounding must not pass the share


def bootstrap_rows(num_prompts: int, seed: int) -> Iterator[IntArray]:
    """Prompts drawn with replacement, `NUM_DRAWS` times; the same for the same seed and number of prompts."""
    rng = stream(seed, "evaluation", 2, num_prompts)
    for _ in range(NUM_DRAWS):
        yield rng.integers(num_prompts, size=num_prompts)


def percentiles(draws: FloatArray) -> tuple[float, float]:
    """The 2.5% and 97.5% quantiles."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class PairedChange:
    """How a metric changed from one policy to another on the same prompts.

    Attributes:
        value: Mean over the shared prompts of after minus before.
        low: Lower end of its 95% interval.
        high: Upper end.
        num_prompts: Number of shared prompts.
        num_gained: Prompts with a higher value after than before.
        num_lost: Prompts with a lower one.
        p: Two-sided p-value of the exact McNemar test; None where the values are not 0 and 1.
    """

    value: float
    low: float
    high: float
    num_prompts: int
    num_gained: int
    num_lost: int
    p: float | None

    def as_record(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def paired_change(before: Mapping[K, float], after: Mapping[K, float], *, seed: int = 0) -> PairedChange | None:
    """Compare two measurements of the same prompts.

    Source: for right and wrong, the score interval of Tango, Statist. Med. 17 (1998), 891-908. Like McNemar's test it
    reads the prompts whose outcome changed; unlike a bootstrap it is sensible where few or none did. Other metrics get
    percentiles of a bootstrap over prompts.

    Args:
        before: Value by prompt id.
        after: Value by prompt id; prompts that only one of them has are left out.
        seed: Seeds the bootstrap.

    Returns:
        None where they share no prompt.
    """
    shared = [key for key in before if key in after]
    if not shared:
        return None
    values_N2 = np.array([(before[key], after[key]) for key in shared], dtype=np.float64)
    differences_N = values_N2[:, 1] - values_N2[:, 0]
    num, gained, lost = len(shared), int((differences_N > 0).sum()), int((differences_N < 0).sum())
    if np.isin(values_N2, (0.0, 1.0)).all():
        low, high = _tango_interval(gained, lost, num)
        p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
        return PairedChange((gained - lost) / num, low, high, num, gained, lost, p)
    share = mean_share(differences_N, seed=seed)
    return PairedChange(share.value, share.low, share.high, num, gained, lost, None)


def _tango_interval(num_gained: int, num_lost: int, num: int) -> tuple[float, float]:
    """The differences d whose score statistic is within the normal quantiles (Tango 1998, Eq. 3.8)."""

    def score(d: float) -> float:
        a, b = 2 * num, (2 * num - num_gained + num_lost) * d - num_gained - num_lost
        c = -num_lost * d * (1 - d)
        q = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)  # restricted estimate of the share that lost
        variance = num * (2 * q + d * (1 - d))
        return (num_gained - num_lost - num * d) / math.sqrt(variance) if variance > 0 else 0.0

    value, end = (num_gained - num_lost) / num, 1 - 1e-12
    low = brentq(lambda d: score(d) - _Z95, -end, value) if score(-end) > _Z95 else -1.0
    high = brentq(lambda d: score(d) + _Z95, value, end) if score(end) < -_Z95 else 1.0
    return float(low), float(high)

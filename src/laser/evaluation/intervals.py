"""Means over prompts with 95% intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from laser.core.errors import DataError
from laser.core.seeding import stream
from laser.core.types import FloatArray, IntArray
from laser.evaluation.accuracy import wilson_interval

NUM_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Share:
    """A mean over prompts.

    Attributes:
        value: The mean.
        low: Lower end of its 95% interval.
        high: Upper end.
        num_prompts: How many prompts.
    """

    value: float
    low: float
    high: float
    num_prompts: int


def mean_share(values_N: FloatArray, *, seed: int, is_proportion: bool = False) -> Share:
    """The mean of one value per prompt.

    Args:
        values_N: At least one value.
        seed: Seeds the bootstrap.
        is_proportion: The values are 0 and 1: then the interval is Wilson's, which needs no draws and is sensible at
            the ends; otherwise percentiles of a bootstrap over prompts.

    Raises:
        DataError: There is no value.
    """
    num = len(values_N)
    if num == 0:
        raise DataError("there are no prompts to take a mean over")
    if is_proportion:
        low, high = wilson_interval(float(values_N.sum()), num)
    else:
        means = [float(values_N[rows].mean()) for rows in bootstrap_rows(num, seed)]
        low, high = percentiles(np.array(means))
    return Share(float(values_N.mean()), low, high, num)


def bootstrap_rows(num_prompts: int, seed: int) -> Iterator[IntArray]:
    """Prompts drawn with replacement, `NUM_DRAWS` times; the same for the same seed and number of prompts."""
    rng = stream(seed, "evaluation", 2, num_prompts)
    for _ in range(NUM_DRAWS):
        yield rng.integers(num_prompts, size=num_prompts)


def percentiles(draws: FloatArray) -> tuple[float, float]:
    """The 2.5% and 97.5% quantiles."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)

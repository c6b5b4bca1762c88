"""What a selector would have earned on the logged choices of a run: off-policy estimates of its mean bandit reward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from laser.bandits.arm_selector import ArmSelector
from laser.bandits.linucb import LinUCB
from laser.core.seeding import stream, stream_seed
from laser.core.types import FloatArray, IntArray

Interval = tuple[float, float]
Maker = Callable[[int, int, int], ArmSelector]
"""(arms, features, seed) -> a fresh selector."""

REPLAY_SEED = stream_seed(0, "bandit", 14)
"""Seed of replayed selectors: no run uses it, so their draws are independent of the draws that made the log."""

_RESAMPLES = 1000
_DRAWN_AT_ONCE = 1_000_000  # numbers, to bound memory
_ENOUGH_SUPPORT = 0.9  # of the rows; selectors force a few first pulls, which support nothing else


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """Choices of a finished run, in order.

    Attributes:
        contexts_ND: Contexts.
        arms_N: The arm that was chosen for each.
        probabilities_NK: The probability with which the log's selector chose each arm.
        rewards_N: Bandit rewards.
        batches_N: The selection each row belongs to, non-decreasing: rows of one were chosen with the same knowledge.
    """

    contexts_ND: FloatArray
    arms_N: IntArray
    probabilities_NK: FloatArray
    rewards_N: FloatArray
    batches_N: IntArray

    @property
    def propensities_N(self) -> FloatArray:
        """The probability of the arm that was chosen."""
        return self.probabilities_NK[np.arange(len(self.arms_N)), self.arms_N]

    def batches(self) -> Iterator[IntArray]:
        """Row numbers of each batch."""
        yield from np.split(np.arange(len(self.arms_N)), np.flatnonzero(np.diff(self.batches_N)) + 1)


@dataclass(frozen=True, slots=True)
class Value:
    """An estimate of a mean bandit reward with a 95% bootstrap interval over rows; None with fewer than two rows."""

    value: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Matched:
    """The estimate of a replay by matching.

    Attributes:
        value: Mean bandit reward of the matching rows, weighted by inverse propensity; None without any.
        num_rows: Rows for which the selector drew the logged arm.
    """

    value: Value | None
    num_rows: int


@dataclass(frozen=True, slots=True)
class OffPolicy:
    """Estimates by propensity, without drawing.

    Attributes:
        support: Share of rows in which the log's selector could have chosen every arm that this selector could. The
            estimates are over these rows, and None if they are fewer than nine in ten.
        ips: Inverse propensity scoring, unbiased.
        snips: Self-normalized, with a bias of order 1/N and less variance.
        doubly_robust: Unbiased, with the variance of a regression's residuals.
    """

    support: float
    ips: Value | None = None
    snips: Value | None = None
    doubly_robust: Value | None = None


def replay(selector: ArmSelector, logged: LoggedRows) -> Matched:
    """Replay a log by matching: the selector draws arms and learns from the rows in which it draws the logged one.

    Source: Li et al. 2011 (arXiv 1003.5956), Algorithm 2, with inverse propensities. Deviation: rows the log's selector
    chose with certainty match with weight 1, so on a deterministic log this is the mean of the matching rows, not an
    estimate of the selector's value.

    Args:
        selector: A fresh selector, seeded independently of the log (`REPLAY_SEED`).
        logged: The log.
    """
    matches_N = np.zeros(len(logged.arms_N), dtype=bool)
    for rows in logged.batches():
        selection = selector.select(logged.contexts_ND[rows])
        matches_N[rows] = selection.arms_M == logged.arms_N[rows]
        selector.update(selection.id, np.where(matches_N[rows], logged.rewards_N[rows], np.nan))
    value = _weighted(logged.rewards_N[matches_N], 1.0 / logged.propensities_N[matches_N])
    return Matched(value, int(matches_N.sum()))


def off_policy(selector: ArmSelector, logged: LoggedRows) -> OffPolicy:
    """Estimate the mean bandit reward of a selector that learns from every row of a log, without drawing.

    In each row the selector has probabilities pi(a), given all earlier rows; the log's selector had p(a) and chose b
    with reward r. With w = pi(b) / p(b) and a ridge regression q of the earlier rows' rewards on their contexts,

        IPS = mean w r,   SNIPS = sum w r / sum w,   DR = mean [sum_a pi(a) q(a) + w (r - q(b))].

    Source: Dudik, Langford and Li 2011 (arXiv 1103.4601) for IPS and DR; Swaminathan and Joachims 2015 for SNIPS.
    Deviation: q is refitted after every batch on earlier rows only, so that DR stays unbiased.

    Args:
        selector: A fresh selector.
        logged: The log.

    Returns:
        The estimates, with the share of rows that support them.
    """
    pi_NK = np.empty_like(logged.probabilities_NK)
    q_NK = np.empty_like(pi_NK)
    regression = LinUCB(pi_NK.shape[1], logged.contexts_ND.shape[1], alpha=0.0)
    for rows in logged.batches():
        contexts_MD, arms_M, rewards_M = logged.contexts_ND[rows], logged.arms_N[rows], logged.rewards_N[rows]
        selection = selector.select(contexts_MD)
        selector.expire(selection.id)
        pi_NK[rows] = selection.probabilities_MK
        q_NK[rows] = regression.estimates(contexts_MD)[0]
        selector.observe(contexts_MD, arms_M, rewards_M, logged.propensities_N[rows])
        regression.observe(contexts_MD, arms_M, rewards_M, np.ones(len(rows)))
    supported = ~((pi_NK > 0) & (logged.probabilities_NK == 0)).any(axis=1)
    support = float(supported.mean())
    if support < _ENOUGH_SUPPORT:
        return OffPolicy(support)
    chosen = np.arange(len(logged.arms_N)), logged.arms_N
    weights_N = pi_NK[chosen] / logged.propensities_N
    robust_N = (pi_NK * q_NK).sum(axis=1) + weights_N * (logged.rewards_N - q_NK[chosen])
    ones_N = np.ones(int(supported.sum()))
    return OffPolicy(
        support,
        ips=_weighted((weights_N * logged.rewards_N)[supported], ones_N),
        snips=_weighted(logged.rewards_N[supported], weights_N[supported]),
        doubly_robust=_weighted(robust_N[supported], ones_N),
    )


def _weighted(values_N: FloatArray, weights_N: FloatArray) -> Value | None:
    """A weighted mean and its interval; None where all weights are 0."""
    values_N, weights_N = values_N[weights_N > 0], weights_N[weights_N > 0]
    if len(values_N) == 0:
        return None
    return Value(float(np.average(values_N, weights=weights_N)), bootstrap(values_N, weights_N))


def bootstrap(values_N: FloatArray, weights_N: FloatArray) -> Interval | None:
    """Return the 95% percentile interval of a weighted mean over 1,000 resamples of its rows, the same every time.

    Args:
        values_N: Values.
        weights_N: Their weights, positive.

    Returns:
        Lower and upper end; None with fewer than two rows.
    """
    num = len(values_N)
    if num < 2:
        return None
    generator, weighted_N = stream(0, "bandit", 13), values_N * weights_N
    at_once = max(1, _DRAWN_AT_ONCE // num)
    means: list[float] = []
    while len(means) < _RESAMPLES:
        drawn_RN = generator.integers(num, size=(min(at_once, _RESAMPLES - len(means)), num))
        means += (weighted_N[drawn_RN].sum(axis=1) / weights_N[drawn_RN].sum(axis=1)).tolist()
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)

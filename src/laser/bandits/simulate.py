"""Bandits alone, without a language model: environments with known rewards, and the regret of selectors in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from laser.bandits.base import Selector
from laser.core.seeding import stream
from laser.core.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Environment:
    """A stream of contexts and what every arm would have given.

    Attributes:
        name: What tables call it.
        contexts_TD: Contexts of T rounds.
        means_TK: Expected bandit reward of every arm in every round; regret is measured against these.
        rewards_TK: What is observed, noise included.
    """

    name: str
    contexts_TD: FloatArray
    means_TK: FloatArray
    rewards_TK: FloatArray


def linear(seed: int, *, rounds: int = 1500, arms: int = 5, dim: int = 20, noise: float = 0.1) -> Environment:
    """Disjoint linear arms on the unit sphere, unit contexts, Gaussian noise."""
    generator = stream(seed, "bandit", 10)
    contexts_TD = _unit(generator.standard_normal((rounds, dim)))
    theta_KD = _unit(generator.standard_normal((arms, dim)))
    means_TK = contexts_TD @ theta_KD.T
    return Environment("linear", contexts_TD, means_TK, means_TK + noise * generator.standard_normal(means_TK.shape))


def drifting(
    seed: int,
    *,
    kind: str = "drift",
    rounds: int = 2000,
    arms: int = 4,
    dim: int = 16,
    noise: float = 0.1,
) -> Environment:
    """Shaped like a LASeR run: unit contexts with a common direction, bandit rewards in [0, 1], arms that change.

    Args:
        seed: Seeds everything.
        kind: "stationary"; "abrupt", all arms drawn afresh three times; "drift", arms that turn slowly all the time.
        rounds: T.
        arms: K.
        dim: D.
        noise: Standard deviation of the noise on the logit scale's output.
    """
    generator = stream(seed, "bandit", 11)
    contexts_TD = _unit(generator.standard_normal((rounds, dim)) / np.sqrt(dim) + _unit(generator.standard_normal(dim)))
    theta_KD = 3.0 * _unit(generator.standard_normal((arms, dim)))
    target_KD = 3.0 * _unit(generator.standard_normal((arms, dim)))
    means_TK = np.empty((rounds, arms))
    for round_ in range(rounds):
        if kind == "abrupt" and round_ and round_ % (rounds // 4) == 0:
            theta_KD = 3.0 * _unit(generator.standard_normal((arms, dim)))
        if kind == "drift":
            theta_KD = 3.0 * _unit(theta_KD + 0.01 * target_KD)
            if round_ % 250 == 249:
                target_KD = 3.0 * _unit(generator.standard_normal((arms, dim)))
        means_TK[round_] = 1.0 / (1.0 + np.exp(-(contexts_TD[round_] @ theta_KD.T)))
    rewards_TK = np.clip(means_TK + noise * generator.standard_normal(means_TK.shape), 0.0, 1.0)
    return Environment(kind, contexts_TD, means_TK, rewards_TK)


def classification(name: str, features_ND: FloatArray, labels_N: IntArray, seed: int, *, rounds: int) -> Environment:
    """A classification data set as a bandit: an arm per class, reward 1 for the right one; rows in random order."""
    generator = stream(seed, "bandit", 12)
    order = np.concatenate([generator.permutation(len(labels_N)) for _ in range(1 + rounds // len(labels_N))])[:rounds]
    deviation_D = features_ND.std(axis=0)
    scaled_ND = (features_ND - features_ND.mean(axis=0)) / np.where(deviation_D > 0, deviation_D, 1.0)
    contexts_TD = _unit(np.hstack([scaled_ND, np.ones((len(scaled_ND), 1))]))[order]
    means_TK = np.eye(int(labels_N.max()) + 1)[labels_N[order]]
    return Environment(name, contexts_TD, means_TK, means_TK)


def regret(selector: Selector, environment: Environment) -> FloatArray:
    """Cumulative regret of a selector, one row at a time: sum of max_k mean_k - mean of the chosen arm, shape (T,)."""
    lost = np.empty(len(environment.contexts_TD))
    for round_, context in enumerate(environment.contexts_TD):
        selection = selector.select(context[None])
        arm = int(selection.arms_M[0])
        selector.update(selection.id, environment.rewards_TK[round_, arm][None])
        lost[round_] = environment.means_TK[round_].max() - environment.means_TK[round_, arm]
    return np.cumsum(lost)


Interval = tuple[float, float]
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Replay:
    """Off-policy value of a selector on logged choices.

    Attributes:
        value: Self-normalised inverse-propensity estimate of its mean bandit reward.
        logged: Mean bandit reward of the choices that were made.
        matched: Rows on which it would have chosen the logged arm.
        num_rows: Rows with a bandit reward.
        interval: 95% bootstrap interval of the value over the matching rows; None with fewer than two. It says how much
            the estimate owes to these rows, not what the selector would have done on another path.
    """

    value: float
    logged: float
    matched: int
    num_rows: int
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """Choices of a finished run: contexts, arms, propensities, bandit rewards."""

    contexts_ND: FloatArray
    arms_N: IntArray
    probabilities_N: FloatArray
    rewards_N: FloatArray


def replay(selector: Selector, logged: LoggedRows) -> Replay:
    """Estimate what a selector would have earned, from another's choices.

    Source: rejection replay (Li et al. 2011) with inverse propensities: the selector learns only from rows where it
    chooses as was logged. Rows the logging selector chose with certainty carry no information about other arms; where
    all are, the estimate is that of the matching rows.
    """
    rewards: list[float] = []
    weights: list[float] = []
    for context, arm, probability, reward in zip(
        logged.contexts_ND, logged.arms_N, logged.probabilities_N, logged.rewards_N, strict=True
    ):
        selection = selector.select(context[None])
        if int(selection.arms_M[0]) != arm:
            selector.expire(selection.id)
            continue
        rewards.append(float(reward))
        weights.append(1.0 / float(probability))
        selector.update(selection.id, np.array([reward]))
    value = float(np.average(rewards, weights=weights)) if weights else float("nan")
    interval = bootstrap(np.array(rewards), np.array(weights))
    return Replay(value, float(logged.rewards_N.mean()), len(rewards), len(logged.rewards_N), interval)


def bootstrap(values_N: FloatArray, weights_N: FloatArray) -> Interval | None:
    """95% percentile interval of a weighted mean over 1,000 resamples of its rows, the same every time.

    Args:
        values_N: Values.
        weights_N: Their weights, positive.

    Returns:
        Lower and upper end; None with fewer than two rows.
    """
    num = len(values_N)
    if num < 2:
        return None
    generator = stream(0, "bandit", 13)
    means = []
    for _ in range(_RESAMPLES):
        drawn = generator.integers(num, size=num)
        means.append(float(np.average(values_N[drawn], weights=weights_N[drawn])))
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


Maker = Callable[[int, int, int], Selector]
"""(arms, features, seed) -> a fresh selector."""


def compare(
    makers: Mapping[str, Maker], environments: Sequence[Callable[[int], Environment]], seeds: int
) -> dict[str, dict[str, FloatArray]]:
    """Cumulative regret of every selector in every environment.

    Returns:
        For each environment and selector an array of shape (seeds, T).
    """
    curves: dict[str, dict[str, FloatArray]] = {}
    for make_environment in environments:
        rows: dict[str, list[FloatArray]] = {name: [] for name in makers}
        for seed in range(seeds):
            environment = make_environment(seed)
            arms, dim = environment.means_TK.shape[1], environment.contexts_TD.shape[1]
            for name, make in makers.items():
                rows[name].append(regret(make(arms, dim, seed), environment))
        curves[environment.name] = {name: np.stack(row) for name, row in rows.items()}
    return curves


def _unit(rows: FloatArray) -> FloatArray:
    normalised: FloatArray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return normalised

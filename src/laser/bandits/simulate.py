"""Bandits alone, without a language model: environments with known rewards, and the regret of selectors in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from laser.bandits.base import Selector
from laser.bandits.replay import Maker
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
    normalized: FloatArray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return normalized

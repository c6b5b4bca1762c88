"""NeuralUCB: an MLP per arm, with a confidence bound from its gradients (Zhou, Li and Gu 2020, arXiv 1911.04462).

The bound is sqrt(g' Z^-1 g) with g the gradient of the prediction by all P parameters and Z = lambda I + sum g_s g_s' /
width. Z has P x P entries, so implementations usually keep its diagonal only. But like LinUCB's A (see `linear`) it has
a dual form in the inner products of gradients, and those factor by layer,

    g_s . g_t = sum_l (delta_s,l . delta_t,l) (h_s,l . h_t,l + 1),

so the exact bound costs a few milliseconds where P is a million. Both forms keep observations, and the full one an
N x N factor too: an arm remembers the latest few thousand, which bounds memory and time in runs of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.linalg import solve_triangular

from laser.bandits.arm_selector import ArmSelector, Judgement, Observations, best_arms, section
from laser.core.seeding import stream
from laser.core.types import BoolArray, FloatArray, StateDict

if TYPE_CHECKING:
    from laser.bandits.mlp import Factors

Confidence = Literal["full", "diagonal"]


@dataclass(frozen=True, slots=True)
class _Gradients:
    """Gradients of N predictions, factored by layer (see `laser.bandits.mlp.Factors`): (N, in) and (N, out)."""

    hidden: tuple[FloatArray, ...]
    deltas: tuple[FloatArray, ...]


class _NeuralArm:
    """One arm: its network, its data, and Z in one of two forms."""

    def __init__(
        self, sizes: Sequence[int], ridge: float, confidence: Confidence, memory: int, init: np.random.Generator
    ) -> None:
        from laser.bandits.mlp import MLP  # imports torch

        self.network = MLP(sizes, init, zero_output=True)  # predictions start at 0, as LinUCB's do
        self.ridge, self.confidence, self.memory = ridge, confidence, memory
        self.width = float(sizes[1])
        self.contexts_ND, self.rewards_N = np.empty((0, sizes[0])), np.empty(0)
        self.seen = _Gradients(
            tuple(np.empty((0, size)) for size in sizes[:-1]), tuple(np.empty((0, size)) for size in sizes[1:])
        )
        self.factor_NN: FloatArray = np.empty((0, 0))
        self.diagonal = [np.full((wide + 1, narrow), ridge) for wide, narrow in pairwise(sizes)]
        if confidence == "full":
            self.diagonal = []

    def estimate(self, contexts_MD: FloatArray) -> tuple[FloatArray, FloatArray, _Gradients]:
        """Predictions and g' Z^-1 g / width for M contexts, both (M,), and the gradients."""
        factors: Factors = self.network.factors(contexts_MD)
        gradients = _Gradients(factors.inputs, factors.deltas)
        variance_M = self._full(gradients) if self.confidence == "full" else self._diagonal(gradients)
        return factors.outputs_NK[:, 0], variance_M, gradients

    def observe(self, context_D: FloatArray, reward: float) -> None:
        """Remember an observation, and its gradient at the network as it is, in Z."""
        _, _, gradients = self.estimate(context_D[None])
        if self.confidence == "full":
            self._append(gradients)
        else:
            for diagonal, hidden, delta in zip(self.diagonal, gradients.hidden, gradients.deltas, strict=True):
                diagonal += np.outer(np.append(hidden[0] ** 2, 1.0), delta[0] ** 2) / self.width
        self.contexts_ND = np.vstack([self.contexts_ND, context_D])
        self.rewards_N = np.append(self.rewards_N, reward)
        if len(self.rewards_N) > self.memory:
            self._drop(len(self.rewards_N) - self.memory + self.memory // 8)

    def _drop(self, num: int) -> None:
        """Forget the `num` oldest observations; several at a time, because a new factor costs O(N^3)."""
        self.contexts_ND, self.rewards_N = self.contexts_ND[num:], self.rewards_N[num:]
        if self.confidence == "full":
            rows_NN = self.factor_NN[num:]
            self.factor_NN = np.asarray(np.linalg.cholesky(rows_NN @ rows_NN.T), dtype=np.float64)
            self.seen = _Gradients(
                tuple(hidden[num:] for hidden in self.seen.hidden), tuple(deltas[num:] for deltas in self.seen.deltas)
            )

    def _full(self, gradients: _Gradients) -> FloatArray:
        total_M: FloatArray = np.diag(_inner(gradients, gradients)) / self.width
        cross_NM = _inner(self.seen, gradients) / self.width
        if not len(cross_NM):
            untouched: FloatArray = total_M / self.ridge
            return untouched
        solved_NM = solve_triangular(self.factor_NN, cross_NM, lower=True)
        variance_M: FloatArray = np.maximum((total_M - (solved_NM**2).sum(axis=0)) / self.ridge, 0.0)
        return variance_M

    def _append(self, gradients: _Gradients) -> None:
        """One more row of the Cholesky factor of lambda I + Gram / width."""
        cross_N = _inner(self.seen, gradients)[:, 0] / self.width
        total = float(_inner(gradients, gradients)[0, 0]) / self.width + self.ridge
        row_N = solve_triangular(self.factor_NN, cross_N, lower=True) if len(cross_N) else cross_N
        corner = np.sqrt(max(total - float(row_N @ row_N), self.ridge))  # never below lambda in exact arithmetic
        top = np.hstack([self.factor_NN, np.zeros((len(row_N), 1))])
        self.factor_NN = np.vstack([top, np.append(row_N, corner)])
        self.seen = _Gradients(
            tuple(np.vstack(both) for both in zip(self.seen.hidden, gradients.hidden, strict=True)),
            tuple(np.vstack(both) for both in zip(self.seen.deltas, gradients.deltas, strict=True)),
        )

    def _diagonal(self, gradients: _Gradients) -> FloatArray:
        total_M = np.zeros(len(gradients.deltas[0]))
        for diagonal, hidden, delta in zip(self.diagonal, gradients.hidden, gradients.deltas, strict=True):
            squares = np.hstack([hidden**2, np.ones((len(hidden), 1))])
            total_M += np.einsum("mi,io,mo->m", squares, 1.0 / diagonal, delta**2, optimize=True)
        return total_M / self.width

    def state_dict(self) -> StateDict:
        state = {"contexts": self.contexts_ND, "rewards": self.rewards_N, "factor": self.factor_NN}
        state |= {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for name, arrays in (("hidden", self.seen.hidden), ("deltas", self.seen.deltas), ("diagonal", self.diagonal)):
            state |= {f"{name}.{index}": array for index, array in enumerate(arrays)}
        return state

    def load_state_dict(self, state: StateDict) -> None:
        self.contexts_ND, self.rewards_N, self.factor_NN = state["contexts"], state["rewards"], state["factor"]
        self.network.load_state_dict(section(state, "network."))
        layers = range(len(self.seen.hidden))
        self.seen = _Gradients(
            tuple(state[f"hidden.{layer}"] for layer in layers), tuple(state[f"deltas.{layer}"] for layer in layers)
        )
        self.diagonal = [np.array(state[f"diagonal.{layer}"]) for layer in range(len(self.diagonal))]


class NeuralUCB(ArmSelector):
    """Selects argmax_k [f(c; theta_k) + alpha sqrt(g' Z_k^-1 g / width)], with f an MLP trained on the arm's data.

    Source: arXiv 2410.01735, Sec. A.2 (hidden layers 256 and 128, one output); arXiv 1911.04462, Algorithm 1.
    Deviations: one network per arm, as LinUCB has one linear model per arm; the last layer starts at zero; training
    continues from the current weights, by Adam; an arm remembers its latest observations only (`memory`).

    Args:
        num_arms: K.
        dim: D.
        hidden: Widths of the hidden layers.
        alpha: Width of the confidence bound.
        ridge: lambda of Z = lambda I at the start, and the weight decay.
        confidence: "full", exact, through inner products of gradients; "diagonal", the usual approximation.
        train_steps: Adam steps after each selection that was learned from.
        learning_rate: Adam's.
        memory: Maximum number of observations that an arm remembers, for training and, with "full", for the bound;
            when it is full, the oldest eighth is forgotten. The bound of "diagonal" sums over all observations.
        forced_pulls: Pulls every arm gets first.
        seed: Seeds weights, mini-batches and ties.

    Raises:
        ValueError: An argument is out of its range.
    """

    kind = "neural_ucb"
    threaded_dim = 1  # its matrices grow with the observations

    def __init__(
        self,
        num_arms: int,
        dim: int,
        *,
        hidden: Sequence[int] = (256, 128),
        alpha: float = 0.1,
        ridge: float = 1.0,
        confidence: Confidence = "full",
        train_steps: int = 20,
        learning_rate: float = 1e-3,
        memory: int = 2000,
        forced_pulls: int = 0,
        seed: int = 0,
    ) -> None:
        if not (ridge > 0 and alpha >= 0 and learning_rate > 0 and train_steps >= 1 and hidden and min(hidden) >= 1):
            raise ValueError(
                "need ridge > 0, alpha >= 0, learning_rate > 0, train_steps >= 1 and hidden layers of at least one "
                f"unit: {ridge}, {alpha}, {learning_rate}, {train_steps}, {tuple(hidden)}"
            )
        if memory < 1:
            raise ValueError(f"need memory >= 1: {memory}")
        settings = {"ridge": ridge, "confidence": confidence, "hidden": "x".join(map(str, hidden))}
        super().__init__(num_arms, dim, forced_pulls=forced_pulls, seed=seed, settings=settings)
        self.alpha = alpha
        self._ridge, self._train_steps, self._learning_rate = ridge, train_steps, learning_rate
        self._seed, self._num_fits = seed, 0
        init = stream(seed, "bandit", 0)
        self._arms = [_NeuralArm((dim, *hidden, 1), ridge, confidence, memory, init) for _ in range(num_arms)]

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """Algorithm 1, lines 6 to 9."""
        estimates = [arm.estimate(contexts_MD) for arm in self._arms]
        values_MK = np.stack([means + self.alpha * np.sqrt(variances) for means, variances, _ in estimates], axis=1)
        return Judgement(values_MK, best_arms(values_MK - self.penalties_K, available_K))

    def learn(self, seen: Observations) -> None:
        """Algorithm 1, lines 10 to 13: extend Z with the gradients, then train the arms that were chosen."""
        for context_D, arm, reward in zip(seen.contexts_MD, seen.arms_M, seen.rewards_M, strict=True):
            self._arms[arm].observe(context_D, float(reward))
        for arm in np.unique(seen.arms_M):
            self._fit(self._arms[arm])

    def _fit(self, arm: _NeuralArm) -> None:
        from laser.bandits.mlp import half_squared_error  # imports torch

        self._num_fits += 1
        arm.network.fit(
            arm.contexts_ND,
            arm.rewards_N,
            half_squared_error,
            steps=self._train_steps,
            learning_rate=self._learning_rate,
            weight_decay=self._ridge / len(arm.rewards_N),
            generator=stream(self._seed, "bandit", 3, self._num_fits),
        )

    def learned_state(self) -> StateDict:
        """Networks, data and Z of every arm."""
        items = ((k, name, value) for k, arm in enumerate(self._arms) for name, value in arm.state_dict().items())
        return {"num_fits": self._num_fits} | {f"{k}.{name}": value for k, name, value in items}

    def load_learned_state(self, state: StateDict) -> None:
        """Restore networks, data and Z."""
        self._num_fits = int(state["num_fits"])
        for k, arm in enumerate(self._arms):
            arm.load_state_dict(section(state, f"{k}."))


def _inner(left: _Gradients, right: _Gradients) -> FloatArray:
    """Inner products of gradients, shape (N, M), layer by layer."""
    total: FloatArray = np.zeros((len(left.deltas[0]), len(right.deltas[0])))
    for index in range(len(left.hidden)):
        deltas = left.deltas[index] @ right.deltas[index].T
        total += deltas * (left.hidden[index] @ right.hidden[index].T + 1.0)
    return total

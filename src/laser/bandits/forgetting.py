"""Linear bandits for rewards that drift: discounting, a sliding window, and forgetting the prior as well.

While a policy is trained, the bandit reward of a reward model changes: what was learned early is about another policy.
All three rules weigh an observation of age a (in rows learned, over all arms) and fit a weighted ridge regression,

    A_k = rho I + sum_i w_i c_i c_i',    b_k = sum_i w_i r_i c_i,

"discount" with w = gamma^a and rho = lambda (Russac, Vernade and Cappe 2019, arXiv 1909.09146), "window" with w = 1 up
to an age and 0 beyond (Cheung, Simchi-Levi and Zhu 2019, arXiv 1810.03024), and "decay" with w = gamma^a and rho =
max(lambda gamma^t, lambda floor): the prior fades like the data. That last one is the rule of the library
paretobandit, whose division of the width of an arm by gamma^(time since its last pull) is the same thing written
differently. Its strength on drifting streams comes from there: the width of an arm that is not pulled grows without
bound, so even a small alpha keeps exploring, where the fixed prior of "discount" caps it at alpha |c| / sqrt(lambda).

Every fixed gamma is wrong somewhere: it costs regret where nothing drifts and is too slow after a jump. "adaptive" runs
the "discount" rule at several gammas over the same observations, weighs each by how well it has lately predicted the
bandit rewards (fixed-share exponential weights, Herbster and Warmuth 1998), and selects by the weighted mean of their
means and widths. On the drifting streams of `benchmarks/bandit_regret.py` it has less regret than any single gamma.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from laser.bandits.arm_selector import ArmSelector, Judgement, Observations, best_arms, section
from laser.core.types import BoolArray, FloatArray, IntArray, StateDict

Rule = Literal["discount", "window", "decay", "adaptive"]

EXPERTS = (0.9995, 0.998, 0.995, 0.99)  # the gammas of "adaptive"
_SHARE = 0.02  # of the weight is dealt out evenly after each observation, so that no gamma is ever given up
_ERROR_SCALE = 0.02  # variance of a bandit reward around a good prediction

_NEGLIGIBLE = 1e-6  # observations of a smaller weight are dropped


class WeightedRidge:
    """One arm: its observations with their times, and the weighted regression over them.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        self.contexts_ND = np.empty((0, dim))
        self.rewards_N = np.empty(0)
        self.times_N = np.empty(0, dtype=np.int64)
        self._gram_NN: FloatArray | None = np.empty((0, 0))  # None where it is not needed, or must be made again

    def observe(self, context_D: FloatArray, reward: float, time: int) -> None:
        """Remember an observation; O(N D)."""
        if self._gram_NN is not None and len(self.times_N) + 1 < len(context_D):
            column_N = self.contexts_ND @ context_D
            corner = np.array([[context_D @ context_D]])
            self._gram_NN = np.block([[self._gram_NN, column_N[:, None]], [column_N[None, :], corner]])
        else:
            self._gram_NN = None
        self.contexts_ND = np.vstack([self.contexts_ND, context_D])
        self.rewards_N = np.append(self.rewards_N, reward)
        self.times_N = np.append(self.times_N, time)

    def keep(self, kept_N: np.ndarray) -> None:
        """Drop the observations where `kept_N` is False."""
        if not kept_N.all():
            self.contexts_ND, self.rewards_N = self.contexts_ND[kept_N], self.rewards_N[kept_N]
            self.times_N = self.times_N[kept_N]
            self._gram_NN = None if self._gram_NN is None else self._gram_NN[np.ix_(kept_N, kept_N)]

    def estimate(
        self, contexts_MD: FloatArray, weights_N: FloatArray, ridge: float, second_ridge: float | None
    ) -> tuple[FloatArray, FloatArray]:
        """Means and variances for M contexts, exact in the smaller of the dual (N x N) and primal (D x D) form.

        Args:
            contexts_MD: Contexts.
            weights_N: Weight of each observation.
            ridge: rho.
            second_ridge: The variance is c' A^-1 B A^-1 c with B = second_ridge I + sum w_i^2 c_i c_i' (Russac et al.,
                Eq. 6); None: c' A^-1 c.
        """
        squares_M = np.einsum("md,md->m", contexts_MD, contexts_MD)
        if not len(weights_N):
            variances_M = squares_M / ridge if second_ridge is None else second_ridge * squares_M / ridge**2
            return np.zeros(len(contexts_MD)), variances_M
        roots_N = np.sqrt(weights_N)
        if len(weights_N) < contexts_MD.shape[1]:
            if self._gram_NN is None:
                self._gram_NN = self.contexts_ND @ self.contexts_ND.T
            factor = cho_factor(ridge * np.eye(len(roots_N)) + roots_N[:, None] * self._gram_NN * roots_N)
            cross_NM = roots_N[:, None] * (self.contexts_ND @ contexts_MD.T)
            solved_NM = cho_solve(factor, cross_NM)
            means_M = solved_NM.T @ (roots_N * self.rewards_N)
            solution_DM = (contexts_MD.T - self.contexts_ND.T @ (roots_N[:, None] * solved_NM)) / ridge
        else:
            weighted_ND = weights_N[:, None] * self.contexts_ND
            factor = cho_factor(ridge * np.eye(contexts_MD.shape[1]) + self.contexts_ND.T @ weighted_ND)
            solution_DM = cho_solve(factor, contexts_MD.T)
            means_M = solution_DM.T @ (weighted_ND.T @ self.rewards_N)
        if second_ridge is None:
            variances_M = np.einsum("md,dm->m", contexts_MD, solution_DM)
        else:
            seen_NM = weights_N[:, None] * (self.contexts_ND @ solution_DM)
            variances_M = second_ridge * (solution_DM**2).sum(axis=0) + (seen_NM**2).sum(axis=0)
        return means_M, np.maximum(variances_M, 0.0)

    def state_dict(self) -> StateDict:
        """The observations, and their inner products where they are kept: made again, their last bits might differ."""
        state: StateDict = {"contexts": self.contexts_ND, "rewards": self.rewards_N, "times": self.times_N}
        return state if self._gram_NN is None else {**state, "gram": self._gram_NN}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        self.contexts_ND = np.array(state["contexts"], dtype=np.float64)
        self.rewards_N = np.array(state["rewards"], dtype=np.float64)
        self.times_N = np.array(state["times"], dtype=np.int64)
        self._gram_NN = np.array(state["gram"], dtype=np.float64) if "gram" in state else None


class ForgettingLinUCB(ArmSelector):
    """LinUCB over weighted observations; see the module for the rules.

    Source: arXiv 1909.09146 (discount), arXiv 1810.03024 (window), paretobandit (decay). Deviations: disjoint arms
    under one clock; observations whose weight fell below 1e-6 are dropped; "decay" has a floor.

    Args:
        num_arms: K.
        dim: D.
        rule: How old observations lose weight.
        alpha: Width of the confidence bound.
        gamma: Factor per row learned, below 1, for "discount" and "decay"; "adaptive" has its own. At most
            ln(1e-6) / ln(gamma) observations are remembered, 2,757 for 0.995.
        window: Rows learned that count, over all arms, for "window".
        ridge: lambda.
        floor: Smallest share of lambda that "decay" leaves; it bounds the widths.
        forced_pulls: Pulls every arm gets first.
        seed: Seeds ties.

    Raises:
        ValueError: An argument is out of its range.
    """

    kind = "forgetting"
    threaded_dim = 1  # its matrices grow with the observations

    def __init__(
        self,
        num_arms: int,
        dim: int,
        *,
        rule: Rule = "discount",
        alpha: float = 1.0,
        gamma: float = 0.995,
        window: int = 200,
        ridge: float = 1.0,
        floor: float = 1e-4,
        forced_pulls: int = 0,
        seed: int = 0,
    ) -> None:
        if not (0 < gamma < 1 and alpha >= 0 and ridge > 0 and window >= 1 and 0 < floor <= 1):
            raise ValueError(
                "need 0 < gamma < 1, alpha >= 0, ridge > 0, window >= 1, 0 < floor <= 1: "
                f"{gamma}, {alpha}, {ridge}, {window}, {floor}"
            )
        settings = {"rule": rule, "gamma": gamma, "window": window, "ridge": ridge, "floor": floor}
        super().__init__(num_arms, dim, forced_pulls=forced_pulls, seed=seed, settings=settings)
        self.alpha = alpha
        self._rule, self._gamma, self._window = rule, gamma, window
        self._ridge, self._floor = ridge, floor
        self._gammas = EXPERTS if rule == "adaptive" else (gamma,)
        self._log_weights_G = np.zeros(len(self._gammas))
        self._time = 0
        self._arms = [WeightedRidge(dim) for _ in range(num_arms)]

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """Eq. 1 over the weighted observations, averaged over the gammas."""
        weights_G = np.exp(self._log_weights_G - self._log_weights_G.max())
        weights_G = weights_G / weights_G.sum()
        means_GMK, widths_GMK = self._estimates(contexts_MD)
        values_GMK = means_GMK + self.alpha * widths_GMK
        values_MK = np.einsum("g,gmk->mk", weights_G, values_GMK)
        return Judgement(values_MK, best_arms(values_MK - self.penalties_K, available_K), means_GMK)

    def learn(self, seen: Observations) -> None:
        """Weigh the gammas by their predictions, remember the rows and drop what no longer counts."""
        means_GMK = seen.memo if seen.memo is not None else self._estimates(seen.contexts_MD)[0]
        memo_rows = seen.memo_rows if seen.memo is not None else np.arange(len(seen.arms_M))
        for row, (context_D, arm, reward) in enumerate(zip(seen.contexts_MD, seen.arms_M, seen.rewards_M, strict=True)):
            self._weigh(means_GMK[:, memo_rows[row], arm] - reward)
            self._time += 1
            self._arms[arm].observe(context_D, float(reward), self._time)
        for ridge in self._arms:
            ridge.keep(self._weights(ridge.times_N, max(self._gammas)) >= _NEGLIGIBLE)

    def _weigh(self, errors_G: FloatArray) -> None:
        """Fixed-share exponential weights of the gammas."""
        log_weights_G = self._log_weights_G - errors_G**2 / (2 * _ERROR_SCALE)
        weights_G = np.exp(log_weights_G - log_weights_G.max())
        self._log_weights_G = np.log((1 - _SHARE) * weights_G / weights_G.sum() + _SHARE / len(weights_G))

    def _estimates(self, contexts_MD: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Means and widths by gamma, row and arm."""
        second = self._ridge if self._rule in ("discount", "adaptive") else None
        pairs = [
            [
                arm.estimate(contexts_MD, self._weights(arm.times_N, gamma), self._current_ridge(), second)
                for arm in self._arms
            ]
            for gamma in self._gammas
        ]
        means_GMK = np.array([[means for means, _ in row] for row in pairs]).transpose(0, 2, 1)
        variances_GMK = np.array([[variances for _, variances in row] for row in pairs]).transpose(0, 2, 1)
        return means_GMK, np.sqrt(variances_GMK)

    def learned_state(self) -> StateDict:
        """The observations and the clock."""
        items = ((k, name, value) for k, arm in enumerate(self._arms) for name, value in arm.state_dict().items())
        clock: StateDict = {"time": self._time, "log_weights": self._log_weights_G.copy()}
        return clock | {f"{k}.{name}": value for k, name, value in items}

    def load_learned_state(self, state: StateDict) -> None:
        """Restore the observations and the clock."""
        self._time = int(state["time"])
        self._log_weights_G = np.array(state["log_weights"], dtype=np.float64)
        for k, arm in enumerate(self._arms):
            arm.load_state_dict(section(state, f"{k}."))

    def _weights(self, times_N: IntArray, gamma: float) -> FloatArray:
        ages_N = (self._time - times_N).astype(np.float64)
        if self._rule == "window":
            return (ages_N < self._window).astype(np.float64)
        weights_N: FloatArray = gamma**ages_N
        return weights_N

    def _current_ridge(self) -> float:
        return self._ridge * max(self._gamma**self._time, self._floor) if self._rule == "decay" else self._ridge

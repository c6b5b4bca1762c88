"""Selectors that know nothing of the prompts: Exp3 (arXiv 2410.01735, Eq. 3 and 4), UCB1, epsilon-greedy."""

from __future__ import annotations

import numpy as np

from laser.bandits.arm_selector import ArmSelector, Judgement, Observations, best_arms
from laser.core.types import BoolArray, FloatArray, StateDict


class Exp3(ArmSelector):
    """Draws p_k = (1 - gamma) softmax(S)_k + gamma / K (Eq. 3) and learns S_k += eta r / p_k (Eq. 4).

    Source: arXiv 2410.01735, Sec. 3.2. Deviations: eta, a setting (the paper's is 1; Auer et al. have gamma / K).
    S is kept relative to its largest entry, so that it neither overflows nor loses digits in long runs; a late update
    divides by the probability the row was drawn with, not by the current one; arms that are not available get none.

    Args:
        num_arms: K.
        gamma: Exploration in [0, 1].
        eta: Step of S.
        forced_pulls: Pulls every arm gets first.
        seed: Seeds the draws.

    Raises:
        ValueError: An argument is out of its range.
    """

    kind = "exp3"

    def __init__(
        self, num_arms: int, *, gamma: float = 0.1, eta: float = 1.0, forced_pulls: int = 0, seed: int = 0
    ) -> None:
        if not (0 <= gamma <= 1 and eta > 0):
            raise ValueError(f"need 0 <= gamma <= 1 and eta > 0: {gamma}, {eta}")
        super().__init__(num_arms, forced_pulls=forced_pulls, seed=seed)
        self._gamma = gamma
        self._eta = eta
        self._log_weights_K = np.zeros(num_arms)

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """Eq. 3, the same for every row."""
        weights_K = np.where(available_K, np.exp(self._log_weights_K - self._log_weights_K[available_K].max()), 0.0)
        uniform_K = available_K / available_K.sum()
        probabilities_K = (1 - self._gamma) * weights_K / weights_K.sum() + self._gamma * uniform_K  # Eq. 3
        rows = (len(contexts_MD), 1)
        return Judgement(np.tile(self._log_weights_K, rows), np.tile(probabilities_K, rows))

    def learn(self, seen: Observations) -> None:
        """Eq. 4, row by row; penalties, as there is no value to subtract them from, change the reward within [0, 1]."""
        penalties_K = self.penalties_K
        most = penalties_K.max()
        rewards_M = (seen.rewards_M - penalties_K[seen.arms_M] + most) / (1.0 + most)
        for arm, reward, probability in zip(seen.arms_M, rewards_M, seen.probabilities_M, strict=True):
            self._log_weights_K[arm] += self._eta * reward / probability  # Eq. 4
        self._log_weights_K -= self._log_weights_K.max()

    def learned_state(self) -> StateDict:
        """S, relative to its largest entry."""
        return {"log_weights": self._log_weights_K.copy()}

    def load_learned_state(self, state: StateDict) -> None:
        """Restore S."""
        self._log_weights_K = np.array(state["log_weights"], dtype=np.float64)


class ArmMeans(ArmSelector):
    """Learns the mean bandit reward of each arm, after one pull of every arm.

    Args:
        num_arms: K.
        seed: Seeds the draws and ties.
    """

    def __init__(self, num_arms: int, *, seed: int = 0) -> None:
        super().__init__(num_arms, forced_pulls=1, seed=seed)
        self._means_K = np.zeros(num_arms)
        self._counts_K = np.zeros(num_arms, dtype=np.int64)

    def learn(self, seen: Observations) -> None:
        """Update the means row by row."""
        for arm, reward in zip(seen.arms_M, seen.rewards_M, strict=True):
            self._counts_K[arm] += 1
            self._means_K[arm] += (reward - self._means_K[arm]) / self._counts_K[arm]

    def learned_state(self) -> StateDict:
        """Means and counts."""
        return {"means": self._means_K.copy(), "counts": self._counts_K.copy()}

    def load_learned_state(self, state: StateDict) -> None:
        """Restore means and counts."""
        self._means_K = np.array(state["means"], dtype=np.float64)
        self._counts_K = np.array(state["counts"], dtype=np.int64)


class UCB1(ArmMeans):
    """Without contexts: argmax of mean + alpha sqrt(2 ln t / n) (Auer, Cesa-Bianchi and Fischer 2002).

    A yardstick: what a selector reaches that knows nothing of the prompts. Arms without a pull come first.

    Args:
        num_arms: K.
        alpha: Width of the bound; 1 is the published one.
        seed: Seeds ties.

    Raises:
        ValueError: alpha is negative.
    """

    kind = "ucb1"

    def __init__(self, num_arms: int, *, alpha: float = 1.0, seed: int = 0) -> None:
        if alpha < 0:
            raise ValueError(f"need alpha >= 0: {alpha}")
        super().__init__(num_arms, seed=seed)
        self._alpha = alpha

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """The published bound; arms without an observation, possible while selections are open, count as one pull."""
        counts_K = np.maximum(self._counts_K, 1)
        values_K = self._means_K + self._alpha * np.sqrt(2 * np.log(max(counts_K.sum(), 2)) / counts_K)
        values_MK = np.tile(values_K, (len(contexts_MD), 1))
        return Judgement(values_MK, best_arms(values_MK - self.penalties_K, available_K))


class EpsilonGreedy(ArmMeans):
    """Without contexts: the best mean so far, and with probability epsilon a uniformly random arm.

    Args:
        num_arms: K.
        epsilon: Exploration in [0, 1].
        seed: Seeds the draws.

    Raises:
        ValueError: epsilon is out of its range.
    """

    kind = "epsilon_greedy"

    def __init__(self, num_arms: int, *, epsilon: float = 0.1, seed: int = 0) -> None:
        if not 0 <= epsilon <= 1:
            raise ValueError(f"need 0 <= epsilon <= 1: {epsilon}")
        super().__init__(num_arms, seed=seed)
        self._epsilon = epsilon

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """The greedy arm with probability 1 - epsilon, any available one with the rest."""
        values_MK = np.tile(self._means_K, (len(contexts_MD), 1))
        uniform_K = available_K / available_K.sum()
        greedy_MK = best_arms(values_MK - self.penalties_K, available_K)
        return Judgement(values_MK, (1 - self._epsilon) * greedy_MK + self._epsilon * uniform_K)

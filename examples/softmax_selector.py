"""A selector: draw a reward model with probability softmax(mean bandit reward / temperature)."""

import numpy as np

from laser.extend import ArmSelector, BoolArray, FloatArray, Judgement, Observations, StateDict


class SoftmaxSelector(ArmSelector):
    """Says how probable each arm is and learns from rewards; `ArmSelector` draws, and keeps open selections."""

    kind = "softmax"  # a checkpoint of another kind is refused

    def __init__(self, num_arms: int, *, temperature: float, seed: int) -> None:
        super().__init__(num_arms, seed=seed)  # a second argument, dim, for selectors that look at contexts
        self._temperature = temperature
        self._sums_K = np.zeros(num_arms)

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        values_K = self._sums_K / np.maximum(self.pulls_K, 1)
        weights_K = available_K * np.exp(values_K / self._temperature)  # 0 in quarantine
        rows = (len(contexts_MD), 1)
        return Judgement(np.tile(values_K, rows), np.tile(weights_K / weights_K.sum(), rows))

    def learn(self, seen: Observations) -> None:
        np.add.at(self._sums_K, seen.arms_M, seen.rewards_M)

    def learned_state(self) -> StateDict:
        return {"sums": self._sums_K.copy()}

    def load_learned_state(self, state: StateDict) -> None:
        self._sums_K = np.array(state["sums"])


def make(num_arms: int, dim: int, seed: int) -> SoftmaxSelector:
    return SoftmaxSelector(num_arms, temperature=0.2, seed=seed)

"""A feedback: the share of the last 50 losses that were larger than this one."""

import numpy as np

from laser.extend import FloatArray, IntArray, StateDict


class RankFeedback:
    def __init__(self, window: int) -> None:
        self._window = window
        self._losses: list[float] = []

    def scale(self, losses_E: FloatArray, arms_E: IntArray) -> FloatArray:
        rewards_E = np.array([self._rank(loss) for loss in losses_E])
        self._losses = [*self._losses, *losses_E[~np.isnan(losses_E)].tolist()][-self._window :]
        return rewards_E

    def _rank(self, loss: float) -> float:
        if np.isnan(loss):  # the reward model ordered nothing, so there was no pair
            return 0.0
        return float(np.mean([loss < earlier for earlier in self._losses])) if self._losses else 0.5

    def state_dict(self) -> StateDict:
        return {"losses": np.array(self._losses)}

    def load_state_dict(self, state: StateDict) -> None:
        self._losses = state["losses"].tolist()


def make() -> RankFeedback:
    return RankFeedback(window=50)

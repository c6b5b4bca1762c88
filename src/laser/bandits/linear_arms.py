"""K ridge regressions side by side: what LinUCB and linear Thompson sampling know about their arms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from laser.bandits.arm_selector import Observations, section
from laser.bandits.linear import ArmModel, DualRidge, Estimate, PrimalRidge
from laser.seeding import stream
from laser.types import FloatArray, StateDict


@dataclass(frozen=True, slots=True)
class Estimates:
    """Means c' theta_k and variances c' A_k^-1 c of K arms for M contexts, and what an update can reuse."""

    means_MK: FloatArray
    variances_MK: FloatArray
    rows: tuple[tuple[Estimate, ...], ...]


class LinearArms:
    """One ridge regression per arm, each in dual form while it has fewer observations than features.

    Args:
        num_arms: K.
        dim: D.
        ridge: lambda of A_k = lambda I at the start.
        initial_b_scale: Standard deviation of the initial b_k; 0 gives zeros.
        initial_b_KD: The initial b_k themselves, added to the random ones; None: nothing is added.
        seed: Seeds the initial b_k.
    """

    def __init__(
        self,
        num_arms: int,
        dim: int,
        *,
        ridge: float = 1.0,
        initial_b_scale: float = 0.0,
        initial_b_KD: FloatArray | None = None,
        seed: int = 0,
    ) -> None:
        self._dim = dim
        self._ridge = ridge
        start_KD = initial_b_scale * stream(seed, "bandit", 0).standard_normal((num_arms, dim))
        if initial_b_KD is not None:
            start_KD = start_KD + initial_b_KD
        self.arms: list[ArmModel] = [DualRidge(b, ridge) for b in start_KD]

    @property
    def num_bytes(self) -> int:
        """Bytes of memory held, room for growth included."""
        return sum(arm.num_bytes for arm in self.arms)

    @property
    def num_clamped(self) -> int:
        """Variances that rounded below zero and were set to 0."""
        return sum(arm.num_clamped for arm in self.arms)

    def estimate(self, contexts_MD: FloatArray) -> Estimates:
        """Means and variances of every arm for M contexts."""
        rows = tuple(tuple(arm.estimate(context) for arm in self.arms) for context in contexts_MD)
        shape = (len(rows), len(self.arms))
        means = np.array([[estimate.mean for estimate in row] for row in rows], dtype=np.float64)
        variances = np.array([[estimate.variance for estimate in row] for row in rows], dtype=np.float64)
        return Estimates(means.reshape(shape), variances.reshape(shape), rows)

    def learn(self, seen: Observations) -> None:
        """Eq. 2 of arXiv 2410.01735 for every row, with the estimates of its selection where they are still there."""
        estimates: Estimates | None = seen.memo
        for row in range(len(seen.arms_M)):
            arm = int(seen.arms_M[row])
            known = estimates.rows[seen.memo_rows[row]][arm] if estimates else None
            self.arms[arm].observe(seen.contexts_MD[row], float(seen.rewards_M[row]), known)
            self._switch_form(arm)

    def state_dict(self) -> StateDict:
        """The arms."""
        return {f"{index}.{name}": value for index, arm in enumerate(self.arms) for name, value in _items(arm)}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        self.arms = [_restore(section(state, f"{index}."), self._ridge) for index in range(len(self.arms))]

    def _switch_form(self, index: int) -> None:
        """From n = d on, the primal form is the smaller one."""
        arm = self.arms[index]
        if isinstance(arm, DualRidge) and arm.num_observations >= self._dim:
            self.arms[index] = arm.to_primal()


def _items(arm: ArmModel) -> list[tuple[str, object]]:
    return list(arm.state_dict().items())


def _restore(state: StateDict, ridge: float) -> ArmModel:
    return DualRidge.restore(state, ridge) if state["form"] == "dual" else PrimalRidge.restore(state)

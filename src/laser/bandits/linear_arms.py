"""K ridge regressions side by side: what LinUCB and linear Thompson sampling know about their arms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from laser.bandits.arm_selector import Observations, section
from laser.bandits.linear import ArmModel, DualRidge, Estimate, PrimalRidge
from laser.core.seeding import stream
from laser.core.types import FloatArray, StateDict

_FEW = 64  # features below which one array stores all arms, in primal form


@dataclass(frozen=True, slots=True)
class Estimates:
    """Means c' theta_k and variances c' A_k^-1 c of K arms for M contexts, and what an update can reuse."""

    means_MK: FloatArray
    variances_MK: FloatArray
    memo: Any


class Ridges(Protocol):
    """K ridge regressions."""

    @property
    def num_bytes(self) -> int:
        """Bytes of memory held, room for growth included."""
        ...

    @property
    def num_clamped(self) -> int:
        """Variances that rounded below zero and were set to 0."""
        ...

    def estimate(self, contexts_MD: FloatArray) -> Estimates:
        """Means and variances of every arm for M contexts."""
        ...

    def observe(self, arm: int, context: FloatArray, reward: float, estimates: Estimates | None, row: int) -> None:
        """Eq. 2 for one arm; `estimates` are those of a selection in whose row the context was, if still there."""
        ...

    def states(self) -> list[StateDict]:
        """What `ArmModel.state_dict` gives, arm by arm."""
        ...

    def restore(self, states: Sequence[StateDict]) -> None:
        """Restore `states`, in either form."""
        ...


class LinearArms:
    """One ridge regression per arm.

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
        start_KD = initial_b_scale * stream(seed, "bandit", 0).standard_normal((num_arms, dim))
        if initial_b_KD is not None:
            start_KD = start_KD + initial_b_KD
        self._num_arms = num_arms
        self._ridges: Ridges = _Stacked(start_KD, ridge) if dim < _FEW else _OneByOne(start_KD, ridge)

    @property
    def num_bytes(self) -> int:
        """Bytes of memory held, room for growth included."""
        return self._ridges.num_bytes

    @property
    def num_clamped(self) -> int:
        """Variances that rounded below zero and were set to 0."""
        return self._ridges.num_clamped

    def estimate(self, contexts_MD: FloatArray) -> Estimates:
        """Means and variances of every arm for M contexts."""
        return self._ridges.estimate(contexts_MD)

    def learn(self, seen: Observations) -> None:
        """Eq. 2 of arXiv 2410.01735 for every row, with the estimates of its selection where they are still there."""
        for row in range(len(seen.arms_M)):
            self._ridges.observe(
                int(seen.arms_M[row]),
                seen.contexts_MD[row],
                float(seen.rewards_M[row]),
                seen.memo,
                int(seen.memo_rows[row]),
            )

    def state_dict(self) -> StateDict:
        """The arms."""
        states = self._ridges.states()
        return {f"{index}.{name}": value for index, state in enumerate(states) for name, value in state.items()}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        self._ridges.restore([section(state, f"{index}.") for index in range(self._num_arms)])


class _OneByOne:
    """Each arm in dual form while it has fewer observations than features: for many features."""

    def __init__(self, start_KD: FloatArray, ridge: float) -> None:
        self._dim = start_KD.shape[1]
        self._ridge = ridge
        self._arms: list[ArmModel] = [DualRidge(b, ridge) for b in start_KD]

    @property
    def num_bytes(self) -> int:
        return sum(arm.num_bytes for arm in self._arms)

    @property
    def num_clamped(self) -> int:
        return sum(arm.num_clamped for arm in self._arms)

    def estimate(self, contexts_MD: FloatArray) -> Estimates:
        rows = tuple(tuple(arm.estimate(context) for arm in self._arms) for context in contexts_MD)
        numbers = np.array([[(one.mean, one.variance) for one in row] for row in rows], dtype=np.float64)
        numbers = numbers.reshape(len(rows), len(self._arms), 2)
        return Estimates(numbers[:, :, 0], numbers[:, :, 1], rows)

    def observe(self, arm: int, context: FloatArray, reward: float, estimates: Estimates | None, row: int) -> None:
        known: Estimate | None = estimates.memo[row][arm] if estimates else None
        model = self._arms[arm]
        model.observe(context, reward, known)
        if isinstance(model, DualRidge) and model.num_observations >= self._dim:
            self._arms[arm] = model.to_primal()  # from n = d on, the smaller form

    def states(self) -> list[StateDict]:
        return [arm.state_dict() for arm in self._arms]

    def restore(self, states: Sequence[StateDict]) -> None:
        self._arms = [
            DualRidge.restore(state, self._ridge) if state["form"] == "dual" else PrimalRidge.restore(state)
            for state in states
        ]


class _Stacked:
    """All arms in primal form in one array: with few features, time is that of the number of calls."""

    def __init__(self, start_KD: FloatArray, ridge: float) -> None:
        count, dim = start_KD.shape
        self._ridge = ridge
        self._inverse_KDD = np.tile(np.eye(dim) / ridge, (count, 1, 1))
        self._theta_KD = start_KD / ridge
        self._observations = [0] * count
        self.num_clamped = 0

    @property
    def num_bytes(self) -> int:
        return self._inverse_KDD.nbytes + self._theta_KD.nbytes

    def estimate(self, contexts_MD: FloatArray) -> Estimates:
        # Every entry is added up in the same order, whatever its place: arms that know the same tie to the bit.
        solves_MKD = np.matmul(self._inverse_KDD, contexts_MD[:, None, :, None])[..., 0]
        variances_MK = np.einsum("mkd,md->mk", solves_MKD, contexts_MD)
        means_MK = np.einsum("kd,md->mk", self._theta_KD, contexts_MD)
        if variances_MK.min(initial=0.0) < 0.0:
            self.num_clamped += int((variances_MK < 0.0).sum())
            variances_MK = np.maximum(variances_MK, 0.0)
        return Estimates(means_MK, variances_MK, (solves_MKD, tuple(self._observations)))

    def observe(self, arm: int, context: FloatArray, reward: float, estimates: Estimates | None, row: int) -> None:
        """Sherman-Morrison, theta by its own recursion; see `PrimalRidge.observe`."""
        if estimates is None or estimates.memo[1][arm] != self._observations[arm]:
            estimates, row = self.estimate(context[None]), 0
        solve = estimates.memo[0][row, arm]
        gain = 1.0 / (1.0 + float(estimates.variances_MK[row, arm]))
        self._theta_KD[arm] += solve * (gain * (reward - float(estimates.means_MK[row, arm])))
        self._inverse_KDD[arm] -= gain * (solve[:, None] * solve)  # in this order the sum stays symmetric to the bit
        self._observations[arm] += 1

    def states(self) -> list[StateDict]:
        return [
            PrimalRidge(inverse, theta, count).state_dict()
            for inverse, theta, count in zip(self._inverse_KDD, self._theta_KD, self._observations, strict=True)
        ]

    def restore(self, states: Sequence[StateDict]) -> None:
        arms = [
            DualRidge.restore(state, self._ridge).to_primal() if state["form"] == "dual" else PrimalRidge.restore(state)
            for state in states
        ]
        self._inverse_KDD = np.stack([arm.inverse() for arm in arms])
        self._theta_KD = np.stack([arm.theta for arm in arms])
        self._observations = [arm.num_observations for arm in arms]

"""What LinUCB and linear Thompson sampling share: a ridge regression per arm (arXiv 2410.01735, Eq. 1 and 2).

With A = lambda I + V'V over the n contexts V an arm has seen and b = b0 + V'r, a context c has

    mean    c' A^-1 b
    width^2 c' A^-1 c.

Dual form, while n < d: keep V and the Cholesky factor L of lambda I + V V', no inverse. With y = L^-1 V c,

    width^2 = (c'c - y'y) / lambda,   mean = c'b0 / lambda + y'z,   z = L^-1 (r - V b0 / lambda),

and an observation appends the row (y, sqrt(lambda (1 + width^2))) to L, which the selection has already computed:
O(n d) to select, O(d) to update, n (d + n / 2) numbers of state. The variance is never negative: where the
difference would cancel it is computed as a sum of squares. Primal form, from n = d on and for few features: a rank-one
update of A^-1 and theta, O(d^2). Everything is float64, one BLAS thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import blas, lapack

from laser.bandits.arm_selector import ArmSelector, Observations, section
from laser.bandits.context_rows import ContextRows, grown_capacity
from laser.core.seeding import stream
from laser.core.types import FloatArray, StateDict

_CANCELLATION = 1e-6  # below this share of c'c, c'c - y'y has lost too many digits
_FEW = 64  # features below which one array stores all arms, in primal form


@dataclass(frozen=True, slots=True)
class Estimates:
    """Means c' theta_k and variances c' A_k^-1 c of K arms for M contexts, and what an update can reuse."""

    means_MK: FloatArray
    variances_MK: FloatArray
    memo: Any


class LinearSelector(ArmSelector):
    """Learns one ridge regression per arm: A_k += c c', b_k += r c (Eq. 2). A subclass selects by the estimates.

    Args:
        num_arms: K.
        dim: D, features of a context.
        ridge: lambda of A_k = lambda I at the start.
        initial_b_scale: Standard deviation of the random initial b_k; 0 gives zeros.
        initial_b_KD: Added to the random initial b_k; None: nothing.
        forced_pulls: Pulls every arm gets first, the least pulled one next.
        seed: Seeds initial b and the draws.
    """

    def __init__(
        self,
        num_arms: int,
        dim: int,
        *,
        ridge: float,
        initial_b_scale: float = 0.0,
        initial_b_KD: FloatArray | None = None,
        forced_pulls: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(num_arms, dim, forced_pulls=forced_pulls, seed=seed, settings={"ridge": ridge})
        start_KD = initial_b_scale * stream(seed, "bandit", 0).standard_normal((num_arms, dim))
        if initial_b_KD is not None:
            start_KD = start_KD + initial_b_KD
        self._ridges: _Stacked | _OneByOne = _Stacked(start_KD, ridge) if dim < _FEW else _OneByOne(start_KD, ridge)

    @property
    def num_bytes(self) -> int:
        """Bytes of memory the arms hold, room for growth included."""
        return self._ridges.num_bytes

    @property
    def num_clamped(self) -> int:
        """Estimates whose variance rounded below zero and was set to 0, since construction or restoration."""
        return self._ridges.num_clamped

    def learn(self, seen: Observations) -> None:
        """Eq. 2, row by row, with the estimates of the selection where they are still there."""
        for row in range(len(seen.arms_M)):
            self._ridges.observe(
                int(seen.arms_M[row]),
                seen.contexts_MD[row],
                float(seen.rewards_M[row]),
                seen.memo,
                int(seen.memo_rows[row]),
            )

    def learned_state(self) -> StateDict:
        """The arms."""
        states = self._ridges.states()
        return {f"{index}.{name}": value for index, state in enumerate(states) for name, value in state.items()}

    def load_learned_state(self, state: StateDict) -> None:
        """Restore the arms, in either form."""
        self._ridges.restore([section(state, f"{index}.") for index in range(self.num_arms)])


class _OneByOne:
    """Each arm in dual form while it has fewer observations than features: for many features."""

    def __init__(self, start_KD: FloatArray, ridge: float) -> None:
        self._dim = start_KD.shape[1]
        self._ridge = ridge
        self._arms: list[DualRidge | PrimalRidge] = [DualRidge(b, ridge) for b in start_KD]

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
        """A += c c', b += r c by Sherman-Morrison, theta by its own recursion."""
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


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an arm says about a context.

    Attributes:
        mean: c' A^-1 b, the predicted bandit reward.
        variance: c' A^-1 c, the squared width.
        solve: What an update with this context needs, valid while the arm has `num_observations` observations.
        num_observations: n when the estimate was made.
    """

    mean: float
    variance: float
    solve: FloatArray
    num_observations: int


class DualRidge:
    """The dual form: contexts and a Cholesky factor that grow by one row per observation.

    Args:
        initial_b: b0, shape (D,).
        ridge: lambda > 0.

    Attributes:
        num_observations: n so far.
        num_clamped: Always 0: this form's variance cannot come out negative.
    """

    num_clamped = 0

    def __init__(self, initial_b: FloatArray, ridge: float) -> None:
        self.initial_b = initial_b
        self.ridge = ridge
        self.num_observations = 0
        self._contexts = ContextRows(len(initial_b))
        self._factor = np.empty(0)  # rows of L, packed one behind the other
        self._z = np.empty(0)

    @property
    def num_bytes(self) -> int:
        """Bytes of memory held, room for growth included."""
        return self._contexts.num_bytes + self._factor.nbytes + self._z.nbytes + self.initial_b.nbytes

    def estimate(self, context: FloatArray) -> Estimate:
        """Mean and variance for a context of shape (D,); O(n d)."""
        n = self.num_observations
        prior = float(context @ self.initial_b) / self.ridge
        total = float(context @ context)
        if n == 0:
            return Estimate(prior, total / self.ridge, np.empty(0), 0)
        y = self._solve(self._contexts.times(context))
        left = total - float(y @ y)
        variance = left / self.ridge if left > _CANCELLATION * total else self._stable_variance(context, y)
        return Estimate(prior + float(y @ self._z[:n]), variance, y, n)

    def observe(self, context: FloatArray, reward: float, estimate: Estimate | None = None) -> None:
        """A += c c', b += r c; O(d) with a fresh estimate of the same context, which is computed if missing."""
        n = self.num_observations
        if estimate is None or estimate.num_observations != n:
            estimate = self.estimate(context)
        self._reserve(n + 1)
        diagonal = np.sqrt(self.ridge * (1.0 + estimate.variance))
        begin = n * (n + 1) // 2
        self._contexts.extend(context[None])
        self._factor[begin : begin + n] = estimate.solve
        self._factor[begin + n] = diagonal
        self._z[n] = (reward - estimate.mean) / diagonal
        self.num_observations = n + 1

    def to_primal(self) -> PrimalRidge:
        """The same arm in primal form: A^-1 = (I - W'W) / lambda with W = L^-1 V."""
        n, dim = self.num_observations, len(self.initial_b)
        factor = np.zeros((n, n))
        factor[np.tril_indices(n)] = self._factor[: n * (n + 1) // 2]
        whitened, _ = lapack.dtrtrs(factor, self._contexts.to_array().astype(np.float64), lower=1)
        inverse = np.asfortranarray((np.eye(dim) - whitened.T @ whitened) / self.ridge)
        theta = self.initial_b / self.ridge + whitened.T @ self._z[:n]
        return PrimalRidge(inverse, theta, n)

    def state_dict(self) -> StateDict:
        """Contexts (as float32 where that loses nothing), factor and z."""
        n = self.num_observations
        return {
            "form": "dual",
            "initial_b": self.initial_b,
            "contexts": self._contexts.to_array(),
            "factor": self._factor[: n * (n + 1) // 2].copy(),
            "z": self._z[:n].copy(),
        }

    @classmethod
    def restore(cls, state: StateDict, ridge: float) -> DualRidge:
        """Make the arm that `state_dict` describes."""
        arm = cls(np.array(state["initial_b"], dtype=np.float64), ridge)
        arm.num_observations = n = len(state["z"])
        arm._reserve(n)
        arm._contexts.extend(state["contexts"])
        arm._factor[: n * (n + 1) // 2] = state["factor"]
        arm._z[:n] = state["z"]
        return arm

    def _solve(self, right: FloatArray) -> FloatArray:
        """Return L^-1 right. Rows of L packed one after another are the packed columns of L', the layout of BLAS."""
        n = len(right)
        solution: FloatArray = blas.dtpsv(n, self._factor[: n * (n + 1) // 2], right, trans=1)
        return solution

    def _stable_variance(self, context: FloatArray, y: FloatArray) -> float:
        """c'A^-1c = |c - V'a|^2 / lambda + |a|^2 with a = L'^-1 y: a sum of squares, where the difference cancels."""
        n = len(y)
        a = blas.dtpsv(n, self._factor[: n * (n + 1) // 2], y, trans=0)
        rest = context - self._contexts.transposed_times(a)
        return float(rest @ rest) / self.ridge + float(a @ a)

    def _reserve(self, rows: int) -> None:
        """Make room for L and z; the contexts see to their own."""
        if rows <= len(self._z):
            return
        capacity = grown_capacity(rows)
        self._factor = _grown(self._factor, capacity * (capacity + 1) // 2)
        self._z = _grown(self._z, capacity)


class PrimalRidge:
    """The primal form: A^-1 and theta, each updated by a rank-one step.

    Args:
        inverse: A^-1, shape (D, D), Fortran order; its lower triangle is used and changed in place.
        theta: A^-1 b, shape (D,).
        num_observations: n so far.

    Attributes:
        theta: A^-1 b.
        num_clamped: Estimates whose variance came out negative by rounding and was set to 0; a sign that contexts are
            too large for their ridge.
    """

    def __init__(self, inverse: FloatArray, theta: FloatArray, num_observations: int) -> None:
        self._inverse = inverse
        self.theta = theta
        self.num_observations = num_observations
        self.num_clamped = 0

    def inverse(self) -> FloatArray:
        """A^-1 with both its triangles, shape (D, D)."""
        lower = np.tril(self._inverse)
        whole: FloatArray = lower + np.tril(lower, -1).T
        return whole

    @property
    def num_bytes(self) -> int:
        """Bytes of memory held."""
        return self._inverse.nbytes + self.theta.nbytes

    def estimate(self, context: FloatArray) -> Estimate:
        """Mean and variance for a context of shape (D,); O(d^2)."""
        solve: FloatArray = blas.dsymv(1.0, self._inverse, context, lower=1)
        variance = float(context @ solve)
        self.num_clamped += variance < 0.0
        return Estimate(float(context @ self.theta), max(0.0, variance), solve, self.num_observations)

    def observe(self, context: FloatArray, reward: float, estimate: Estimate | None = None) -> None:
        """A += c c', b += r c by Sherman-Morrison on one triangle, theta by its own recursion; O(d^2)."""
        if estimate is None or estimate.num_observations != self.num_observations:
            estimate = self.estimate(context)
        gain = 1.0 / (1.0 + estimate.variance)
        self.theta = self.theta + estimate.solve * (gain * (reward - estimate.mean))
        self._inverse = blas.dsyr(-gain, estimate.solve, lower=1, a=self._inverse, overwrite_a=True)
        self.num_observations += 1

    def state_dict(self) -> StateDict:
        """A^-1 (lower triangle, packed by column), theta, n."""
        rows, columns = np.tril_indices(len(self.theta))
        return {
            "form": "primal",
            "inverse": self._inverse[rows, columns],
            "theta": self.theta.copy(),
            "num_observations": self.num_observations,
        }

    @classmethod
    def restore(cls, state: StateDict) -> PrimalRidge:
        """Make the arm that `state_dict` describes."""
        dim = len(state["theta"])
        inverse = np.zeros((dim, dim), order="F")
        inverse[np.tril_indices(dim)] = state["inverse"]
        return cls(inverse, np.array(state["theta"], dtype=np.float64), int(state["num_observations"]))


def _grown(array: FloatArray, length: int) -> FloatArray:
    larger = np.empty(length)
    larger[: len(array)] = array
    return larger

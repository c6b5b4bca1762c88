"""LinUCB, one disjoint linear model per reward model (arXiv 2410.01735, Sec. 3.2; Li et al. 2010)."""

from __future__ import annotations

import numpy as np
from threadpoolctl import ThreadpoolController

from laser.bandits.linear import ArmModel, DualRidge, Estimate, PrimalRidge
from laser.bandits.open_selections import OpenSelections, checked_available
from laser.seeding import stream
from laser.types import BoolArray, FloatArray, IntArray, Selection, StateDict


class LinUCB:
    """Selects argmax_k [c' theta_k + alpha sqrt(c' A_k^-1 c)] (Eq. 1) and learns A_k += c c', b_k += r c (Eq. 2).

    Source: arXiv 2410.01735, Sec. 3.2 and A.2. Deviations: the ridge and the scale of the random initial b are
    settings (the paper's are 1 and unknown), ties are broken by a seeded stream, arms may be pulled a number of
    times before the bound decides.

    Args:
        num_arms: K.
        dim: D, features of a context.
        alpha: Width of the confidence bound.
        ridge: lambda of A_k = lambda I at the start.
        initial_b_scale: Standard deviation of the initial b_k; 0 gives zeros.
        forced_pulls: Pulls every arm gets first, the least pulled one next.
        seed: Seeds initial b and ties.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        num_arms: int,
        dim: int,
        *,
        alpha: float = 0.1,
        ridge: float = 1.0,
        initial_b_scale: float = 0.0,
        forced_pulls: int = 0,
        seed: int = 0,
    ) -> None:
        if num_arms < 1 or dim < 1 or forced_pulls < 0:
            raise ValueError(f"need num_arms >= 1, dim >= 1, forced_pulls >= 0: {num_arms}, {dim}, {forced_pulls}")
        if not (ridge > 0 and alpha >= 0 and initial_b_scale >= 0):
            raise ValueError(f"need ridge > 0, alpha >= 0, initial_b_scale >= 0: {ridge}, {alpha}, {initial_b_scale}")
        self._dim = dim
        self.alpha = alpha
        self.ridge = ridge
        self.forced_pulls = forced_pulls
        initial_b_KD = initial_b_scale * stream(seed, "bandit", 0).standard_normal((num_arms, dim))
        self._arms: list[ArmModel] = [DualRidge(b, ridge) for b in initial_b_KD]
        self._ties = stream(seed, "bandit", 1)
        self._open = OpenSelections()
        self._estimates: dict[int, list[list[Estimate]]] = {}  # of open selections; rebuilt when missing
        # A second BLAS thread costs time at these sizes and changes the last bits. The controller is made once: making
        # it takes 0.7 ms, its `limit` 0.01 ms. BLAS only, so that torch keeps its OpenMP threads.
        self._threads = ThreadpoolController().select(user_api="blas")

    @property
    def num_arms(self) -> int:
        """K."""
        return len(self._arms)

    @property
    def num_bytes(self) -> int:
        """Bytes of memory the arms hold, room for growth included."""
        return sum(arm.num_bytes for arm in self._arms)

    @property
    def num_clamped(self) -> int:
        """Estimates whose squared width rounded below zero and was set to 0, since construction or restoration."""
        return sum(arm.num_clamped for arm in self._arms)

    def estimates(self, contexts_MD: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Means c' theta_k and widths sqrt(c' A_k^-1 c) of every arm, both of shape (M, K)."""
        rows = self._estimate(self._checked(contexts_MD))
        return _column(rows, "mean"), np.sqrt(_column(rows, "variance"))

    def select(self, contexts_MD: FloatArray, available_K: BoolArray | None = None) -> Selection:
        """Choose arms for M contexts; see `Selector.select`. O(K n D) per row for n observations of an arm."""
        contexts_MD = self._checked(contexts_MD)
        available_K = checked_available(available_K, self.num_arms)
        rows = self._estimate(contexts_MD)
        values_MK = _column(rows, "mean") + self.alpha * np.sqrt(_column(rows, "variance"))  # Eq. 1
        candidates_MK, arms_M = self._choose(values_MK, available_K)
        selection_id = self._open.add(contexts_MD, arms_M)
        self._estimates[selection_id] = rows
        return Selection(
            id=selection_id,
            weights_MK=np.eye(self.num_arms)[arms_M],
            probabilities_MK=candidates_MK / candidates_MK.sum(axis=1, keepdims=True),
            values_MK=values_MK,
        )

    def update(self, selection_id: int, bandit_rewards_M: FloatArray) -> None:
        """Learn from a selection; see `Selector.update`."""
        bandit_rewards_M = np.asarray(bandit_rewards_M, dtype=np.float64)
        selection = self._open.close_with(selection_id, bandit_rewards_M)
        rows = self._estimates.pop(selection_id, None)
        with self._threads.limit(limits=1):
            for row, (context, arm, reward) in enumerate(
                zip(selection.contexts_MD, selection.arms_M, bandit_rewards_M, strict=True)
            ):
                if not np.isnan(reward):
                    self._arms[arm].observe(context, float(reward), rows[row][arm] if rows else None)  # Eq. 2
                    self._switch_form(int(arm))

    def expire(self, selection_id: int) -> None:
        """Close a selection without learning; see `Selector.expire`."""
        self._open.close(selection_id)
        self._estimates.pop(selection_id, None)

    def state_dict(self) -> StateDict:
        """Arms, open selections and the state of the tie-breaking stream."""
        state: StateDict = {
            "kind": "linucb",
            "dim": self._dim,
            "num_arms": self.num_arms,
            "ridge": self.ridge,
            "ties": self._ties.bit_generator.state,
        }
        for index, arm in enumerate(self._arms):
            state |= {f"arm.{index}.{name}": value for name, value in arm.state_dict().items()}
        return state | {f"open.{name}": value for name, value in self._open.state_dict().items()}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises ValueError if it belongs to another number of arms, features or ridge."""
        here = ("linucb", self._dim, self.num_arms, self.ridge)
        there = (state.get("kind"), state.get("dim"), state.get("num_arms"), state.get("ridge"))
        if here != there:
            raise ValueError(f"state is of (kind, features, arms, ridge) = {there}, this selector is {here}")
        self._arms = [_restore(_section(state, f"arm.{index}."), self.ridge) for index in range(self.num_arms)]
        self._ties.bit_generator.state = state["ties"]
        self._open.load_state_dict(_section(state, "open."))
        self._estimates = {}

    def _checked(self, contexts_MD: FloatArray) -> FloatArray:
        contexts_MD = np.ascontiguousarray(contexts_MD, dtype=np.float64)
        if contexts_MD.ndim != 2 or contexts_MD.shape[1] != self._dim:
            raise ValueError(f"contexts have shape {contexts_MD.shape}, expected (M, {self._dim})")
        if not np.isfinite(contexts_MD).all():
            raise ValueError("contexts must be finite")
        return contexts_MD

    def _estimate(self, contexts_MD: FloatArray) -> list[list[Estimate]]:
        with self._threads.limit(limits=1):
            return [[arm.estimate(context) for arm in self._arms] for context in contexts_MD]

    def _choose(self, values_MK: FloatArray, available_K: BoolArray) -> tuple[FloatArray, IntArray]:
        """For each row the arms that tie for first, as ones of shape (M, K), and the one drawn among them."""
        pulls_K = self._open.counts(self.num_arms) + [arm.num_observations for arm in self._arms]
        candidates_MK = np.zeros(values_MK.shape)
        arms_M = np.empty(len(values_MK), dtype=np.int64)
        for row, values_K in enumerate(values_MK):
            masked_K = np.where(available_K, values_K, -np.inf)
            least = pulls_K[available_K].min()
            tied = available_K & (pulls_K == least) if least < self.forced_pulls else masked_K == masked_K.max()
            options = np.flatnonzero(tied)
            arms_M[row] = options[0] if len(options) == 1 else self._ties.choice(options)
            candidates_MK[row] = tied
            pulls_K[arms_M[row]] += 1
        return candidates_MK, arms_M

    def _switch_form(self, index: int) -> None:
        """From n = d on, the primal form is the smaller one."""
        arm = self._arms[index]
        if isinstance(arm, DualRidge) and arm.num_observations >= self._dim:
            self._arms[index] = arm.to_primal()


def _column(rows: list[list[Estimate]], name: str) -> FloatArray:
    return np.array([[getattr(estimate, name) for estimate in row] for row in rows], dtype=np.float64)


def _section(state: StateDict, prefix: str) -> StateDict:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _restore(state: StateDict, ridge: float) -> ArmModel:
    return DualRidge.restore(state, ridge) if state["form"] == "dual" else PrimalRidge.restore(state)

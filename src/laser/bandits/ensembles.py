"""Selectors that weigh all reward models at once: the paper's ensembles (arXiv 2410.01735, Sec. 4.1 and A.1)."""

from __future__ import annotations

import numpy as np

from laser.bandits.base import check_state_version
from laser.bandits.open_selections import checked_available
from laser.core.types import BoolArray, FloatArray, Selection, StateDict

_STATE_VERSION = 1


class UniformEnsemble:
    """Every available reward model with the same weight: RM Score Ensemble, RM Agreement Ensemble.

    `laser.rewards.combine` says how their scores become one.

    Args:
        num_arms: K.
    """

    def __init__(self, num_arms: int) -> None:
        if num_arms < 1:
            raise ValueError(f"need num_arms >= 1: {num_arms}")
        self._num_arms = num_arms
        self._num_selections = 0

    @property
    def num_arms(self) -> int:
        """K."""
        return self._num_arms

    def select(self, contexts_MD: FloatArray, available_K: BoolArray | None = None) -> Selection:
        """Equal weights for every row; nothing is charged."""
        available_K = checked_available(available_K, self._num_arms)
        weights_MK = np.tile(available_K / available_K.sum(), (len(contexts_MD), 1))
        self._num_selections += 1
        return Selection(self._num_selections - 1, weights_MK, weights_MK, np.zeros_like(weights_MK), ())

    def update(self, selection_id: int, bandit_rewards_E: FloatArray) -> None:
        """Nothing is learned."""

    def expire(self, selection_id: int) -> None:
        """Nothing is kept open."""

    def state_dict(self) -> StateDict:
        """The number of selections."""
        state: StateDict = {"version": _STATE_VERSION, "kind": "uniform", "num_arms": self._num_arms}
        return state | {"num_selections": self._num_selections}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; see `Selector.load_state_dict`."""
        _check(state, "uniform", self._num_arms)
        self._num_selections = int(state["num_selections"])


class MultiplicativeWeights:
    """Online RM Ensemble: weights over reward models, w_k *= exp(-eta m_k) after each batch.

    Source: arXiv 2410.01735, Sec. A.1; Arora, Hazan and Kale 2012, the exponential form. Decision where the paper is
    silent: reward model k is charged the cost m_k = 1 - r_k in [0, 1], where r_k is the bandit reward of the loss that
    the batch's pairs have when k alone orients them, under the policy before the update. It is the bandit's own signal,
    with full information: every reward model was asked anyway.

    Args:
        num_arms: K.
        eta: Step, in (0, 1].

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(self, num_arms: int, *, eta: float = 0.5) -> None:
        if num_arms < 1 or not 0 < eta <= 1:
            raise ValueError(f"need num_arms >= 1 and 0 < eta <= 1: {num_arms}, {eta}")
        self._num_arms = num_arms
        self._eta = eta
        self._log_weights_K = np.zeros(num_arms)
        self._next = 0
        self._open: dict[int, list[int]] = {}  # for each open selection the arms of its charges

    @property
    def num_arms(self) -> int:
        """K."""
        return self._num_arms

    def select(self, contexts_MD: FloatArray, available_K: BoolArray | None = None) -> Selection:
        """The current weights for every row; every available arm is charged for every row."""
        available_K = checked_available(available_K, self._num_arms)
        weights_K = np.where(available_K, np.exp(self._log_weights_K - self._log_weights_K[available_K].max()), 0.0)
        weights_MK = np.tile(weights_K / weights_K.sum(), (len(contexts_MD), 1))
        arms = np.flatnonzero(available_K).tolist()
        charges = tuple((row, arm) for row in range(len(contexts_MD)) for arm in arms)
        self._open[self._next] = [arm for _, arm in charges]
        self._next += 1
        values_MK = np.tile(self._log_weights_K, (len(contexts_MD), 1))
        return Selection(self._next - 1, weights_MK, weights_MK, values_MK, charges)

    def update(self, selection_id: int, bandit_rewards_E: FloatArray) -> None:
        """Charge every arm its mean cost over the rows; see `Selector.update`."""
        if selection_id not in self._open:
            raise KeyError(f"selection {selection_id} is not open: unknown, updated or expired")
        arms_E = np.array(self._open[selection_id], dtype=np.int64)
        rewards_E = np.asarray(bandit_rewards_E, dtype=np.float64)
        if rewards_E.shape != arms_E.shape or np.isinf(rewards_E).any():
            raise ValueError(f"need {len(arms_E)} finite rewards or NaN, got shape {rewards_E.shape}")
        del self._open[selection_id]
        for arm in np.unique(arms_E):
            costs = 1.0 - rewards_E[(arms_E == arm) & ~np.isnan(rewards_E)]
            if len(costs):
                self._log_weights_K[arm] -= self._eta * costs.mean()
        self._log_weights_K -= self._log_weights_K.max()

    def expire(self, selection_id: int) -> None:
        """Close a selection without learning; see `Selector.expire`."""
        if self._open.pop(selection_id, None) is None:
            raise KeyError(f"selection {selection_id} is not open: unknown, updated or expired")

    def state_dict(self) -> StateDict:
        """Log-weights and open selections."""
        state: StateDict = {"version": _STATE_VERSION, "kind": "multiplicative_weights", "num_arms": self._num_arms}
        state["next"] = self._next
        state["open"] = {str(selection_id): arms for selection_id, arms in self._open.items()}
        return state | {"log_weights": self._log_weights_K.copy()}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; see `Selector.load_state_dict`."""
        _check(state, "multiplicative_weights", self._num_arms)
        self._next = int(state["next"])
        self._open = {int(selection_id): list(arms) for selection_id, arms in state["open"].items()}
        self._log_weights_K = np.array(state["log_weights"], dtype=np.float64)


def _check(state: StateDict, kind: str, num_arms: int) -> None:
    check_state_version(state.get("version"), _STATE_VERSION)
    if (state.get("kind"), state.get("num_arms")) != (kind, num_arms):
        raise ValueError(
            f"state is of {state.get('kind')!r} with {state.get('num_arms')} arms, this selector is {kind!r} with "
            f"{num_arms}"
        )

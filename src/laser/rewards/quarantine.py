"""Which reward models may be used: one that keeps failing is left out, and tried again after a while."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from laser.core.types import BoolArray, StateDict


class Quarantine:
    """Counts failures in a row and keeps failing reward models out.

    After `max_failures` in a row a reward model rests for `recovery_batches` batches. Then it is on trial: a success
    makes it healthy, a single failure sends it back.

    Args:
        num_arms: K.
        max_failures: Failures in a row that put a reward model out; 0: none ever does, and the first failure stops
            the run.
        recovery_batches: Batches of rest.
    """

    def __init__(self, num_arms: int, *, max_failures: int = 3, recovery_batches: int = 20) -> None:
        self.max_failures = max_failures
        self._recovery_batches = recovery_batches
        self._failures = [0] * num_arms
        self._resting = [0] * num_arms
        self._fresh: dict[int, str] = {}
        self._reasons: dict[int, str] = {}

    @property
    def available_K(self) -> BoolArray:
        """False for reward models in quarantine."""
        return np.array([rest == 0 for rest in self._resting], dtype=np.bool_)

    def next_batch(self) -> None:
        """Count one batch of rest."""
        self._fresh = {}
        self._resting = [max(0, rest - 1) for rest in self._resting]

    def succeeded(self, arm: int) -> None:
        """Record that the reward model gave at least one score."""
        self._failures[arm] = 0

    def failed(self, arm: int, reason: str) -> bool:
        """Record a failure; returns whether the reward model is in quarantine now."""
        self._failures[arm] += 1
        if self.max_failures == 0 or self._failures[arm] < self.max_failures:
            return False
        self._failures[arm] = self.max_failures - 1  # on trial when it comes back
        self._resting[arm] = self._recovery_batches + 1  # the batch that is under way does not count
        self._fresh[arm] = self._reasons[arm] = reason
        return True

    def reasons(self) -> str:
        """Reasons of the quarantined reward models, as far as this process knows them."""
        return "; ".join(self._reasons[arm] for arm, rest in enumerate(self._resting) if rest and arm in self._reasons)

    def fresh(self, names: Sequence[str]) -> dict[str, str]:
        """Reward models quarantined since the batch began, with the reason."""
        return {names[arm]: reason for arm, reason in self._fresh.items()}

    def state_dict(self) -> StateDict:
        """Failures and rests."""
        return {"failures": list(self._failures), "resting": list(self._resting)}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises ValueError if it is of another pool.

        Where no reward model was left, the run had stopped and is resumed after a fix, so all are on trial.
        """
        if len(state["failures"]) != len(self._failures):
            raise ValueError(f"it is of {len(state['failures'])} reward models, the pool has {len(self._failures)}")
        self._failures = [int(count) for count in state["failures"]]
        self._resting = [int(rest) for rest in state["resting"]]
        if not self.available_K.any():
            self._resting = [0] * len(self._resting)

"""What it costs to score a response: a price that the user gives, or the seconds that scoring takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from laser.core.types import FloatArray, StateDict


class ScoringCosts:
    """Cost of each reward model's responses.

    Without prices the cost of a response is the mean of the seconds that the reward model's calls have taken so far,
    without those of loading it. A selector that trades accuracy for price then depends on the clock, so the seconds are
    part of the state: a resumed run continues with those of its checkpoint, but two runs of one seed may differ.

    Args:
        num_arms: K.
        prices_K: Cost of one response, in a unit of the user's; None: seconds are measured.

    Raises:
        ValueError: There is not one price for each reward model, or one is negative.
    """

    def __init__(self, num_arms: int, prices_K: Sequence[float] | None = None) -> None:
        if prices_K is not None and (len(prices_K) != num_arms or min(prices_K) < 0):
            raise ValueError(f"need {num_arms} prices that are not negative: {prices_K}")
        self._prices_K = None if prices_K is None else np.array(prices_K, dtype=np.float64)
        self._seconds_K = np.zeros(num_arms)
        self._responses_K = np.zeros(num_arms, dtype=np.int64)
        self._latest_K = np.zeros(num_arms)

    @property
    def measured(self) -> bool:
        """Whether costs are seconds."""
        return self._prices_K is None

    @property
    def per_response_K(self) -> FloatArray:
        """Cost of one response, shape (K,); NaN for a reward model whose seconds have not been measured yet."""
        if self._prices_K is not None:
            return self._prices_K.copy()
        unknown_K = np.full(len(self._seconds_K), np.nan)
        known: FloatArray = np.divide(self._seconds_K, self._responses_K, out=unknown_K, where=self._responses_K > 0)
        return known

    @property
    def shares_K(self) -> FloatArray:
        """Cost of a response relative to the dearest reward model, in [0, 1], shape (K,); 0 where it is unknown."""
        costs_K = np.nan_to_num(self.per_response_K, nan=0.0)
        dearest = float(costs_K.max())
        return costs_K / dearest if dearest > 0 else np.zeros_like(costs_K)

    def add(self, arm: int, *, responses: int, seconds: float) -> None:
        """Count a call of a reward model."""
        self._responses_K[arm] += responses
        self._seconds_K[arm] += seconds
        self._latest_K[arm] += seconds if self._prices_K is None else responses * self._prices_K[arm]

    def take_latest_K(self) -> FloatArray:
        """Cost of all responses scored since the last call, shape (K,)."""
        latest_K, self._latest_K = self._latest_K, np.zeros(len(self._latest_K))
        return latest_K

    def state_dict(self) -> StateDict:
        """Seconds and responses of each reward model."""
        return {"cost_seconds": self._seconds_K.tolist(), "cost_responses": self._responses_K.tolist()}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises ValueError if it is of another pool."""
        seconds, responses = state["cost_seconds"], state["cost_responses"]
        if not len(seconds) == len(responses) == len(self._seconds_K):
            raise ValueError(f"it is of {len(seconds)} reward models, the pool has {len(self._seconds_K)}")
        self._seconds_K = np.array(seconds, dtype=np.float64)
        self._responses_K = np.array(responses, dtype=np.int64)

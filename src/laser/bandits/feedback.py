"""From losses to bandit rewards in [0, 1]: quantiles (arXiv 2410.01735, Sec. A.2) or z-scores per arm."""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.special import ndtr

from laser.core.types import FloatArray, IntArray, StateDict


class QuantileFeedback:
    """Scale -loss by the quantiles of its history.

    With history {-L(1), .., -L(t-1)}, q_lo and q_hi its 20th and 80th percentile:

        r = 0 if -L(t) < q_lo;  1 if -L(t) > q_hi;  else (-L(t) - q_lo) / (q_hi - q_lo).

    Source: arXiv 2410.01735, Sec. A.2. Decisions where it is silent: r = 0.5 with fewer than two entries, or if q_lo
    = q_hi = -L(t); quantiles interpolate linearly; a row without a pair gets 0 and leaves no entry: a reward
    model that orders nothing is worth nothing, and with any other bandit reward might be chosen forever. Deviation:
    an optional window.

    Args:
        low: Lower quantile.
        high: Upper quantile.
        window: Latest entries the quantiles see; None: all (the paper). Over the full history rewards saturate at 1
            as the loss falls.

    Raises:
        ValueError: Not 0 <= low < high <= 1, or a window of fewer than two entries.
    """

    def __init__(self, *, low: float = 0.2, high: float = 0.8, window: int | None = None) -> None:
        if not 0 <= low < high <= 1:
            raise ValueError(f"need 0 <= low < high <= 1: {low}, {high}")
        if window is not None and window < 2:
            raise ValueError(f"a window of {window} entries has no quantiles; need at least 2")
        self._quantiles = (low, high)
        self._history: deque[float] = deque(maxlen=window)

    def scale(self, losses_E: FloatArray, arms_E: IntArray) -> FloatArray:
        """Scale E losses against the history before them; see `Feedback.scale`. The arms play no part.

        Raises:
            ValueError: A loss is infinite; it would leave the quantiles without a value.
        """
        gains_E = _gains(losses_E)
        rewards_E = np.array([0.0 if np.isnan(gain) else self._scaled(gain) for gain in gains_E])
        self._history.extend(gains_E[~np.isnan(gains_E)].tolist())
        return rewards_E

    def _scaled(self, gain: float) -> float:
        if len(self._history) < 2:
            return 0.5
        low, high = np.quantile(self._history, self._quantiles)
        if gain < low:
            return 0.0
        if gain > high:
            return 1.0
        return float((gain - low) / (high - low)) if high > low else 0.5

    def state_dict(self) -> StateDict:
        """The history."""
        return {"history": np.array(self._history, dtype=np.float64)}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        self._history = deque(map(float, state["history"]), self._history.maxlen)


class ZScoreFeedback:
    """Scale -loss by the mean and deviation of the chosen arm's own latest losses.

    Loss levels differ between reward models: one whose pairs are easy to fit always looks good on a common scale. A
    z-score per arm asks instead whether this batch went better than that arm's usual ones.

    Source: arXiv 2510.02850 (BayesianRouter), per-arm moving z-score. Deviation: the z-score goes through the normal
    distribution function, so that bandit rewards stay in [0, 1]; with fewer than two entries, or no spread, it is 0.5.

    Args:
        window: Latest losses of an arm that count; None: all.

    Raises:
        ValueError: A window of fewer than two entries.
    """

    def __init__(self, *, window: int | None = 50) -> None:
        if window is not None and window < 2:
            raise ValueError(f"a window of {window} entries has no deviation; need at least 2")
        self._window = window
        self._history: dict[int, deque[float]] = {}

    def scale(self, losses_E: FloatArray, arms_E: IntArray) -> FloatArray:
        """Scale E losses; see `Feedback.scale`. A row without a pair gets 0 and leaves no entry.

        Raises:
            ValueError: A loss is infinite.
        """
        rows = list(zip(_gains(losses_E).tolist(), arms_E.tolist(), strict=True))
        rewards_E = np.array([0.0 if np.isnan(gain) else self._scaled(gain, arm) for gain, arm in rows])
        for gain, arm in rows:
            if not np.isnan(gain):
                self._history.setdefault(arm, deque(maxlen=self._window)).append(gain)
        return rewards_E

    def _scaled(self, gain: float, arm: int) -> float:
        history = self._history.get(arm, ())
        deviation = float(np.std(history, ddof=1)) if len(history) > 1 else 0.0
        return float(ndtr((gain - np.mean(history)) / deviation)) if deviation > 0 else 0.5

    def state_dict(self) -> StateDict:
        """The histories by arm."""
        return {str(arm): np.array(history, dtype=np.float64) for arm, history in self._history.items()}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        self._history = {int(arm): deque(map(float, history), self._window) for arm, history in state.items()}


def _gains(losses_E: FloatArray) -> FloatArray:
    gains_E = -np.asarray(losses_E, dtype=np.float64)
    if np.isinf(gains_E).any():
        raise ValueError("losses must be finite, or NaN where a row made no pair")
    return gains_E

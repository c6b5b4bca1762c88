"""The scores that reward models gave to the responses of a probe: each response is scored once."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from scipy import stats

from laser.core.files import to_json
from laser.core.types import BoolArray, FloatArray
from laser.rewards.pool import QuarantinedError, RewardPool
from laser.training.consensus import gold_gaps, share_agreeing
from laser.training.probe_items import Item

_FEWEST = 4  # prompts of a comparison


class ProbeScores:
    """Scores by reward model, item and response.

    Attributes:
        seconds_K: How long each reward model has scored, in this process.
    """

    def __init__(self, pool: RewardPool) -> None:
        self._pool = pool
        self._known: list[dict[str, dict[str, float]]] = [{} for _ in pool.names]  # by arm, item and response
        self.seconds_K: FloatArray = np.zeros(len(pool.names))

    def has(self, arm: int, items: Collection[Item]) -> bool:
        """Whether a reward model has scored all responses of the items."""
        return not any(self._missing(arm, item) for item in items)

    def rows(self, arm: int, items: Collection[Item]) -> list[FloatArray]:
        """Scores of each item's responses."""
        known = self._known[arm]
        return [np.array([known[item.key][text] for text in item.responses]) for item in items]

    def accuracies(self, arm: int, items: Collection[Item]) -> list[float]:
        """Pair accuracy on each of some items with right responses; NaN if the reward model has not scored all."""
        if not self.has(arm, items):
            return [float("nan")] * len(items)
        rows = zip(self.rows(arm, items), items, strict=True)
        return [share_agreeing(gold_gaps(row, item.num_right)) for row, item in rows]

    def take(self, arm: int, items: Collection[Item]) -> bool:
        """Let a reward model score what it has not scored; whether it has all scores afterwards.

        It has none if it is in quarantine, or has not given a single finite score yet, unless it abstained on every
        response.
        """
        missing = [(item, texts) for item in items if (texts := self._missing(arm, item))]
        if not missing:
            return True
        begin, abstained = time.perf_counter(), self._abstained(arm)
        try:
            scores = self._pool.score(arm, [item.prompt for item, _ in missing], [texts for _, texts in missing])
        except QuarantinedError:
            return False
        finally:
            self.seconds_K[arm] += time.perf_counter() - begin
        has_failed = self._abstained(arm) - abstained < sum(map(len, scores))
        if has_failed and not self._known[arm] and not any(np.isfinite(row).any() for row in scores):
            return False
        for (item, texts), row in zip(missing, scores, strict=True):
            self._known[arm].setdefault(item.key, {}).update(zip(texts, row.tolist(), strict=True))
        return True

    def keep(self, items: Collection[Item]) -> None:
        """Forget the scores of everything but the responses of these items."""
        kept = {item.key: item.responses for item in items}
        self._known = [
            {key: {text: of[text] for text in kept[key] if text in of} for key, of in by_item.items() if key in kept}
            for by_item in self._known
        ]

    def _abstained(self, arm: int) -> int:
        return self._pool.usage()[self._pool.names[arm]]["abstained"]

    def _missing(self, arm: int, item: Item) -> list[str]:
        known = self._known[arm].get(item.key, {})
        return [text for text in item.responses if text not in known]

    def as_state(self) -> Any:
        """JSON-able form."""
        return to_json([{key: list(of.items()) for key, of in by_item.items()} for by_item in self._known])

    def load(self, state: Sequence[Any]) -> None:
        """Restore what `as_state` gave."""
        self._known = [
            {
                key: {text: float("nan") if score is None else float(score) for text, score in rows}
                for key, rows in of.items()
            }
            for of in state
        ]


def clearly_behind(accuracies_KN: FloatArray) -> BoolArray:
    """Whether each reward model is clearly less accurate than the best one, shape (K,).

    It is where the mean difference over at least four prompts is below 0 by a one-sided t-test at the level 0.05.

    Args:
        accuracies_KN: Accuracy of K reward models on N prompts; NaN where one was not measured.
    """
    known_KN = np.isfinite(accuracies_KN)
    sums_K = np.where(known_KN, accuracies_KN, 0.0).sum(axis=1)
    means_K = np.divide(sums_K, known_KN.sum(axis=1), out=np.full(len(sums_K), -np.inf), where=known_KN.any(axis=1))
    gaps_KN = accuracies_KN - accuracies_KN[means_K.argmax()]
    behind_K = np.zeros(len(gaps_KN), dtype=bool)
    for arm, gaps in enumerate(gaps_KN):
        gaps_N = gaps[np.isfinite(gaps)]
        if len(gaps_N) >= _FEWEST:
            error = gaps_N.std(ddof=1) / np.sqrt(len(gaps_N))
            behind_K[arm] = gaps_N.mean() + stats.t.ppf(0.95, len(gaps_N) - 1) * error < 0
    return behind_K

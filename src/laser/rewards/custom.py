"""Reward models that the user wrote as a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from laser.core.errors import RewardModelError
from laser.core.types import FloatArray, Prompt
from laser.rewards.base import RewardModel, counts_of
from laser.rewards.user_code import UserCode, finished
from laser.rewards.values import as_list, as_number


class CustomRM:
    """Calls a user's reward model so that whatever it raises counts as its failure.

    It is never called with a prompt without responses, nor without prompts. While a call hangs in its thread, the
    reward model is neither moved nor released.

    Args:
        inner: The user's reward model.
        name: What error messages call it.
        code: Calls it; None: without a time limit.
    """

    def __init__(self, inner: RewardModel, name: str, code: UserCode | None = None) -> None:
        self._inner = inner
        self._subject = f"reward model {name!r}"
        self._code = code or UserCode(self._subject)
        self.counts = counts_of(inner)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. None becomes NaN and is counted as no opinion.

        Raises:
            RewardModelError: The reward model raised, took too long, or returned something that is not scores.
        """
        scores = [np.zeros(len(row)) for row in responses]
        filled = [place for place, row in enumerate(responses) if len(row)]
        if not filled:
            return scores
        asked = [prompts[place] for place in filled], [list(responses[place]) for place in filled]
        returned = self._code.call(lambda: self._rows(finished(self._inner.score(*asked))))
        if len(returned) != len(filled):
            raise RewardModelError(
                f"{self._subject} returned {len(returned)} rows for {len(filled)} prompts; return one row each"
            )
        for place, row in zip(filled, returned, strict=True):
            if len(row) != len(responses[place]):
                raise RewardModelError(
                    f"{self._subject} returned {len(row)} scores for {len(responses[place])} responses; return one each"
                )
            self.counts.abstained += row.count(None)
            scores[place] = np.array(row, dtype=np.float64)  # None becomes NaN
        return scores

    def release(self) -> None:
        """Release the reward model."""
        self._unless_busy(self._inner.release)

    def park(self) -> None:
        """Park the reward model."""
        self._unless_busy(self._inner.park)

    def unpark(self) -> None:
        """Unpark the reward model."""
        self._unless_busy(self._inner.unpark)

    def _unless_busy(self, move: Callable[[], None]) -> None:
        if not self._code.busy:
            self._code.call(move)

    def _rows(self, returned: Any) -> list[list[float | None]]:
        if isinstance(returned, np.ndarray | torch.Tensor) and returned.ndim == 2:
            returned = list(returned)
        rows = as_list(returned, self._subject)
        return [[as_number(value, self._subject) for value in as_list(row, self._subject)] for row in rows]

"""The reward model role: prompts and responses in, scores out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from laser.types import FloatArray, Prompt


class RewardModel(Protocol):
    """Scores responses. Higher is better; the scale is the model's own.

    Implementations hold device memory only between construction and `release`; `RewardPool` builds and releases them.
    """

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score the responses of each prompt.

        Args:
            prompts: B prompts.
            responses: For each prompt, its responses as text; inner lengths may differ and may be zero.

        Returns:
            B float64 arrays, one score per response. NaN marks a response that could not be scored; a failure is
            never turned into a number.
        """
        ...

    def release(self) -> None:
        """Drop weights and caches; the object is not used afterwards."""
        ...

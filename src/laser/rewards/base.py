"""The reward model role: prompts and responses in, scores out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from laser.core.types import FloatArray, Prompt


@dataclass(slots=True)
class TrainingStep:
    """Where the training is while reward models score; zeros and None outside training.

    Attributes:
        iteration: As in ``steps.jsonl``.
        step: As in ``steps.jsonl``: the batch within its iteration.
        num_batches: Batches since the run began.
        last: Batches of the whole run, if it does not stop early.
    """

    iteration: int = 0
    step: int = 0
    num_batches: int = 0
    last: int | None = None

    def move(self, iteration: int, step: int, num_batches: int, last: int) -> None:
        """Record where the training is now."""
        self.iteration, self.step, self.num_batches, self.last = iteration, step, num_batches, last


@dataclass(slots=True)
class Counts:
    """What a reward model counts for the pool, as its attribute `counts`; a wrapper has the attribute of what it wraps.

    Attributes:
        tokens: Tokens that a server billed.
        too_long: Responses that did not fit its window behind their prompt, or whose prompt or reference did not: left
            out, or scored with their prompt cut.
        abstained: Responses on which it had no opinion, which is not a failure.
    """

    tokens: int = 0
    too_long: int = 0
    abstained: int = 0

    def take(self) -> Counts:
        """The counts since the last call."""
        taken = replace(self)
        self.tokens = self.too_long = self.abstained = 0
        return taken


def counts_of(model: object) -> Counts:
    """The counts of a reward model; new ones for a reward model without any."""
    counts = getattr(model, "counts", None)
    return counts if isinstance(counts, Counts) else Counts()


class RewardModel(Protocol):
    """Scores responses. Higher is better; the scale depends on the model.

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

    def release(self) -> None:
        """Drop weights and caches; the object is not used afterwards."""

    def park(self) -> None:
        """Move weights to CPU memory; `unpark` comes before the next `score`."""

    def unpark(self) -> None:
        """Move weights back to their device."""


class NoWeights:
    """What a reward model without weights in this process inherits: nothing to move."""

    def park(self) -> None:
        """Nothing to move."""

    def unpark(self) -> None:
        """Nothing to move."""

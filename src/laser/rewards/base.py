"""The reward model role: prompts and responses in, scores out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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
        ...

    def release(self) -> None:
        """Drop weights and caches; the object is not used afterwards."""
        ...

    def park(self) -> None:
        """Move weights to CPU memory; `unpark` comes before the next `score`."""
        ...

    def unpark(self) -> None:
        """Move weights back to their device."""
        ...


class NoWeights:
    """What a reward model without weights in this process inherits: nothing to move."""

    def park(self) -> None:
        """Nothing to move."""

    def unpark(self) -> None:
        """Nothing to move."""


class TextCounts:
    """What a reward model inherits that counts texts without words, and texts beyond its window."""

    _num_too_long = 0
    _num_abstained = 0

    def take_too_long(self) -> int:
        """Responses since the last call that did not fit the window, or whose prompt or reference did not."""
        count, self._num_too_long = self._num_too_long, 0
        return count

    def take_abstained(self) -> int:
        """Responses since the last call without an opinion: a text, prompt or reference without words."""
        count, self._num_abstained = self._num_abstained, 0
        return count


@runtime_checkable
class Metered(Protocol):
    """A reward model that a server bills by the token."""

    def take_tokens(self) -> int:
        """Tokens billed since the last call."""
        ...


@runtime_checkable
class Windowed(Protocol):
    """A reward model that reads a limited number of tokens."""

    def take_too_long(self) -> int:
        """Responses since the last call that did not fit its window: left out, or scored with their prompt cut."""
        ...


@runtime_checkable
class Abstaining(Protocol):
    """A reward model that can say that it has no opinion, which is not a failure."""

    def take_abstained(self) -> int:
        """Responses it had no opinion on since the pool last looked."""
        ...

"""What happens to conversations longer than a reward model's window: one rule for every model that reads tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Overflow = Literal["skip", "cut_prompt"]


@dataclass(frozen=True, slots=True)
class Fit:
    """How the responses to one prompt fit the window.

    Attributes:
        cut: Tokens to take from the beginning of the prompt, the same for all its responses, so that what they are
            judged on is the same.
        scored: Which responses are scored.
        num_too_long: Responses that did not fit behind the whole prompt, scored or not.
    """

    cut: int
    scored: tuple[bool, ...]
    num_too_long: int


def fit(prompt_length: int, response_lengths: Sequence[int], limit: int, overflow: Overflow, *, kept: int = 1) -> Fit:
    """Decide what of a prompt and its responses goes into a window. A response is never cut.

    Args:
        prompt_length: Tokens of the prompt.
        response_lengths: Tokens of each response and what follows it; 0 for one that is not to be scored.
        limit: Tokens of the window.
        overflow: "skip": a response that does not fit is not scored; "cut_prompt": the prompt loses its beginning.
        kept: Prompt tokens that are never cut.
    """
    too_long = [length > 0 and prompt_length + length > limit for length in response_lengths]
    if overflow == "skip":
        scored = [length > 0 and not over for length, over in zip(response_lengths, too_long, strict=True)]
        return Fit(0, tuple(scored), sum(too_long))
    scored = [0 < length <= limit - min(kept, prompt_length) for length in response_lengths]
    longest = max((length for length, chosen in zip(response_lengths, scored, strict=True) if chosen), default=0)
    cut = max(0, prompt_length + longest - limit) if longest else 0
    return Fit(cut, tuple(scored), sum(too_long))


def without_beginning(ids: Sequence[int], cut: int, start: int | None) -> list[int]:
    """Token ids without their first `cut`; a leading `start` token stays and others go in its place."""
    kept = 1 if ids and ids[0] == start else 0
    return [*ids[:kept], *ids[kept + cut :]]

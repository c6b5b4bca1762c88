"""Reward models that the user wrote as a class."""

from __future__ import annotations

from collections.abc import Sequence

from laser.core.errors import LaserError, RewardModelError
from laser.core.types import FloatArray, Prompt
from laser.rewards.base import Metered, RewardModel, Windowed
from laser.rewards.user_code import TimeLimit, TimeLimitError


class CustomRM:
    """Tells what a user's reward model raises with its name, so that the pool can count it as a failure.

    Args:
        inner: The user's reward model.
        name: What error messages call it.
        limit: How long a call of `score` may take. While one hangs, the reward model is not asked to move or to
            let go of anything.
    """

    def __init__(self, inner: RewardModel, name: str, limit: TimeLimit | None = None) -> None:
        self._inner = inner
        self._name = name
        self._limit = limit or TimeLimit()

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`.

        Raises:
            RewardModelError: The reward model raised, or took too long.
        """
        try:
            return self._limit.call(lambda: self._inner.score(prompts, responses))
        except LaserError:
            raise
        except TimeLimitError as error:
            raise RewardModelError(
                f"reward model {self._name!r} took longer than {self._limit.seconds:g} s; speed it up or raise its "
                "timeout"
            ) from error
        except Exception as error:  # the class is the user's: whatever it raises is told with its name
            raise RewardModelError(f"reward model {self._name!r} raised {type(error).__name__}: {error}") from error

    def take_too_long(self) -> int:
        """Responses that did not fit the reward model's window."""
        return self._inner.take_too_long() if isinstance(self._inner, Windowed) else 0

    def take_tokens(self) -> int:
        """Tokens that a server billed for the reward model."""
        return self._inner.take_tokens() if isinstance(self._inner, Metered) else 0

    def release(self) -> None:
        """Release the reward model."""
        if not self._limit.busy:
            self._inner.release()

    def park(self) -> None:
        """Park the reward model."""
        if not self._limit.busy:
            self._inner.park()

    def unpark(self) -> None:
        """Unpark the reward model."""
        if not self._limit.busy:
            self._inner.unpark()

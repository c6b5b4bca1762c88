"""Python functions as reward models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from laser.core.errors import RewardModelError
from laser.core.types import FloatArray, Prompt
from laser.rewards.base import Counts, NoWeights, TrainingStep
from laser.rewards.signatures import Batch, calling
from laser.rewards.user_code import UserCode, finished
from laser.rewards.values import as_list, as_number, split_rows


class FunctionRM(NoWeights):
    """Scores with a Python function.

    Args:
        function: Called with flat lists of equal length, as its signature says (`laser.rewards.signatures.calling`);
            returns one number per response, None where it has no opinion. It may be ``async``. A class is called
            without arguments and must give an object with ``__call__``.
        name: What error messages call it.
        code: Calls it; None: without a time limit.
        at: Where the training is; the loop keeps it up to date.

    Raises:
        RewardModelError: Its signature is not understood.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        code: UserCode | None = None,
        at: TrainingStep | None = None,
    ) -> None:
        self._subject = f"reward function {name!r}"
        self._code = code or UserCode(self._subject)
        self._call = calling(_callable(function, self._code, self._subject), self._subject)
        self._at = at or TrainingStep()
        self.counts = Counts()

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. None becomes NaN and is counted as no opinion.

        Raises:
            RewardModelError: The function raised, or returned another number of scores or something that is not a
                number.
        """
        flat_prompts = [prompt for prompt, row in zip(prompts, responses, strict=True) for _ in row]
        flat_responses = [text for row in responses for text in row]
        scores = self._scores(Batch(flat_prompts, flat_responses, self._at)) if flat_responses else []
        self.counts.abstained += scores.count(None)
        return split_rows(scores, responses)

    def release(self) -> None:
        """Nothing to drop."""

    def _scores(self, batch: Batch) -> list[float | None]:
        count = len(batch.responses)
        returned = self._code.call(lambda: as_list(finished(self._call(batch)), self._subject))
        if len(returned) != count:
            raise RewardModelError(
                f"{self._subject} returned {len(returned)} scores for {count} responses; return one each"
            )
        return [as_number(value, self._subject) for value in returned]


def _callable(function: Callable[..., Any], code: UserCode, subject: str) -> Callable[..., Any]:
    """The function itself, or an object of the class."""
    made = code.call(function) if inspect.isclass(function) else function
    if not callable(made):
        raise RewardModelError(f"{subject} is a {type(made).__name__} without __call__; add it, or set type = 'python'")
    return made

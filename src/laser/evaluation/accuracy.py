"""Accuracy of answers on prompts with gold answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from laser.core.errors import DataError
from laser.core.statistics import wilson_interval
from laser.core.types import Prompt
from laser.data.tasks import AnswerFormat
from laser.evaluation.answers import Reader
from laser.evaluation.metrics import check_gold
from laser.evaluation.unreadable import Unreadable, collect_unreadable

MAX_KEPT = 10_000
"""Most prompts whose outcome a record keeps one by one, so that a line of evaluations.jsonl stays below a megabyte."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of correct answers, in [0, 1].

    Attributes:
        overall: Over all prompts, in [0, 1].
        by_category: Over the prompts of each category.
        num_prompts: Number of prompts.
        unreadable: Responses whose answer cannot be read; they count as wrong.
        interval: 95% Wilson score interval of `overall`.
        correct: For each prompt by its id, 1 if its answer is right and 0 if not; what
            `laser.core.statistics.paired_change` compares two checks by.
    """

    overall: float
    by_category: dict[str, float]
    num_prompts: int
    unreadable: Unreadable
    interval: tuple[float, float]
    correct: dict[str, int]

    def as_record(self) -> dict[str, Any]:
        """JSON-able form for evaluations.jsonl; `correct` only up to `MAX_KEPT` prompts."""
        return {
            "accuracy": self.overall,
            "by_category": self.by_category,
            "num_prompts": self.num_prompts,
            **self.unreadable.as_record(),
            "interval": list(self.interval),
            **({"correct": self.correct} if len(self.correct) <= MAX_KEPT else {}),
        }


def accuracy(
    generate: Callable[[Sequence[Prompt]], Sequence[str]],
    prompts: Sequence[Prompt],
    answer_format: AnswerFormat = "auto",
) -> Accuracy:
    """Measure accuracy.

    Args:
        generate: Prompts to response texts, in batches as it likes.
        prompts: At least one, each with a gold answer.
        answer_format: Where in a response its answer is.

    Raises:
        DataError: There is no prompt, or one has no usable gold answer.
    """
    if not prompts:
        raise DataError("there are no prompts to evaluate on; raise split.dev")
    check_gold(prompts, "accuracy", "dev")
    reader = Reader(answer_format, prompts)
    texts = generate(prompts)
    read = [reader.read(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    rows = [(prompt, int(one.is_right)) for prompt, one in zip(prompts, read, strict=True)]
    right = [ok for _, ok in rows]
    categories = sorted({prompt.category for prompt in prompts})
    return Accuracy(
        overall=sum(right) / len(right),
        by_category={name: _mean([ok for prompt, ok in rows if prompt.category == name]) for name in categories},
        num_prompts=len(right),
        unreadable=collect_unreadable(
            (prompt.id, one.problem, text) for prompt, one, text in zip(prompts, read, texts, strict=True)
        ),
        interval=wilson_interval(sum(right), len(right)),
        correct={prompt.id: ok for prompt, ok in rows},
    )


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)

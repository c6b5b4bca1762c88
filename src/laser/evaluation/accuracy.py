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
        num_answers: Number of answers, one or more to each prompt.
        unreadable: Responses whose answer cannot be read; they count as wrong.
        interval: 95% Wilson score interval of `overall`, with prompts as its trials: wider than needed where each has
            several answers.
        correct: For each prompt by its id, the share of its answers that are right; what
            `laser.core.statistics.paired_change` compares two checks by.
    """

    overall: float
    by_category: dict[str, float]
    num_prompts: int
    num_answers: int
    unreadable: Unreadable
    interval: tuple[float, float]
    correct: dict[str, float]

    def as_record(self) -> dict[str, Any]:
        """JSON-able form for evaluations.jsonl; `correct` only up to `MAX_KEPT` prompts."""
        return {
            "accuracy": self.overall,
            "by_category": self.by_category,
            "num_prompts": self.num_prompts,
            "num_answers": self.num_answers,
            **self.unreadable.as_record(),
            "interval": list(self.interval),
            **({"correct": self.correct} if len(self.correct) <= MAX_KEPT else {}),
        }


def accuracy(
    generate: Callable[[Sequence[Prompt]], Sequence[str]],
    prompts: Sequence[Prompt],
    answer_format: AnswerFormat = "auto",
    *,
    samples: int = 1,
) -> Accuracy:
    """Measure accuracy.

    Args:
        generate: Prompts to response texts, `samples` for each prompt in turn, in batches as it likes.
        prompts: At least one, each with a gold answer.
        answer_format: Where in a response its answer is.
        samples: Answers to each prompt.

    Raises:
        DataError: There is no prompt, or one has no usable gold answer.
    """
    if not prompts:
        raise DataError("there are no prompts to evaluate on; raise split.dev")
    check_gold(prompts, "accuracy", "dev")
    reader = Reader(answer_format, prompts)
    asked = [prompt for prompt in prompts for _ in range(samples)]
    texts = generate(prompts)
    read = [reader.read(prompt, text) for prompt, text in zip(asked, texts, strict=True)]
    shares = [_mean([one.is_right for one in read[row : row + samples]]) for row in range(0, len(asked), samples)]
    by_category: dict[str, list[float]] = {}
    for prompt, share in zip(prompts, shares, strict=True):
        by_category.setdefault(prompt.category, []).append(share)
    return Accuracy(
        overall=_mean(shares),
        by_category={name: _mean(by_category[name]) for name in sorted(by_category)},
        num_prompts=len(prompts),
        num_answers=len(asked),
        unreadable=collect_unreadable(
            (prompt.id, one.problem, text) for prompt, one, text in zip(asked, read, texts, strict=True)
        ),
        interval=wilson_interval(sum(shares), len(prompts)),
        correct={prompt.id: share for prompt, share in zip(prompts, shares, strict=True)},
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

"""A metric over prompts: overall, by category, against another policy on the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from laser.core.statistics import PairedChange, Share, mean_share, paired_change
from laser.core.types import Prompt
from laser.data.tasks import AnswerFormat, MetricName
from laser.evaluation.metrics import check_gold, make_metric
from laser.evaluation.unreadable import Unreadable, collect_unreadable


@dataclass(frozen=True, slots=True)
class Measured:
    """One policy's responses, measured against gold answers.

    Attributes:
        overall: Mean metric over all prompts; Wilson interval for accuracy, bootstrap otherwise.
        by_category: The same over the prompts of each category.
        unreadable: Responses whose answer cannot be read; they have value 0.
        num_truncated: Responses cut at the token limit; measured as they are.
        values: Metric of each prompt, in their order.
    """

    overall: Share
    by_category: dict[str, Share]
    unreadable: Unreadable
    num_truncated: int
    values: tuple[float, ...]

    def as_record(self) -> dict[str, Any]:
        """JSON-able form."""
        fields = asdict(self)
        del fields["unreadable"]
        return {**fields, **self.unreadable.as_record()}


def measure(
    prompts: Sequence[Prompt],
    texts: Sequence[str],
    finished: Sequence[bool],
    *,
    metric: MetricName,
    answer_format: AnswerFormat,
    seed: int,
) -> Measured:
    """Measure responses.

    Args:
        prompts: With gold answers.
        texts: One response each.
        finished: False where a response was cut at the token limit.
        metric: Accuracy of the final answer, token F1, or Rouge-L.
        answer_format: Where in a response its answer is, for accuracy; the others measure the whole response.
        seed: Seeds the bootstrap.

    Raises:
        DataError: There are no prompts, one has no gold answer, or a package for the metric is missing.
    """
    check_gold(prompts, metric, "test")
    value = make_metric(metric, answer_format, prompts)
    found = [value(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    values_N = np.array([one.value for one in found], dtype=np.float64)
    is_proportion = metric == "accuracy"
    categories = np.array([prompt.category for prompt in prompts])
    return Measured(
        overall=mean_share(values_N, seed=seed, is_proportion=is_proportion),
        by_category={
            str(name): mean_share(values_N[categories == name], seed=seed, is_proportion=is_proportion)
            for name in np.unique(categories)
        },
        unreadable=collect_unreadable(
            (prompt.id, one.problem, text) for prompt, one, text in zip(prompts, found, texts, strict=True)
        ),
        num_truncated=sum(not whole for whole in finished),
        values=tuple(values_N.tolist()),
    )


def change(before: Measured, after: Measured, *, seed: int) -> PairedChange:
    """How the metric differs between two policies that answered the same prompts in the same order."""
    found = paired_change(dict(enumerate(before.values)), dict(enumerate(after.values)), seed=seed)
    assert found is not None  # `measure` refuses no prompts
    return found

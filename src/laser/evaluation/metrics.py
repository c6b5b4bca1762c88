"""How good one response is: exact answers, token F1, Rouge-L."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from laser.core.errors import DataError
from laser.core.types import Prompt
from laser.evaluation.answers import AnswerFormat, answer_check
from laser.evaluation.words import normalized_words

MetricName = Literal["accuracy", "f1", "rouge_l"]
Metric = Callable[[Prompt, str], float]
"""Value of a response in [0, 1]."""

ORACLE, ONE_SAMPLE = "oracle", "one sample"
"""Rows beside the methods of a best-of-n comparison: the best response of all, and one at random."""


def make_metric(name: MetricName, answer_format: AnswerFormat) -> Metric:
    """Make a metric against gold answers.

    Args:
        name: "accuracy" of the final answer; "f1" of tokens and "rouge_l", as LongBench measures them: against the
            best of several gold answers, which a prompt may list as `metadata["answers"]`.
        answer_format: Where in a response its answer is, for accuracy.

    Raises:
        DataError: Rouge-L without the package rouge-score.
    """
    if name == "accuracy":
        is_right = answer_check(answer_format)
        return lambda prompt, text: float(is_right(prompt, text))
    compare = token_f1 if name == "f1" else rouge_l()
    return lambda prompt, text: max(compare(text, gold) for gold in gold_answers(prompt))


def check_gold(prompts: Sequence[Prompt], metric: MetricName, kind: str) -> None:
    """Make sure that every prompt has what a metric compares with, before anything is sampled.

    Args:
        prompts: Prompts to be measured on.
        metric: The metric; accuracy needs a single answer.
        kind: What they are, for the message: "dev" or "test".

    Raises:
        DataError: Some have no gold answer; counts them and names the first.
    """
    lacking = [prompt for prompt in prompts if prompt.answer is None and (metric == "accuracy" or not _several(prompt))]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(prompts)} {kind} prompts have no gold answer to measure against, the first "
            f"{lacking[0].id!r}; give them one in the field that data.answer_field names, or set split.{kind} = 0"
        )


def _several(prompt: Prompt) -> list[str]:
    several = prompt.metadata.get("answers")
    return [str(one) for one in several] if isinstance(several, list | tuple) else []


def gold_answers(prompt: Prompt) -> list[str]:
    """All gold answers of a prompt.

    Raises:
        DataError: It has none.
    """
    if several := _several(prompt):
        return several
    if prompt.answer is None:
        raise DataError(f"prompt {prompt.id!r} has no gold answer to measure against; give it one")
    return [prompt.answer]


def token_f1(text: str, gold: str) -> float:
    """Harmonic mean of precision and recall over words; case, punctuation and English articles aside (SQuAD)."""
    words, gold_words = normalized_words(text), normalized_words(gold)
    if not words or not gold_words:
        return float(words == gold_words)
    common = sum((Counter(words) & Counter(gold_words)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(words), common / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def rouge_l() -> Callable[[str, str], float]:
    """Rouge-L F-measure by the package rouge-score.

    Raises:
        DataError: It is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise DataError(
            "Rouge-L needs the package rouge-score; install it with: pip install 'laser-rm[eval]'"
        ) from error
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return lambda text, gold: float(scorer.score(gold, text)["rougeL"].fmeasure)

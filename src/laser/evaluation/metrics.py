"""How good one response is: exact answers, token F1, Rouge-L."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from laser.core.errors import DataError
from laser.core.types import Prompt
from laser.data.tasks import AnswerFormat, MetricName
from laser.evaluation.answers import Reader, accepted_answers, check_type
from laser.evaluation.numbers import UnreadableError
from laser.evaluation.places import spoken
from laser.evaluation.words import script_words, squad_words


@dataclass(frozen=True, slots=True)
class Value:
    """How good one response is.

    Attributes:
        value: In [0, 1].
        problem: A clause that says why the response cannot be read; "" where it can.
    """

    value: float
    problem: str = ""


Metric = Callable[[Prompt, str], Value]

ORACLE, ONE_SAMPLE = "oracle", "one sample"
"""Reference rows of a best-of-n comparison: the best response of all, and one at random."""


def make_metric(name: MetricName, answer_format: AnswerFormat, prompts: Iterable[Prompt] | None = None) -> Metric:
    """Make a metric against gold answers.

    Args:
        name: "accuracy" of the answer; "f1" of tokens and "rouge_l", as LongBench measures them: against the best of
            several gold answers, of the response without what the model thought before it.
        answer_format: Where in a response its answer is, for accuracy.
        prompts: The split, whose gold answers decide what an answer is where nothing says it.

    Raises:
        DataError: Rouge-L without the package rouge-score.
    """
    if name == "accuracy":
        reader = Reader(answer_format, prompts)

        def is_right(prompt: Prompt, text: str) -> Value:
            read = reader.read(prompt, text)
            return Value(float(read.is_right), read.problem)

        return is_right
    compare = token_f1 if name == "f1" else rouge_l()

    def overlap(prompt: Prompt, text: str) -> Value:
        try:
            said = spoken(text)
        except UnreadableError as error:
            return Value(0.0, str(error))
        value = max(compare(said, gold) for gold in gold_answers(prompt))
        return Value(value, "" if said.strip() else "the response is empty")

    return overlap


def check_gold(prompts: Sequence[Prompt], metric: MetricName, kind: str) -> None:
    """Make sure that every prompt has a usable gold answer, before anything is sampled.

    Args:
        prompts: Prompts to be measured on.
        metric: The metric.
        kind: What they are, for the message: "dev" or "test".

    Raises:
        DataError: Some have no gold answer, or one that is not of its `answer_type`; names the first.
    """
    lacking = [prompt for prompt in prompts if not accepted_answers(prompt)]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(prompts)} {kind} prompts have no gold answer to measure against, the first "
            f"{lacking[0].id!r}; give them one in the field that data.answer_field names, or set split.{kind} = 0"
        )
    if metric == "accuracy":
        for prompt in prompts:
            problem = check_type(prompt)
            if problem is not None:
                raise DataError(
                    f"the gold answer of {kind} prompt {prompt.id!r} cannot be used: {problem}, and its answer_type is "
                    f"{prompt.metadata['answer_type']!r}; correct the answer, or set data.answer_type"
                )


def gold_answers(prompt: Prompt) -> list[str]:
    """`accepted_answers`, at least one.

    Raises:
        DataError: It has none.
    """
    golds = accepted_answers(prompt)
    if not golds:
        raise DataError(f"prompt {prompt.id!r} has no gold answer to measure against; give it one")
    return golds


def token_f1(text: str, gold: str) -> float:
    """Harmonic mean of precision and recall over words; case, punctuation and English articles aside (SQuAD)."""
    words, gold_words = squad_words(text), squad_words(gold)
    if not words or not gold_words:
        return float(words == gold_words)
    common = sum((Counter(words) & Counter(gold_words)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(words), common / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def rouge_l() -> Callable[[str, str], float]:
    """Rouge-L F-measure by the package rouge-score, over words of any script.

    Its own tokenizer drops everything but a-z and 0-9; ours gives the same words for text of these and stems them too.
    A gold answer without words, such as an emoji or a sign, is matched as a whole: 0 or 1.

    Raises:
        DataError: It is not installed.
    """
    try:
        from nltk.stem.porter import PorterStemmer
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise DataError(
            "Rouge-L needs the package rouge-score; install it with: pip install 'laser-rm[eval]'"
        ) from error
    scorer = RougeScorer(["rougeL"], tokenizer=_StemmedWords(PorterStemmer()))

    def measure(text: str, gold: str) -> float:
        if not script_words(gold):
            return float(text.strip() == gold.strip())
        return float(scorer.score(gold, text)["rougeL"].fmeasure)

    return measure


class _StemmedWords:
    """Tokenizer for rouge-score: words of any script, English ones stemmed as its default tokenizer does."""

    def __init__(self, stemmer: Any) -> None:
        self._stemmer = stemmer

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        words = script_words(text)
        return [self._stemmer.stem(word) if len(word) > 3 and word.isascii() else word for word in words]

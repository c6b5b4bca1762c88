"""Cheap properties of a response's text: length, format, variety, language."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from laser.core.errors import RewardModelError
from laser.core.types import Prompt

TextMetric = Callable[[str], float]
"""From a text with at least one visible character to its score; higher is better."""


def on_responses(metric: TextMetric) -> Callable[[Sequence[Prompt], Sequence[str]], list[float | None]]:
    """A metric as a reward function; it has no opinion on blank responses."""

    def score(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float | None]:
        return [metric(text) if text.strip() else None for text in responses]

    return score


@dataclass(frozen=True, slots=True)
class Length:
    """n, -n, or -|n - target| for a text of length n.

    Attributes:
        count: Measures a text.
        prefer: Which length is better.
        target: The best length, for `prefer` = "target".
    """

    count: Callable[[str], int]
    prefer: Literal["longer", "shorter", "target"] = "longer"
    target: int | None = None

    def __call__(self, text: str) -> float:
        """Score a text."""
        length = self.count(text)
        if self.prefer == "target":
            assert self.target is not None
            return -float(abs(length - self.target))
        return float(length if self.prefer == "longer" else -length)


def count_words(text: str) -> int:
    """Number of words, separated by blanks."""
    return len(text.split())


@dataclass(frozen=True, slots=True)
class Format:
    """1 if a regular expression is found in the text (or is not, as wanted), else 0.

    Attributes:
        pattern: Searched anywhere; ``^`` and ``$`` match at line ends.
        expect: Whether it should be there.
    """

    pattern: str
    expect: Literal["present", "absent"] = "present"

    def __call__(self, text: str) -> float:
        """Score a text."""
        found = re.search(self.pattern, text, re.MULTILINE) is not None
        return float(found == (self.expect == "present"))


@dataclass(frozen=True, slots=True)
class DistinctNgrams:
    """Share of a text's n-grams of words that are distinct (distinct-n, arXiv 1510.03055); 1 - seq-rep-n of 1908.04319.

    A text of fewer than n words repeats nothing and scores 1. Letter case does not count.

    Attributes:
        n: Words of an n-gram.
    """

    n: int = 3

    def __call__(self, text: str) -> float:
        """Score a text."""
        words = text.lower().split()
        ngrams = [tuple(words[begin : begin + self.n]) for begin in range(len(words) - self.n + 1)]
        return len(set(ngrams)) / len(ngrams) if ngrams else 1.0


class Language:
    """log p(language | text) of py3langid, a naive Bayes classifier over bytes (Lui and Baldwin, ACL 2012).

    Raises:
        RewardModelError: py3langid is not installed, or does not know the language.
    """

    def __init__(self, language: str) -> None:
        self._identifier = _identifier()
        self._language = language
        if language not in self._identifier.labels:
            raise RewardModelError(f"language {language!r} is unknown; write its ISO 639 code, such as 'en'")

    def __call__(self, text: str) -> float:
        """Score a text."""
        probabilities = dict(self._identifier.rank(text))
        return math.log(max(float(probabilities[self._language]), 1e-12))  # of float32, which may be 0


@cache
def _identifier() -> Any:
    """The model of py3langid, which takes a second to load and is never changed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise RewardModelError(
            "metric = 'language' needs the package py3langid; install it with: pip install 'laser-rm[metrics]'"
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

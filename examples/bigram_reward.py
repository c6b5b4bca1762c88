"""A reward model with weights: mean log-probability of the response's characters under bigrams of a text file."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from laser.extend import FloatArray, NoWeights, Prompt


class BigramRM(NoWeights):  # nothing is on a device, so `park` and `unpark` have nothing to move
    def __init__(self, corpus: str) -> None:
        self._pairs = Counter(pairwise(corpus))
        self._firsts = Counter(corpus)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        return [np.array([self._fluency(text) for text in row]) for row in responses]

    def release(self) -> None:
        self._pairs.clear()

    def _fluency(self, text: str) -> float:
        if len(text) < 2:
            return float("nan")  # too short to score; NaN is never turned into a number
        odds = [(self._pairs[pair] + 1) / (self._firsts[pair[0]] + 256) for pair in pairwise(text)]
        return float(np.mean(np.log(odds)))


def make() -> BigramRM:
    return BigramRM(Path(__file__).read_text(encoding="utf-8"))  # put your corpus here

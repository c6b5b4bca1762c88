"""Two Python reward functions of the demo; neither sees a gold answer.

They show the contract: flat lists of prompts and responses in, one number per response out, None for no opinion.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

from laser.extend import Prompt

_LOG_UNIT = math.log(1.0001)  # pocketsphinx counts log-probabilities in powers of 1.0001
_UNKNOWN = -12.0  # nats for a word the model does not know
_FINAL = re.compile(r"^final answer:\s*(\S.*)$", re.IGNORECASE | re.MULTILINE)
_CLAIM = re.compile(r"(\d{1,6})\s*(\+|-|times|\*|x)\s*(\d{1,6})\s*=\s*(-?\d{1,12})(?!\d)")
_COMPARISON = re.compile(r"(\d{1,6}) is (greater|less) than (\d{1,6})")


def checker(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    """Check form and arithmetic: what a careful reader sees without knowing the answer.

    One "Final answer: ..." line, short and last; claims such as "4 + 3 = 7" or "9 is less than 12" true; numbers of
    the claims taken from the question; the final answer the claim's result.
    """
    return [_check(prompt.text, response) for prompt, response in zip(prompts, responses, strict=True)]


def _check(question: str, response: str) -> float:
    finals = _FINAL.findall(response)
    score = 1.0 if len(finals) == 1 else 0.0
    if finals:
        last = response.rstrip().splitlines()[-1]
        score += 0.5 * bool(_FINAL.match(last)) + 0.5 * (len(finals[-1]) <= 24)
    for left, operator, right, result in _CLAIM.findall(response):
        true = _evaluate(int(left), operator, int(right)) == int(result)
        asked = left in question and right in question
        score += (1.0 if true else -1.0) + (0.5 if asked else -0.5)
        score += 0.5 * bool(finals and finals[-1].rstrip(". ") == result)
    for left, relation, right in _COMPARISON.findall(response):
        score += 1.0 if (int(left) > int(right)) == (relation == "greater") and left != right else -1.0
    return score - 0.002 * len(response)


def _evaluate(left: int, operator: str, right: int) -> int:
    return {"+": left + right, "-": left - right}.get(operator, left * right)


def trigram(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float | None]:
    """Mean log-probability per word under the English trigram model that pocketsphinx ships.

    A real n-gram language model, and an honest weak judge: it knows fluent English and nothing about the question. The
    answer line is form, not prose, and is left to others.
    """
    return [_fluency(response) for response in responses]


def _fluency(response: str) -> float | None:
    words = re.findall(r"[a-z']+", _FINAL.sub("", response).lower())
    if not words:
        return None
    model = _ngram_model()
    history = ["<s>", *words]
    logps = [
        _LOG_UNIT * model.prob(history[i::-1][:3]) for i in range(1, len(history))
    ]  # the word, then the two before
    return sum(max(float(logp), _UNKNOWN) for logp in logps) / len(words)


@functools.cache
def _ngram_model() -> Any:
    from pocketsphinx import NGramModel, get_model_path

    return NGramModel.readfile(get_model_path("en-us/en-us.lm.bin"))

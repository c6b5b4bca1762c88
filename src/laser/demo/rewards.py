"""Three Python reward functions of the demo; none sees a gold answer.

They show the contract: flat lists of prompts and responses in, one number per response out, None for no opinion. Two
are experts in one field each, as a verifier of mathematics or of code is. Like a learned reward model, they give a
score outside their field too, where it is worth nothing: they rate style.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from laser.extend import Prompt

_LOG_UNIT = math.log(1.0001)  # pocketsphinx counts log-probabilities in powers of 1.0001
_UNKNOWN = -12.0  # nats for a word the model does not know
_FINAL = re.compile(r"^final answer:\s*(\S.*)$", re.IGNORECASE | re.MULTILINE)
_SUM = re.compile(r"(\d+) (\+|-|times) (\d+)\?")
_COMPARISON = re.compile(r"(\d+) (greater|less) than (\d+)\?")
_QUOTED = re.compile(r'"([^"]+)"')


def numbers(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    """An expert in numbers: 1 for the final answer that a calculator gives, 0 for another.

    It works out sums, products and comparisons of two numbers. Of any other question it rates the style.
    """
    return [_grade(_calculated, prompt, response) for prompt, response in zip(prompts, responses, strict=True)]


def words(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    """An expert in quoted words: 1 for the final answer that follows from the words of the question, 0 for another.

    It finds the first and the last word, swaps words and writes capital letters. Of any other question it rates the
    style.
    """
    return [_grade(_rearranged, prompt, response) for prompt, response in zip(prompts, responses, strict=True)]


def fluency(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float | None]:
    """Mean log-probability per word under the English trigram model that pocketsphinx ships.

    A real n-gram language model that misleads: it knows fluent English and nothing about the question. It does not read
    the answer line.
    """
    return [_fluency(response) for response in responses]


def _grade(work_out: Callable[[str], str | None], prompt: Prompt, response: str) -> float:
    expected = work_out(prompt.text)
    if expected is None:
        return _style(response)
    finals = _FINAL.findall(response)
    return float(bool(finals) and finals[-1].strip(' ."').casefold() == expected.casefold())


def _style(response: str) -> float:
    """Higher for one short line of prose."""
    return -len(response.splitlines()) - 0.01 * len(response)


def _calculated(question: str) -> str | None:
    if found := _SUM.search(question):
        left, right = int(found[1]), int(found[3])
        return str({"+": left + right, "-": left - right}.get(found[2], left * right))
    if found := _COMPARISON.search(question):
        return "yes" if (int(found[1]) > int(found[3])) == (found[2] == "greater") else "no"
    return None


def _rearranged(question: str) -> str | None:
    found = _QUOTED.search(question)
    if found is None:
        return None
    quoted = found[1].split()
    if "capital letters" in question:
        return found[1].upper()
    if "Swap" in question:
        return " ".join(reversed(quoted))
    return quoted[-1] if "last word" in question else quoted[0]


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

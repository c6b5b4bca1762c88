"""Answers in free text: finding the final one, and comparing it with the gold answer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Literal

from laser.types import Prompt

AnswerFormat = Literal["final_answer", "whole"]
IsRight = Callable[[Prompt, str], bool]

_FINAL = re.compile(r"final\s+answer\s*(?:is)?\s*[:=]\s*(.*)", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:/\d+)?%?")
_WRAPPING = " \t*_`\"'$“”‘’"
_TRUTH = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}


def extract_final_answer(text: str) -> str | None:
    r"""Return what follows the last "Final answer:" on its line (arXiv 2410.01735, appendix E), or None.

    Markdown, quotes, ``$`` and a final period around the answer are dropped; inside ``\boxed{}`` counts the content.
    An answer on the line after the colon counts too.
    """
    found = list(_FINAL.finditer(text))
    if not found:
        return None
    answer = _stripped(found[-1].group(1))
    if not answer:
        following = text[found[-1].end() :].strip().splitlines()
        answer = _stripped(following[0]) if following else ""
    boxed = _BOXED.search(answer)
    answer = _stripped(boxed.group(1)) if boxed else answer
    return answer or None


def extract_answer(text: str, answer_format: AnswerFormat) -> str | None:
    """The answer in a response: what follows "Final answer:", or the whole text; None if there is none."""
    return extract_final_answer(text) if answer_format == "final_answer" else text.strip() or None


def answer_check(answer_format: AnswerFormat) -> IsRight:
    """Make the function that says whether a response to a prompt has its gold answer."""

    def is_right(prompt: Prompt, text: str) -> bool:
        answer = extract_answer(text, answer_format)
        return answer is not None and answers_match(answer, str(prompt.answer))

    return is_right


def answers_match(answer: str, gold: str) -> bool:
    """Whether an extracted answer is the gold one.

    Numbers are compared as numbers ("1,200.0" is "1200"); yes and true, no and false are one; other answers with their
    case where the gold answer has capitals (a task may ask for them), and without it otherwise.
    """
    number, gold_number = _as_number(answer), _as_number(gold)
    if gold_number is not None:
        return number is not None and math.isclose(number, gold_number, rel_tol=1e-12, abs_tol=1e-12)
    left, right = " ".join(_stripped(answer).split()), " ".join(_stripped(gold).split())
    if right.casefold() in _TRUTH:
        first = re.match(r"\w+", left)
        return first is not None and _TRUTH.get(first.group().casefold()) == _TRUTH[right.casefold()]
    return left == right if right != right.lower() else left.casefold() == right.casefold()


def _stripped(text: str) -> str:
    text = text.strip().strip(_WRAPPING)
    return text.removesuffix(".").strip(_WRAPPING) if not re.fullmatch(r"[-+]?\d+\.", text) else text[:-1]


def _as_number(text: str) -> float | None:
    """The number that a text is, thousands separators and a currency sign aside; None if it is more than a number."""
    text = _stripped(text).replace(",", "").removeprefix("$").strip()
    if not _NUMBER.fullmatch(text):
        return None
    scale = 0.01 if text.endswith("%") else 1.0
    top, _, bottom = text.rstrip("%").partition("/")
    if bottom and float(bottom) == 0:
        return None
    return scale * float(top) / (float(bottom) if bottom else 1.0)

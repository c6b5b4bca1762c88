"""Answers in free text: finding the final one, reading it as what it is, and comparing it with the gold answer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from laser.core.types import Prompt
from laser.data.tasks import AnswerFormat, AnswerType
from laser.data.tasks.latex import last_boxed
from laser.evaluation.mathematics import is_mathematics, same_mathematics
from laser.evaluation.options import read_option, same_option
from laser.evaluation.words import normalized_words

__all__ = ["AnswerFormat", "IsRight", "answer_check", "answers_match", "extract_answer", "parse_answer"]

IsRight = Callable[[Prompt, str], bool]

_FINAL = re.compile(r"final\s+answer[\s*_]*(?:is)?[\s*_]*[:=]\s*(.*)", re.IGNORECASE)
_HEADING = re.compile(r"^[ \t#*_]*final[ \t]+answer[ \t*_]*()$", re.IGNORECASE | re.MULTILINE)
_OPENING = re.compile(r"\s*(?:\\\[|\\\(|\$\$|```\w*)?\s*")  # a line that only opens a formula or a block
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?:/\d+)?\s?%?")
_IN_TEXT = re.compile(r"(?<![\w.])[-+]?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?:/\d+)?(?:\s?%)?")
_WRAPPING = " \t*_`\"'$“”‘’"
_TRUTH = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_TRUTH_WORD = re.compile(r"\b(?<!not )(yes|true|no|false)\b", re.IGNORECASE)


def parse_answer(prompt: Prompt, text: str, answer_format: AnswerFormat) -> str | None:
    """The answer in a response to a prompt, read as what `metadata["answer_type"]` says it is.

    Args:
        prompt: Its metadata may have `answer_type` and, for multiple choice, `options`, text by letter.
        text: The response.
        answer_format: Where in it the answer is.

    Returns:
        A number without separators and signs of currency; "yes" or "no"; letters of options; or the text. None if there
        is none: a response that has to be counted, and that is wrong.

    Raises:
        DataError: The answer is mathematics and math-verify is not installed.
    """
    kind = _kind(prompt)
    found = _final_line(text) if answer_format == "final_answer" else text.strip() or None
    if kind == "math":
        return _read_mathematics(found if found is not None else text, has_line=found is not None)
    if answer_format == "final_answer":
        found = extract_final_answer(text)
    if found is None:
        return None
    match kind:
        case "number":
            return _read_number(found, last=answer_format == "whole")
        case "yes_no":
            return _read_truth(found)
        case "option":
            return read_option(found, _options(prompt))
        case _:
            return found


def answer_check(answer_format: AnswerFormat) -> IsRight:
    """Make the function that says whether a response to a prompt has its gold answer, or one of several."""

    def is_right(prompt: Prompt, text: str) -> bool:
        answer = parse_answer(prompt, text, answer_format)
        several = prompt.metadata.get("answers")
        golds = several if isinstance(several, list | tuple) and several else [prompt.answer]
        return answer is not None and any(is_gold(prompt, answer, str(gold)) for gold in golds)

    return is_right


def is_gold(prompt: Prompt, answer: str, gold: str) -> bool:
    """Whether an answer that `parse_answer` read is the gold one."""
    match _kind(prompt):
        case "number":
            return _same_number(answer, gold)
        case "yes_no":
            return answer == _TRUTH.get(_stripped(gold).casefold())
        case "option":
            return same_option(answer, gold, _options(prompt))
        case "math":
            return same_mathematics(answer, gold)
        case "text":
            return normalized_words(answer) == normalized_words(gold)
        case "auto":
            return answers_match(answer, gold)


def extract_final_answer(text: str) -> str | None:
    r"""Return what follows the last "Final answer:" on its line (arXiv 2410.01735, appendix E), or None.

    Markdown, quotes, ``$`` and a final period around the answer are dropped; inside ``\boxed{}`` counts the content.
    An answer on the line after the colon counts too.
    """
    line = _final_line(text)
    if line is None:
        return None
    boxed = last_boxed(line)
    return _stripped(boxed if boxed is not None else line) or None


def extract_answer(text: str, answer_format: AnswerFormat) -> str | None:
    """The answer in a response as it stands: what follows "Final answer:", or the whole text; None if there is none."""
    return extract_final_answer(text) if answer_format == "final_answer" else text.strip() or None


def answers_match(answer: str, gold: str) -> bool:
    """Whether an extracted answer is the gold one, by what the gold answer looks like.

    Numbers are compared as numbers ("1,200.0" is "1200"); yes and true, no and false are one; other answers with their
    case where the gold answer has capitals (a task may ask for them), and without it otherwise.
    """
    if _as_number(gold) is not None:
        return _same_number(answer, gold)
    left, right = " ".join(_stripped(answer).split()), " ".join(_stripped(gold).split())
    if right.casefold() in _TRUTH:
        first = re.match(r"\w+", left)
        return first is not None and _TRUTH.get(first.group().casefold()) == _TRUTH[right.casefold()]
    return left == right if right != right.lower() else left.casefold() == right.casefold()


def _kind(prompt: Prompt) -> AnswerType:
    kind: AnswerType = prompt.metadata.get("answer_type") or "auto"
    return kind


def _options(prompt: Prompt) -> dict[str, str]:
    options = prompt.metadata.get("options") or {}
    return {str(letter): str(text) for letter, text in options.items() if text is not None}


def _final_line(text: str) -> str | None:
    """What follows the last "Final answer:", unstripped; of the next line if nothing does on its own."""
    found = [*_FINAL.finditer(text), *_HEADING.finditer(text)]
    if not found:
        return None
    last = max(found, key=lambda match: match.start())
    lines = [last.group(1), *text[last.end() :].splitlines()]
    return next((line for line in lines if _stripped(line) and not _OPENING.fullmatch(line)), None)


def _read_number(text: str, *, last: bool) -> str | None:
    """The first number after the last "=", or of the text; or the last. Without separators and signs of currency."""
    text = _plain(text)
    numbers = (_IN_TEXT.findall(text.rpartition("=")[2]) if not last else []) or _IN_TEXT.findall(text)
    return re.sub(r"[,$]", "", numbers[-1 if last else 0]) if numbers else None


def _read_truth(text: str) -> str | None:
    """The truth value that the text begins with, or the only one in it."""
    first = re.match(r"\W*(\w+)", text)
    if first is not None and first[1].casefold() in _TRUTH:
        return _TRUTH[first[1].casefold()]
    values = {_TRUTH[word.casefold()] for word in _TRUTH_WORD.findall(text)}
    return values.pop() if len(values) == 1 else None


def _read_mathematics(text: str, *, has_line: bool) -> str | None:
    r"""Content of the last ``\boxed{}``, else the line itself; a text without a final answer needs the box."""
    boxed = last_boxed(text)
    if boxed is None and not has_line:
        return None
    answer = (boxed if boxed is not None else text).strip().strip("*`").strip().removesuffix(".").strip()
    return answer if is_mathematics(answer) else None


def _same_number(answer: str, gold: str) -> bool:
    """Equal as numbers; where only one has a percent sign, with it or without: data write percents both ways."""
    number, gold_number = _as_number(answer), _as_number(gold)
    if number is None or gold_number is None:
        return False
    one_in_percent = answer.rstrip(_WRAPPING + ".").endswith("%") != gold.rstrip(_WRAPPING + ".").endswith("%")
    factors = (1.0, 0.01, 100.0) if one_in_percent else (1.0,)
    return any(_close(number * factor, gold_number) for factor in factors)


def _plain(text: str) -> str:
    """Text with LaTeX's thousands separator and the typographic minus as they are usually typed."""
    return text.replace("{,}", ",").replace("\u2212", "-")


def _close(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=1e-12, abs_tol=1e-12)


def _stripped(text: str) -> str:
    text = text.strip().strip(_WRAPPING)
    return text.removesuffix(".").strip(_WRAPPING) if not re.fullmatch(r"[-+]?\d+\.", text) else text[:-1]


def _as_number(text: str) -> float | None:
    """The number that a text is, thousands separators and a currency sign aside; None if it is more than a number."""
    text = _stripped(_plain(text)).replace(",", "").removeprefix("$").strip()
    text = re.sub(r"^([-+]?)\.", r"\g<1>0.", text)
    if not _NUMBER.fullmatch(text):
        return None
    scale = 0.01 if text.endswith("%") else 1.0
    top, _, bottom = text.rstrip("% ").partition("/")
    if bottom and float(bottom) == 0:
        return None
    return scale * float(top) / (float(bottom) if bottom else 1.0)

r"""Mathematical answers: LaTeX or plain expressions, compared by the package math-verify.

`\frac12`, `0.5` and `1/2` are one answer, and so are `x = 5` and `5`. Numbers are compared by `evaluation.numbers`,
because math-verify 0.9 reads "1 234" as 235, "2 1/2" as 3/2, "10³" as 10, "3√2" as 3 and "1 million" as a product of
letters. Comparison is cut off after seconds in the main thread; in other threads, where no alarm can be set, the limit
of length is the only guard.
"""

from __future__ import annotations

import re
import threading
from typing import Any

from laser.core.errors import DataError
from laser.evaluation.numbers import MINUS_SIGNS, same_number, whole_number_text

_LONGEST = 400  # characters; a longer answer is not an expression
_SECONDS = 5
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|operatorname)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\[!,;: ]|\\left|\\right|[\s$]|~")
_DELIMITED = re.compile(r"\$.+\$|\\\(.+\\\)|\\\[.+\\\]|\\boxed", re.DOTALL)
_NOT_EXPRESSIONS = re.compile(r"(?<![\w:])\d{1,2}:\d{2}(?![\w:])|\d+\.\d+\.\d|(?<!\d)\d{4}-\d\d?-\d\d?(?!\d)")
_APART = re.compile(r"(?<=\d)(?:\s|\\[,;: ]|~)+(?=\d)(?!\d{3}(?!\d))")
_PASSED_OVER = (  # signs that math-verify passes over: an answer with one is not a gold answer without it
    re.compile(r"(?<=[\w)}])\s?!(?!\w)"),
    re.compile(
        r"^[\s$({\\]*(?:[<>≤≥≠]|(?:ge|le|ne|gt|lt)q?(?![a-z]))|\b(?:at\s+(?:least|most)|or\s+(?:more|less|fewer))\b"
    ),
    re.compile(r"\d\s*:\s*\d|\\?\bp?mod\b|\.\.|…|\\[lc]?dots|\d_\{?\d|\bor\b"),
)
_SUPERSCRIPTS = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_PLAIN_POWER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?|[A-Za-z]))")
_SPELLINGS = str.maketrans({**dict.fromkeys(MINUS_SIGNS, "-"), "π": r"\pi ", "∞": r"\infty ", "×": r"\times "})


def is_mathematics(answer: str) -> bool:
    """Whether an answer can be read as mathematics or as a word in its place; times, dates and versions cannot.

    Raises:
        DataError: math-verify is not installed.
    """
    if not 0 < len(answer) <= _LONGEST or _NOT_EXPRESSIONS.search(answer):
        return False
    return whole_number_text(answer) is not None or bool(_parse(answer))


def same_mathematics(answer: str, gold: str) -> bool:
    """Whether two answers are the same once simplified, or letter by letter but for spacing and text commands.

    Raises:
        DataError: math-verify is not installed.
    """
    if _plain(answer) == _plain(gold):
        return True
    number, gold_number = whole_number_text(answer), whole_number_text(gold)
    if number is not None and gold_number is not None:  # most answers: no need to simplify
        return same_number(number, gold_number)
    if len(answer) > _LONGEST or any(bool(sign.search(answer)) != bool(sign.search(gold)) for sign in _PASSED_OVER):
        return False
    if _APART.search(re.sub(r"\d+\s*/\s*\d+", "", answer)) and not _APART.search(gold):
        return False
    return bool(_math_verify().verify(_parse(gold), _parse(answer), timeout_seconds=_seconds()))


def _parse(answer: str) -> list[Any]:
    expression = _in_latex(answer)
    delimited = expression if _DELIMITED.search(expression) else f"${expression}$"
    return list(_math_verify().parse(delimited, parsing_timeout=_seconds()))


def _in_latex(answer: str) -> str:
    """The answer with characters that math-verify passes over in LaTeX, and a number in digits."""
    number = whole_number_text(answer)
    if number is not None:
        return f"{number.text[:-1]}\\%" if number.is_percent else number.text
    text = _SUPERSCRIPTS.sub(lambda match: f"^{{{match[0].translate(_PLAIN_POWER)}}}", answer)
    return _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text).translate(_SPELLINGS)


def _plain(answer: str) -> str:
    text = _TEXT.sub(r"\1", answer)
    text = _SPACING.sub("", _APART.sub("␣", text).replace("\\$", "").replace("dfrac", "frac").replace("tfrac", "frac"))
    return text.removesuffix(".").replace("\\", "").casefold()


def _seconds() -> int | None:
    return _SECONDS if threading.current_thread() is threading.main_thread() else None


def _math_verify() -> Any:
    try:
        import math_verify
    except ImportError as error:
        raise DataError(
            "comparing mathematics needs the package math-verify; install it with: pip install 'laser-rm[eval]'"
        ) from error
    return math_verify

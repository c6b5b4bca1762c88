r"""Mathematical answers: LaTeX or plain expressions, compared by the package math-verify.

A response's answer is taken as it stands; `\frac12`, `0.5` and `1/2` are one, and so are `x = 5` and `5`. Comparison is
cut off after seconds in the main thread; elsewhere, where no alarm can be set, the length limit is the only guard.
"""

from __future__ import annotations

import math
import re
import threading
from typing import Any

from laser.core.errors import DataError

_LONGEST = 400  # characters; longer answers are not mathematics but talk
_SECONDS = 5
_PLAIN_NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)")
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|operatorname)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\[!,;: ]|\\left|\\right|[\s$]|~")
_DELIMITED = re.compile(r"\$.+\$|\\\(.+\\\)|\\\[.+\\\]|\\boxed", re.DOTALL)


def is_mathematics(answer: str) -> bool:
    """Whether an answer can be read as mathematics or as a word in its place.

    Raises:
        DataError: math-verify is not installed.
    """
    return 0 < len(answer) <= _LONGEST and (_PLAIN_NUMBER.fullmatch(answer) is not None or bool(_parse(answer)))


def same_mathematics(answer: str, gold: str) -> bool:
    """Whether two answers are the same once simplified, or letter by letter but for spacing and text commands.

    Raises:
        DataError: math-verify is not installed.
    """
    if _plain(answer) == _plain(gold):
        return True
    if _PLAIN_NUMBER.fullmatch(answer) and _PLAIN_NUMBER.fullmatch(gold):  # most answers: no need to simplify
        return math.isclose(float(answer), float(gold), rel_tol=1e-12)
    if len(answer) > _LONGEST:
        return False
    return bool(_math_verify().verify(_parse(gold), _parse(answer), timeout_seconds=_seconds()))


def _parse(answer: str) -> list[Any]:
    delimited = answer if _DELIMITED.search(answer) else f"${answer}$"
    return list(_math_verify().parse(delimited, parsing_timeout=_seconds()))


def _plain(answer: str) -> str:
    text = _TEXT.sub(r"\1", answer)
    text = _SPACING.sub("", text.replace("\\$", "").replace("dfrac", "frac").replace("tfrac", "frac"))
    return text.removesuffix(".").casefold()


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

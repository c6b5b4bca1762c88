"""Answers inside LaTeX, which both readers of gold answers and readers of responses look for."""

from __future__ import annotations

import re

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")


def last_boxed(text: str) -> str | None:
    r"""Content of the last ``\boxed{...}`` whose braces are balanced, or None."""
    for match in reversed(list(_BOXED.finditer(text))):
        depth = 0
        for position in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[match.end() + 1 : position]
    return None

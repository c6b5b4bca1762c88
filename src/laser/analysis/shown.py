"""Text and numbers as readers see them: harmless text of models and data, short shares and times."""

from __future__ import annotations

import math
import unicodedata
from html import escape

_KEPT = "\n\t"
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # controls, direction marks, surrogates, unassigned, odd breaks
_JOINERS = "\u200c\u200d"  # parts of words and of emoji


def visible(text: str) -> str:
    r"""The text with every control sequence, direction mark and broken character written out.

    An escape character becomes ``\x1b``, so that no terminal obeys it; a right-to-left override ``\u202e``, so that
    text reads as it is stored; a lone surrogate ``\ud800``, so that the text can be written as UTF-8.
    """
    return "".join(_written_out(character) for character in text)


def one_line(text: str, length: int) -> str:
    """`visible`, on one line and at most `length` characters, the last of them an ellipsis where some are missing."""
    line = " ".join(visible(text[: 4 * length]).split())
    return line if len(line) <= length and len(text) <= 4 * length else line[: length - 1] + "…"


def markup(text: str) -> str:
    """`visible`, with everything escaped that HTML or SVG would read as markup."""
    return escape(visible(text))


def percent(share: float | None) -> str | None:
    """A share in percent, with one digit; None where it is unknown."""
    return None if share is None or math.isnan(share) else f"{100 * share:.1f}%"


def duration(seconds: float) -> str:
    """A time in words of the right size."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _written_out(character: str) -> str:
    if " " <= character <= "~" or character in _KEPT or character in _JOINERS:
        return character
    if unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

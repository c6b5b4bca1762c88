"""Keys of servers: where they come from, and how they are kept out of all that a server sends back."""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from laser.core.errors import ServerError

_PART = 8  # characters of a key that no text may repeat
_WORD = 4  # characters of a key that is found inside other words too
_LAYERS = 4  # escapes within escapes that are undone in search of a key
_ESCAPE = re.compile(
    r"""\\u(?:\{[0-9A-Fa-f]{1,6}\}|[0-9A-Fa-f]{4})   # JSON and JavaScript
      | \\U[0-9A-Fa-f]{8} | \\x[0-9A-Fa-f]{2}        # Python
      | \\[^A-Za-z0-9\s]                             # \/ and \\
      | %[0-9A-Fa-f]{2}                              # addresses
      | &(?:\#[0-9]{1,7}|\#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});  # HTML
    """,
    re.VERBOSE,
)


def read_key(api_key_env: str | None, url: str) -> str | None:
    """The key in an environment variable; None if no variable is named.

    Raises:
        ServerError: The variable is not set, or its value cannot be a key; the message does not show it.
    """
    if api_key_env is None:
        return None
    key = os.environ.get(api_key_env, "").strip()
    if not key:
        raise ServerError(f"the environment variable {api_key_env} is not set; set it to the key for {url}")
    if not all("!" <= character <= "~" for character in key):
        raise ServerError(
            f"the environment variable {api_key_env} has a line break, a blank or a character outside ASCII in it, "
            "which a key cannot have; set it to one key on one line"
        )
    return key


class Secret:
    """A key, and how to remove it from what a server repeats.

    It is found as it is, in base64 (at any offset) and in hexadecimal, each also behind the escapes of JSON, addresses,
    HTML and Python in any mixture, whole or in parts of eight characters and more. A shorter key is found whole; one of
    less than four characters, such as a placeholder, only where it is a word.

    Args:
        key: The key, in ASCII.
    """

    def __init__(self, key: str) -> None:
        self._shortest = min(_PART, len(key))
        self._forms = [_Form(spelling) for spelling in dict.fromkeys([key, *_encoded(key)])]

    def removed(self, text: str) -> str:
        """The text with ``***`` in place of the key; where the key was escaped, ASCII comes back without escapes."""
        if len(text) < self._shortest:
            return text
        plain = text
        for _ in range(_LAYERS):
            cleaned = self._without(plain)
            if cleaned != plain:
                text = plain = cleaned
            simpler = (
                _ESCAPE.sub(lambda match: _meaning(match.group()), plain)
                if any(mark in plain for mark in "\\%&")
                else plain
            )
            if simpler == plain:
                return text
            plain = simpler
        cleaned = self._without(plain)
        return cleaned if cleaned != plain else text

    def removed_from(self, value: Any) -> Any:
        """A JSON value without the key in any of its texts; numbers stay as they are."""
        match value:
            case str():
                return self.removed(value)
            case list():
                return [self.removed_from(item) for item in value]
            case dict():
                return {self.removed(key): self.removed_from(item) for key, item in value.items()}
            case _:
                return value

    def _without(self, text: str) -> str:
        for form in self._forms:
            text = form.removed(text)
        return text


class _Form:
    """One spelling of a key.

    A stretch of eight characters and more that a text shares with it holds one whole block of it, if blocks are half as
    long: only these are searched for, which keeps long replies cheap.
    """

    def __init__(self, spelling: str) -> None:
        self._spelling = spelling
        self._part = min(_PART, len(spelling))
        self._block = (self._part + 1) // 2
        self._parts = {spelling[begin : begin + self._part] for begin in range(len(spelling) - self._part + 1)}

    def removed(self, text: str) -> str:
        for begin in range(0, len(self._spelling) - self._block + 1, self._block):
            pieces, end = [], 0
            for low, high in self._shared(text, begin):
                pieces += [text[end:low], "***"]
                end = high
            if pieces:
                text = "".join([*pieces, text[end:]])
        return text

    def _shared(self, text: str, begin: int) -> Iterator[tuple[int, int]]:
        """Begin and end of every stretch around the block that begins at a place of the spelling."""
        block = self._spelling[begin : begin + self._block]
        at, end = text.find(block), 0
        while at >= 0:
            low, high = self._stretch(text, at, begin) if self._is_near(text, at) else (at, at)
            if high - low >= self._part and (self._part >= _WORD or _is_word(text, low, high)):
                yield max(low, end), high
                end = high
            at = text.find(block, max(high, at + 1))

    def _is_near(self, text: str, at: int) -> bool:
        """Whether a part of the spelling is around a place of the text."""
        starts = range(max(0, at - self._part + self._block), at + 1)
        return any(text[start : start + self._part] in self._parts for start in starts)

    def _stretch(self, text: str, at: int, begin: int) -> tuple[int, int]:
        low, place = at, begin
        while low and place and text[low - 1] == self._spelling[place - 1]:
            low, place = low - 1, place - 1
        high, place = at + self._block, begin + self._block
        while high < len(text) and place < len(self._spelling) and text[high] == self._spelling[place]:
            high, place = high + 1, place + 1
        return low, high


def _encoded(key: str) -> list[str]:
    """The key in base64 and hexadecimal; none of a short key, whose encodings would hit ordinary words."""
    if len(key) < _PART:
        return []
    inside = []
    for offset in range(3):  # the number of bytes before the key decides how its bits fall into letters
        letters = base64.b64encode(b"\0" * offset + key.encode()).decode()
        inside.append(letters[-(-8 * offset // 6) : 8 * (offset + len(key)) // 6])
    safe = [letters.replace("+", "-").replace("/", "_") for letters in inside]
    digits = key.encode().hex()
    return [*inside, *safe, digits, digits.upper()]


def _is_word(text: str, low: int, high: int) -> bool:
    return not (text[low - 1 : low].isalnum() or text[high : high + 1].isalnum())


@lru_cache(maxsize=4096)
def _meaning(escape: str) -> str:
    """The ASCII character that an escape means; any other escape as it is."""
    if escape.startswith("&"):
        meant = html.unescape(escape)
    elif escape.startswith("\\") and escape[1] not in "uUx":
        meant = escape[1]
    else:
        meant = chr(min(128, int(escape.lstrip("\\uUx%{").rstrip("}"), 16)))
    return meant if len(meant) == 1 and meant.isascii() else escape

"""Keys of servers: where they come from, and how they are kept out of all that a server sends back."""

from __future__ import annotations

import base64
import html
import os
import re
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
        key: The key, in ASCII; None: there is nothing to remove.
    """

    def __init__(self, key: str | None) -> None:
        spellings = [key, *_encoded(key)] if key else []
        self._length = min(_PART, len(key or ""))
        self._parts = {text[at : at + self._length] for text in spellings for at in range(len(text) - self._length + 1)}

    def removed(self, text: str) -> str:
        """The text with ``***`` in place of the key; where the key was escaped, ASCII comes back without escapes."""
        if not self._parts or len(text) < self._length:
            return text
        plain = text
        for _ in range(_LAYERS + 1):
            cleaned = self._without(plain)
            if cleaned != plain:
                text = plain = cleaned
            simpler = _ESCAPE.sub(lambda match: _meaning(match.group()), plain)
            if simpler == plain:
                break
            plain = simpler
        return text

    def removed_from(self, value: Any) -> Any:
        """A JSON value without the key in any of its texts; numbers stay as they are."""
        if not self._parts:
            return value
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
        pieces, end = [], 0
        for at in range(len(text) - self._length + 1):
            if text[at : at + self._length] in self._parts and self._counts(text, at):
                if at >= end:
                    pieces += [text[end:at], "***"]
                end = at + self._length
        return "".join([*pieces, text[end:]])

    def _counts(self, text: str, at: int) -> bool:
        """Whether a part is the key's, not a short key inside another word."""
        end = at + self._length
        return self._length >= _WORD or not (text[at - 1 : at].isalnum() or text[end : end + 1].isalnum())


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

"""Preference pairs in the standard format: prompt, chosen, rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laser.core.errors import DataError
from laser.core.types import Prompt
from laser.data.files import Fields, load_file


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt with a better and a worse response."""

    prompt: Prompt
    chosen: str
    rejected: str


def load_preferences(path: str | Path) -> list[Preference]:
    """Read preference pairs from a JSON Lines or Parquet file.

    Each row has `prompt` (text or chat messages), `chosen` and `rejected` (text, or messages ending with the
    assistant's), as in the data sets of trainers and reward benchmarks; `category` is optional.

    Raises:
        DataError: The file or a row cannot be used; the message names it.
    """
    preferences = []
    for prompt in load_file(path, Fields()):
        chosen, rejected = (_text(prompt, name, path) for name in ("chosen", "rejected"))
        preferences.append(Preference(prompt, chosen, rejected))
    return preferences


def _text(prompt: Prompt, name: str, path: str | Path) -> str:
    value: Any = prompt.metadata.get(name)
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = value[-1].get("content") if isinstance(value[-1], dict) else None
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{path}: the row of prompt {prompt.id!r} has no {name!r} response; give text or messages")
    return value

"""Tasks written as JSON Lines in the format that every command reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from laser.core.errors import DataError
from laser.core.files import in_words, replacing
from laser.core.outputs import output_file
from laser.core.types import Prompt
from laser.data.preferences import Preference

_PAIR = ("chosen", "rejected")


def export_prompts(prompts: Sequence[Prompt], path: Path) -> int:
    """Write prompts, each conversation once, in the format of `laser.data.files`.

    Returns:
        The number of rows written.

    Raises:
        ConfigError: The file exists.
        RunDirectoryError: Its folder cannot be written to.
        DataError: Writing fails.
    """
    distinct: dict[str, Prompt] = {}
    for prompt in prompts:
        distinct.setdefault(json.dumps([dict(message) for message in prompt.messages]), prompt)
    _write(path, [_row(prompt, {}) for prompt in distinct.values()])
    return len(distinct)


def export_pairs(pairs: Sequence[Preference], path: Path) -> int:
    """Write labeled pairs in the format of `laser.data.preferences`.

    Returns:
        The number of rows written.

    Raises:
        ConfigError: The file exists.
        RunDirectoryError: Its folder cannot be written to.
        DataError: Writing fails.
    """
    _write(path, [_row(pair.prompt, {"chosen": pair.chosen, "rejected": pair.rejected}) for pair in pairs])
    return len(pairs)


def _row(prompt: Prompt, pair: Mapping[str, str]) -> dict[str, Any]:
    alone = len(prompt.messages) == 1
    answer = {"answer": prompt.answer} if prompt.answer is not None else {}
    return {
        "id": prompt.id,
        "prompt": prompt.text if alone else [dict(message) for message in prompt.messages],
        **answer,
        **pair,
        "category": prompt.category,
        **{name: value for name, value in prompt.metadata.items() if name not in _PAIR},
    }


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file that is whole or absent."""
    output_file(path)
    with (
        in_words("write", path, "choose another --out", DataError),
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

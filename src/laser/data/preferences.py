"""Labeled responses: pairs of a better and a worse one, or several correct and incorrect ones to a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from laser.core.errors import DataError
from laser.core.types import Prompt
from laser.data.files import AUTO, Fields, check_row, describe_prompt, table_rows
from laser.data.looks import PROMPT, has_field, lookup, read_compared
from laser.data.tasks import REWARDBENCH_SECTIONS

_READ = ("chosen", "rejected", "rejected_response", "rejected_messages", "messages", "conversations", "response")


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt with a better and a worse response."""

    prompt: Prompt
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """A prompt with correct and incorrect responses; a pair has one of each."""

    prompt: Prompt
    correct: tuple[str, ...]
    incorrect: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """All responses, the correct ones first."""
        return (*self.correct, *self.incorrect)


def load_candidates(path: str | Path, fields: Fields | None = None) -> list[Candidates]:
    """Read labeled responses.

    Args:
        path: As in `load_file`. A row has `prompt`, `chosen` and `rejected`, or is of another form that
            `laser.data.looks` knows. Its category is `category`, or the section of RewardBench that its `subset` is
            in, or `subset` itself.
        fields: Fields of prompt and category; a file without them is read as if they were not named.

    Raises:
        DataError: The file or a row cannot be used; names the row.
    """
    found = [
        _candidates(where, row, number, fields or Fields()) for number, (where, row) in enumerate(table_rows(path))
    ]
    if not found:
        raise DataError(f"file {path} holds no rows; add some")
    return found


def load_preferences(path: str | Path, fields: Fields | None = None) -> list[Preference]:
    """Read pairs, as `load_candidates` does; of several responses the first correct one makes a pair with each other.

    Raises:
        DataError: The file or a row cannot be used; names the row.
    """
    return [
        Preference(one.prompt, one.correct[0], worse)
        for one in load_candidates(path, fields)
        for worse in one.incorrect
    ]


def _candidates(where: str, row: Any, number: int, fields: Fields) -> Candidates:
    row = check_row(where, row)
    compared = read_compared(where, row, fields.prompt)
    category = _category(row, fields.category)
    read = {*_READ, PROMPT, fields.prompt, "category"}
    named = {name: value for name, value in row.items() if name not in read} | {"category": category}
    prompt = describe_prompt(where, named, number, replace(fields, category=AUTO), compared.messages)
    prompt = replace(prompt, conversational=any(isinstance(row.get(name), list | tuple) for name in read))
    return Candidates(prompt, compared.correct, compared.incorrect)


def _category(row: Mapping[str, Any], name: str | None) -> Any:
    if name is not None and name != AUTO and has_field(row, name):
        return lookup(row, name)
    category, subset = row.get("category"), row.get("subset")
    if category in (None, "") and isinstance(subset, str):
        return REWARDBENCH_SECTIONS.get(subset, subset)
    return category

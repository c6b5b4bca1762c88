"""Prompts from local JSON Lines and Parquet files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laser.core.errors import DataError
from laser.core.types import Message, Prompt
from laser.data.rows import SourceFile, json_lines, parquet
from laser.data.store import StoredPrompts, digest

_PLACE = "{prompt}"


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a row hold what.

    Attributes:
        prompt: Text, or a list of chat messages that ends with the user's.
        answer: Gold answer; None, or absent from a row, means there is none.
        category: Category; None, or absent from a row, means "default".
        template: Text around a text prompt, with {prompt} where it goes.
        answer_type: Written into each prompt's metadata, for `laser.evaluation.answers`; None: nothing is.
    """

    prompt: str = "prompt"
    answer: str | None = "answer"
    category: str | None = "category"
    template: str | None = None
    answer_type: str | None = None

    def __post_init__(self) -> None:
        if self.template is not None and _PLACE not in self.template:
            raise DataError(f"data.template has no {_PLACE}; put {_PLACE} where the prompt goes")


def load_file(path: str | Path, fields: Fields | None = None) -> StoredPrompts:
    """Read prompts, one a row, into a temporary file.

    Args:
        path: A ``.jsonl``, ``.json`` (one object a line) or ``.parquet`` file.
        fields: Which fields hold what.

    Raises:
        DataError: The file is missing, of another kind or malformed, or a row lacks its prompt; names file and row.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it (.jsonl or .parquet)")
    if not path.is_file():
        raise DataError(f"file {path} does not exist; check the path")
    if path.suffix not in (".jsonl", ".json", ".parquet"):
        raise DataError(f"file {path} is neither .jsonl nor .parquet; convert it to one of them")
    with SourceFile(path).open() as stream:
        rows = parquet(stream, str(path)) if path.suffix == ".parquet" else json_lines(stream, str(path))
        prompts = make_prompts(rows, fields or Fields())
    if not prompts:
        raise DataError(f"file {path} holds no rows; add some")
    return prompts


def make_prompts(rows: Iterable[tuple[str, Any]], fields: Fields) -> StoredPrompts:
    """Turn rows into prompts, in memory that does not grow with their text.

    Args:
        rows: (where, row): a place for error messages, and a mapping.
        fields: Which fields hold what.

    Raises:
        DataError: A row is not a mapping, lacks its prompt, or repeats an id.
    """
    ids = bytearray()

    def made() -> Iterator[Prompt]:
        for number, (where, row) in enumerate(rows):
            prompt = make_prompt(where, row, number, fields)
            ids.extend(digest(prompt.id))
            yield prompt

    prompts = StoredPrompts.write(made())
    _, first, count = np.unique(np.frombuffer(bytes(ids), dtype="S16"), return_index=True, return_counts=True)
    if (count > 1).any():
        twice = prompts[int(first[count > 1].min())]
        raise DataError(f"two prompts have the id {twice.id!r}; make the field 'id' unique or remove it")
    return prompts


def make_prompt(where: str, row: Any, number: int, fields: Fields) -> Prompt:
    """Turn one row into a prompt.

    Args:
        where: A place for error messages.
        row: A mapping.
        number: The row's, its id unless it has one.
        fields: Which fields hold what.

    Raises:
        DataError: It is no mapping, lacks its prompt, or holds what is no text.
    """
    if not isinstance(row, Mapping):
        raise DataError(
            f"{where} holds a {type(row).__name__}, not an object with fields; write one JSON object a line"
        )
    if row.get(fields.prompt) is None:
        raise DataError(f"{where} has no field {fields.prompt!r}; {_nearest(fields.prompt, row)}")
    category = row.get(fields.category) if fields.category else None
    used = {fields.prompt, fields.answer, fields.category, "id"}
    typed = {} if fields.answer_type is None else {"answer_type": fields.answer_type}
    prompt = Prompt(
        id=_text(where, row.get("id", number)),
        messages=_messages(where, row[fields.prompt], fields.template),
        category="default" if category is None else _text(where, category),
        answer=_answer(where, row.get(fields.answer) if fields.answer else None),
        metadata={name: value for name, value in row.items() if name not in used} | typed,
    )
    for message in prompt.messages:
        _text(where, message["content"])
    return prompt


def _text(where: str, value: Any) -> str:
    """A value as text that can be written and tokenised."""
    try:
        text = str(value)
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} holds half of a surrogate pair, which is no text; mend or remove the row") from error
    except RecursionError as error:
        raise DataError(f"{where} is nested too deeply; mend or remove the row") from error
    return text


def _nearest(name: str, row: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(row), n=1)
    if close:
        return f"did you mean {close[0]!r}? Set data.prompt_field"
    return f"it has {', '.join(map(repr, row)) or 'no fields'}; set data.prompt_field"


def _answer(where: str, value: Any) -> str | None:
    return None if value is None else _text(where, value)


def _messages(where: str, prompt: Any, template: str | None) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise DataError(f"{where} has an empty prompt; fill or remove it")
        text = template.replace(_PLACE, prompt) if template is not None else prompt
        return ({"role": "user", "content": text},)
    if isinstance(prompt, Sequence) and prompt and all(_is_message(message) for message in prompt):
        for message in prompt:
            if not re.fullmatch(r"[A-Za-z][A-Za-z_-]*", message["role"]):
                raise DataError(f"{where}: {message['role']!r} is no role; use system, user, assistant or tool")
        if prompt[-1]["role"] != "user":
            raise DataError(
                f"{where}: the last message is from {prompt[-1]['role']!r}; a prompt ends with a user message"
            )
        if not prompt[-1]["content"].strip():
            raise DataError(f"{where} has an empty prompt; fill or remove it")
        return tuple({"role": message["role"], "content": message["content"]} for message in prompt)
    raise DataError(f"{where}: the prompt is neither text nor a list of messages with 'role' and 'content'")


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)

"""Prompts, responses and gold answers as trainers give them: one row per response."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laser.core.errors import DataError
from laser.core.types import Message, Prompt
from laser.data.conversations import check_prompt, kind_of, read_messages
from laser.data.gold import read_gold
from laser.evaluation.answers import Reader

Given = str | Sequence[Message] | Prompt
"""A prompt: text, chat messages, or a `Prompt`."""

GOLD_COLUMNS = ("answer", "answers", "solution", "ground_truth", "reward_model")
"""Columns in which a gold answer is looked for, in this order."""

Members = Mapping[str, Sequence[int]]
"""Indices of the rows of each prompt, by its key."""

NO_CATEGORY = "default"


@dataclass(frozen=True, slots=True)
class Row:
    """A response and its prompt."""

    prompt: Prompt
    text: str


@dataclass(frozen=True, slots=True)
class Responses:
    """Responses to a prompt, and whether each has the gold answer (None without one)."""

    prompt: Prompt
    texts: Sequence[str]
    right: Sequence[bool | None]


def responses_of(rows: Sequence[Row], reader: Reader) -> Responses:
    """The responses to a prompt."""
    right = [None if row.prompt.answer is None else reader.is_right(row.prompt, row.text) for row in rows]
    return Responses(rows[0].prompt, [row.text for row in rows], right)


def by_prompt(rows: Sequence[Row]) -> Members:
    """Group rows by their prompts, in the order in which these first appear."""
    members: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        members.setdefault(row.prompt.id, []).append(index)
    return members


def read_prompt(given: Given, where: str = "prompt", *, columns: Mapping[str, Any] | None = None) -> Prompt:
    """The prompt, with its key as id.

    Args:
        given: Text, chat messages, or a `Prompt`, which keeps its answer and category.
        where: A place for error messages.
        columns: What else the row holds: `category`, and whatever reward functions read.

    Raises:
        DataError: It is empty, malformed, or ends with an assistant's message.
    """
    columns = columns or {}
    category = columns.get("category")
    if isinstance(given, Prompt):
        given_category = given.category if category is None else str(category)
        metadata = {**given.metadata, **columns}
        return dataclasses.replace(given, id=key_of(given.messages), category=given_category, metadata=metadata)
    if given is None:
        raise DataError(f"{where} is null; give a prompt for every response")
    messages = check_prompt(where, read_messages(where, given))
    return Prompt(
        id=key_of(messages),
        messages=messages,
        category=NO_CATEGORY if category is None else str(category),
        metadata=columns,
        conversational=not isinstance(given, str),
    )


def key_of(messages: Sequence[Message]) -> str:
    """Identity of a prompt: 32 hexadecimal digits of the SHA-256 of its messages."""
    text = json.dumps([dict(message) for message in messages], sort_keys=True, ensure_ascii=False, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def read_rows(
    prompts: Sequence[Given],
    responses: Sequence[Any],
    gold: Sequence[Any] | None,
    columns: Mapping[str, Sequence[Any]] | None,
) -> list[Row]:
    """One row per response.

    Args:
        prompts: A prompt per response; prompts of a group repeat.
        responses: Texts, or lists of chat messages that end with the assistant's.
        gold: A gold answer per row, or None to look in `GOLD_COLUMNS`.
        columns: Further columns of the data, one value per row.

    Raises:
        DataError: Lengths differ, or a row is malformed.
    """
    columns = columns or {}
    counts = {"prompts": len(prompts), "gold answers": len(responses) if gold is None else len(gold)}
    counts |= {f"values of the column {name!r}": len(values) for name, values in columns.items()}
    for name, count in counts.items():
        if count != len(responses):
            raise DataError(f"{len(responses)} responses came with {count} {name}; give one per response")
    if gold is None:
        gold = next((columns[name] for name in GOLD_COLUMNS if name in columns), None)
    return [
        _row(
            f"row {index}",
            prompts[index],
            responses[index],
            None if gold is None else gold[index],
            {name: values[index] for name, values in columns.items()},
        )
        for index in range(len(responses))
    ]


def _row(where: str, given: Given, response: Any, gold: Any, columns: Mapping[str, Any]) -> Row:
    prompt = read_prompt(given, where, columns=columns)
    golds = read_gold(where, gold)
    if golds:
        several = {"answers": list(golds)} if len(golds) > 1 else {}
        prompt = dataclasses.replace(prompt, answer=golds[0], metadata={**prompt.metadata, **several})
    return Row(prompt, read_response(where, response))


def read_response(where: str, given: Any) -> str:
    """Text of a response: the text itself, or the assistant's last message.

    Raises:
        DataError: It is neither.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, Sequence) and given and all(isinstance(message, Mapping) for message in given):
        said = [message["content"] for message in read_messages(where, given) if message["role"] == "assistant"]
        if said:
            return str(said[-1])
    raise DataError(
        f"{where}: the response is {kind_of(given)}; give text, or messages with the assistant's at the end"
    )

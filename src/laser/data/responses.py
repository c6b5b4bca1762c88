"""Files of responses: one JSON object a line with a prompt and a response, as `laser eval --out` writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laser.core.errors import DataError
from laser.core.types import Prompt
from laser.data.files import Fields, load_file


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt and one policy's response to it.

    Attributes:
        prompt: The prompt.
        text: The response.
        finished: False if it was cut at the token limit; True if unknown.
        sampled_by: Identity of the weights and settings it was sampled with; None if unknown.
    """

    prompt: Prompt
    text: str
    finished: bool = True
    sampled_by: str | None = None


def load_responses(path: str | Path) -> list[Answered]:
    """Read responses.

    Args:
        path: As in `load_file`. A row has `prompt` (text or chat messages) and `response` (text), and may
            have `id`, `category`, `answer` and `finished`.

    Raises:
        DataError: The file is missing or malformed, or a row has no response; names file and row.
    """
    return [_answered(path, number, prompt) for number, prompt in enumerate(load_file(path, Fields()), start=1)]


def response_row(answered: Answered) -> str:
    """One line of such a file."""
    prompt = answered.prompt
    row = {
        "id": prompt.id,
        "category": prompt.category,
        "prompt": [dict(message) for message in prompt.messages],
        "answer": prompt.answer,
        "response": answered.text,
        "finished": answered.finished,
        "sampled_by": answered.sampled_by,
    }
    return json.dumps(row) + "\n"


def shared_prompts(first: Sequence[Answered], second: Sequence[Answered]) -> list[tuple[Answered, Answered]]:
    """Pair two policies' responses to the same prompts, in the order of the first.

    Prompts are the same if their messages are; ids may differ. Where a prompt occurs several times, the k-th is paired
    with the k-th.
    """
    waiting: dict[str, list[Answered]] = {}
    for answered in second:
        waiting.setdefault(prompt_key(answered.prompt), []).append(answered)
    pairs = []
    for answered in first:
        others = waiting.get(prompt_key(answered.prompt))
        if others:
            pairs.append((answered, others.pop(0)))
    return pairs


def _answered(path: str | Path, number: int, prompt: Prompt) -> Answered:
    extra: dict[str, Any] = dict(prompt.metadata)
    text, finished, sampled_by = extra.get("response"), extra.get("finished", True), extra.get("sampled_by")
    if not isinstance(text, str):
        raise DataError(f"{path} row {number} has no text in the field 'response'; write one response per row")
    return Answered(prompt, text, finished is not False, sampled_by if isinstance(sampled_by, str) else None)


def prompt_key(prompt: Prompt) -> str:
    """A key of the messages: two prompts have the same key if and only if their messages are equal."""
    return json.dumps([dict(message) for message in prompt.messages], sort_keys=True)

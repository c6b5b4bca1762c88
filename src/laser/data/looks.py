"""Rows in the forms that trainers write: which fields hold the prompt, and the better and the worse responses."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laser.core.errors import DataError
from laser.core.types import Message
from laser.data.conversations import check_prompt, is_conversation, kind_of, read_messages, read_text, response_text

PROMPT = "prompt"
"""The field that holds the prompt unless the user names another."""

_CONVERSATIONS = ("messages", "conversations", "conversation", "context_messages")
_INSTRUCTIONS = ("instruction", "query")
_QUESTIONS = ("question", "input")  # recognized next to two responses only

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Compared:
    """A prompt with correct and incorrect, or better and worse, responses; a pair has one of each."""

    messages: tuple[Message, ...]
    correct: tuple[str, ...]
    incorrect: tuple[str, ...]


def lookup(row: Row, name: str) -> Any:
    """The value of a field; dots lead into objects (``reward_model.ground_truth``). None if it is not there."""
    return _found(row, name)[1]


def has_field(row: Row, name: str) -> bool:
    """Whether a row has a field, null or not."""
    return _found(row, name)[0]


def read_prompt(where: str, row: Row, name: str) -> tuple[tuple[Message, ...], frozenset[str]]:
    """The prompt of a row, and the names of the fields that hold nothing else.

    In the named field, with `system` and a `history` of pairs before it; without a field `prompt`, in the fields of a
    known form: `messages` or `conversations` (the prompt is what comes before a last answer), `instruction` or `query`
    with `input`, `system` and `history`, or the shared beginning of `chosen` and `rejected`.

    Raises:
        DataError: There is no prompt, or one that cannot be used; names the row.
    """
    value = lookup(row, name)
    if value is not None:
        messages = _with_turns(where, row, value)
        if name != PROMPT:
            messages = _before_answer(messages)
        return check_prompt(where, messages), frozenset({name})
    found = _by_look(where, row) if name == PROMPT else None
    if found is not None:
        return check_prompt(where, _before_answer(found[0])), found[1]
    if name == PROMPT and is_conversation(row.get("chosen")) and is_conversation(row.get("rejected")):
        return read_compared(where, row, name).messages, frozenset()
    raise DataError(_no_prompt(where, row, name))


def read_compared(where: str, row: Row, name: str) -> Compared:
    """The prompt of a row with the responses that it compares.

    `chosen` and `rejected` hold a text, a conversation that ends with the response, or a list of texts (RewardBench 2);
    ms-swift writes `rejected_response` or `rejected_messages` instead. The shared beginning of both conversations is
    the prompt, which may also be in a separate field.

    Raises:
        DataError: A response or the prompt is missing, or the conversations differ before their last message.
    """
    base = _base(where, row, name)
    chosen, rejected = _responses(where, row)
    if any(isinstance(value, str) or is_conversation(value) for value in (chosen, rejected)):
        return _pair(where, base, chosen, rejected, row, name)
    correct, incorrect = _texts(where, "chosen", chosen), _texts(where, "rejected", rejected)
    for count, expected in (("num_correct", len(correct)), ("total_completions", len(correct) + len(incorrect))):
        if isinstance(row.get(count), int) and row[count] != expected:
            raise DataError(f"{where}: {count} is {row[count]}, but there are {expected}; get the file again")
    if base is None:
        raise DataError(_no_prompt(where, row, name))
    if len(correct) == len(incorrect) == 3 and "num_correct" not in row:
        raise DataError(
            f"{where} has 3 chosen and 3 rejected responses: for the nine pairs of RM-Bench use laser tasks export "
            "rm_bench, for the best of six add a field num_correct"
        )
    return Compared(check_prompt(where, base), correct, incorrect)


def _found(row: Row, name: str) -> tuple[bool, Any]:
    if name in row:
        return True, row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return False, None
        value = value[part]
    return True, value


def _base(where: str, row: Row, name: str) -> Sequence[Message] | None:
    """The prompt of a row from fields other than its responses; None if only they have one."""
    for named in dict.fromkeys((name, PROMPT)):
        if lookup(row, named) is not None:
            return _with_turns(where, row, lookup(row, named))
    found = _by_look(where, row)
    if found is not None:
        return _before_answer(found[0])
    asked = next((row[field] for field in _QUESTIONS if isinstance(row.get(field), str)), None)
    return None if asked is None else _with_turns(where, row, asked)


def _by_look(where: str, row: Row) -> tuple[list[Message], frozenset[str]] | None:
    """The conversation of a row of a known form, and the fields that hold nothing else; None if the form is unknown."""
    for field in _CONVERSATIONS:
        if is_conversation(row.get(field)):
            messages = _with_system(where, row, read_messages(where, row[field]))
            whole = messages[-1]["role"] != "assistant"
            return messages, frozenset({field, "system"}) if whole else frozenset({"system"})
    for field in _INSTRUCTIONS:
        if isinstance(row.get(field), str) and row[field].strip():
            return _instruction(where, row, row[field]), frozenset({field, "input", "system", "history"})
    return None


def _instruction(where: str, row: Row, instruction: str) -> list[Message]:
    """Alpaca's, LLaMA-Factory's and ms-swift's older form."""
    added, history = row.get("input"), row.get("history") or []
    if added is not None and not isinstance(added, str):
        raise DataError(f"{where}: 'input' is {kind_of(added)}; write text")
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise DataError(f"{where}: 'history' is not a list of pairs of question and answer; fix or remove the row")
    text = "\n".join(part for part in (instruction, added) if part and part.strip())
    turns = [*_turns(history), {"role": "user", "content": text}]
    return _with_system(where, row, read_messages(where, turns))


def _with_turns(where: str, row: Row, value: Any) -> list[Message]:
    """A prompt with the turns before it in `history`, a list of pairs, and the text of `system`."""
    history, messages = row.get("history") or [], read_messages(where, value)
    are_turns = isinstance(history, list) and all(isinstance(turn, list) and len(turn) == 2 for turn in history)
    if are_turns and history and len(messages) == 1:
        messages = read_messages(where, [*_turns(history), *messages])
    return _with_system(where, row, messages)


def _turns(history: Sequence[Sequence[Any]]) -> list[Message]:
    said = [part for turn in history for part in zip(("user", "assistant"), turn, strict=True)]
    return [{"role": role, "content": content} for role, content in said]


def _with_system(where: str, row: Row, messages: list[Message]) -> list[Message]:
    system = row.get("system")
    if not isinstance(system, str) or not system.strip() or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": read_text(where, system)}, *messages]


def _before_answer(messages: Sequence[Message]) -> list[Message]:
    """The conversation without the assistant's last message, if it ends with one."""
    return list(messages[:-1] if messages[-1]["role"] == "assistant" else messages)


def _responses(where: str, row: Row) -> tuple[Any, Any]:
    """The values that hold the better and the worse responses."""
    rejected = next(
        (row[name] for name in ("rejected", "rejected_response", "rejected_messages") if row.get(name) is not None),
        None,
    )
    chosen = row.get("chosen")
    if chosen is None and row.get("rejected") is None and rejected is not None:
        chosen = row.get("messages") if row.get("messages") is not None else row.get("response")
    for name, value in (("chosen", chosen), ("rejected", rejected)):
        if value is None or value in ("", []):
            raise DataError(f"{where} has no {name!r} response; it has {_fields(row)}")
    return chosen, rejected


def _pair(where: str, base: Sequence[Message] | None, chosen: Any, rejected: Any, row: Row, name: str) -> Compared:
    begun, better = _split(f"{where}, chosen", "chosen", chosen)
    other, worse = _split(f"{where}, rejected", "rejected", rejected)
    if begun and other and begun != other:
        raise DataError(
            f"{where}: chosen and rejected differ before their last message; give both the same conversation up to it, "
            "or remove the row"
        )
    begun = begun or other
    messages = _joined(base or [], begun)
    if messages is None:
        raise DataError(f"{where}: chosen begins with another conversation than the prompt; fix or remove the row")
    if not messages:
        raise DataError(_no_prompt(where, row, name))
    return Compared(check_prompt(where, messages), (better,), (worse,))


def _split(where: str, name: str, value: Any) -> tuple[list[Message], str]:
    """What comes before a response, and its text."""
    if isinstance(value, str) and not is_conversation(value):
        if not value.strip():
            raise DataError(f"{where.rpartition(',')[0]} has no {name!r} response; fill or remove the row")
        return [], read_text(where, value)
    turns = read_messages(where, value)
    return turns[:-1], response_text(where, turns[-1])


def _joined(base: Sequence[Message], begun: Sequence[Message]) -> list[Message] | None:
    """The prompt, from its field and the beginning of the responses; None if they are different conversations."""
    if begun and begun[0]["role"] == "assistant":
        return [*base, *begun]
    said, asked = ([(turn["role"], turn["content"].strip()) for turn in turns] for turns in (begun, base))
    if all(turn in said for turn in asked):
        return list(begun)
    return list(base) if not begun or (all(turn in asked for turn in said) and asked[-1] == said[-1]) else None


def _texts(where: str, name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or not all(isinstance(text, str) and text.strip() for text in value):
        kind = "a list of other things than text" if isinstance(value, Sequence) else kind_of(value)
        raise DataError(f"{where}: {name!r} is {kind}; give text, messages, or a list of texts")
    return tuple(read_text(where, text) for text in value)


def _no_prompt(where: str, row: Row, name: str) -> str:
    if has_field(row, name):
        return f"{where}: field {name!r} is null; fill or remove the row"
    close = difflib.get_close_matches(name, list(row), n=1)
    has = f"did you mean {close[0]!r:.80}? Set" if close else f"it has {_fields(row)}; set"
    return f"{where} has no field {name!r}; {has} data.prompt_field"


def _fields(row: Row) -> str:
    listed = ", ".join(f"{name!r:.60}" for name in list(row)[:20]) or "no fields"
    return listed + (", ..." if len(row) > 20 else "")

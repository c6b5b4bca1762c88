"""Conversations in the forms that data sets use, read as chat messages; what is not text is refused with its row."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence, Sized
from typing import Any

from laser.core.errors import DataError
from laser.core.types import Message

PASSED_ON = ("tool_calls", "tool_call_id", "name", "reasoning_content", "thinking", "function_call")
"""Fields of a message, next to role and content, that a chat template may read."""

ASKING = ("user", "tool", "function")
"""Roles that a prompt may end with: what the assistant answers."""

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "observation": "tool"}
_ROLE = re.compile(r"[A-Za-z][A-Za-z_-]*")
_TEXT_PARTS = ("text", "input_text", "output_text")
_LOOKS_WRITTEN = re.compile(  # the whole text is one message or a list of them, in JSON or as Python prints them
    r"""(?:array\()?\[?\s*\{(?=\s*["'](?:role|content|from|value)["']\s*:)
    (?=.*["'](?:role|from)["']\s*:\s*["'](?:system|developer|user|human|assistant|gpt|tool)["'])
    (?=.*["'](?:content|value)["']\s*:) .*\}\s*\]?(?:,\s*dtype=object)?\)?""",
    re.DOTALL | re.VERBOSE,
)
_MEDIA = re.compile(
    r"(?:input_)?(?:images?|audios?|videos?|pixel_values|multi_?modal_(?:data|inputs))"
    r"(?:_?\d+|_(?:paths?|urls?|files?|bytes))?",
    re.IGNORECASE,
)
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def read_messages(where: str, value: Any) -> list[Message]:
    """Messages of a conversation.

    Args:
        where: A place for error messages.
        value: Text, which the user says; one message; a list of messages with role and content (text, parts of text,
            or null next to tool calls) or, as ShareGPT writes them, with from and value; the JSON of messages, as CSV
            files have it; or a dialogue of HH-RLHF.

    Raises:
        DataError: It is something else, or a message holds anything but text.
    """
    if isinstance(value, str) and (written := _written(value)) is not None:
        value = written
    elif isinstance(value, str):
        if _LOOKS_WRITTEN.fullmatch(value.strip()):
            raise DataError(f"{where}: {brief(value)} looks like messages, but is not JSON; write the messages as JSON")
        return read_dialogue(value) if is_dialogue(value) else [{"role": "user", "content": read_text(where, value)}]
    if not is_conversation(value):
        raise DataError(f"{where}: {kind_of(value)} is neither text nor a list of messages with 'role' and 'content'")
    turns = [value] if isinstance(value, Mapping) else value
    return [_message(f"{where}, message {number}", turn) for number, turn in enumerate(turns, start=1)]


def check_media(where: str, row: Mapping[str, Any]) -> None:
    """Make sure that a row has nothing to see or hear next to its text.

    Raises:
        DataError: It has an image, audio or video, which would silently be missing from its prompt.
    """
    for name, value in row.items():
        is_empty = value is None or isinstance(value, int | float) or (isinstance(value, Sized) and not len(value))
        if not is_empty and isinstance(name, str) and _MEDIA.fullmatch(name):
            raise DataError(
                f"{where} has {brief(name)}, and laser reads text only; remove the rows with images, audio or video, "
                "or the field if the prompts can be answered without it"
            )


def is_conversation(value: Any) -> bool:
    """Whether a value looks like one message, several, their JSON, or a dialogue of HH-RLHF."""
    if isinstance(value, str):
        return is_dialogue(value) or _LOOKS_WRITTEN.fullmatch(value.strip()) is not None
    turns = [value] if isinstance(value, Mapping) else value
    return _is_list(turns) and bool(turns) and all(isinstance(turn, Mapping) for turn in turns)


def check_prompt(where: str, messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages, if a policy can answer them.

    Raises:
        DataError: There are none, or the last one is empty or the assistant's.
    """
    if not messages:
        raise DataError(f"{where} has an empty prompt; fill or remove it")
    last = messages[-1]
    if last["role"] not in ASKING:
        raise DataError(
            f"{where}: the last message is from {brief(last['role'])}; end the prompt with a user or tool message"
        )
    if not last["content"].strip():
        raise DataError(f"{where} has an empty prompt; fill or remove it")
    return tuple(messages)


def read_tools(value: Any) -> Any:
    """Definitions of tools as a list of objects, also from its JSON; any other value unchanged."""
    try:
        tools = _without_nulls(json.loads(value) if isinstance(value, str) else value)
        json.dumps(tools, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return value
    return tools if isinstance(tools, list) else value


def response_text(where: str, message: Message) -> str:
    """Text of an assistant's message.

    Raises:
        DataError: It is from another role, or has no text.
    """
    if message["role"] != "assistant":
        raise DataError(
            f"{where}: the last message is from {brief(message['role'])}; end it with the assistant's response"
        )
    text: str = message["content"]
    if not text.strip():
        has = (
            f"only {', '.join(repr(name) for name in PASSED_ON if name in message)}" if len(message) > 2 else "no text"
        )
        raise DataError(f"{where}: the response has {has}; fill or remove the row")
    return text


def _written(text: str) -> Any:
    """The messages in JSON, or in Python's spelling of the same, that a text consists of; None for any other text."""
    if not _LOOKS_WRITTEN.fullmatch(text.strip()):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value
    return None


def is_dialogue(text: str) -> bool:
    r"""Whether a text is a dialogue of HH-RLHF: it begins with "\n\nHuman:"."""
    return text.startswith(_HUMAN)


def read_dialogue(text: str) -> list[Message]:
    """Messages of a dialogue of HH-RLHF; empty turns are left out, and turns of one side in a row are joined."""
    turns: list[dict[str, Any]] = []
    for part in text.split(_HUMAN)[1:]:
        human, *replies = part.split(_ASSISTANT)
        for role, said in (("user", human), *(("assistant", reply) for reply in replies)):
            if not said.strip():
                continue
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += f"\n\n{said.strip()}"
            else:
                turns.append({"role": role, "content": said.strip()})
    return list(turns)


def read_text(where: str, value: Any) -> str:
    """A value as text that can be written and tokenized.

    Raises:
        DataError: It is a list or an object, or holds half of a surrogate pair.
    """
    if isinstance(value, Mapping | list | tuple):
        raise DataError(f"{where}: an id, a category or another text is {kind_of(value)}; write text or a number")
    try:
        text = str(value)
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} holds half of a surrogate pair, which is not text; fix or remove the row") from error
    except RecursionError as error:
        raise DataError(f"{where} is nested too deeply; fix or remove the row") from error
    return text


def kind_of(value: Any) -> str:
    """What a value is, in words: "a number"."""
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return f"a value of type {type(value).__name__}"


def brief(value: Any) -> str:
    """A value as Python writes it, at most 60 characters, for error messages."""
    try:
        return f"{value!r:.60}"
    except RecursionError:
        return f"{kind_of(value)}, nested too deeply"


def _message(where: str, turn: Mapping[str, Any]) -> Message:
    role, content = (turn.get("role"), turn.get("content")) if "role" in turn else (turn.get("from"), turn.get("value"))
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise DataError(f"{where}: {brief(role)} is not a role; use system, user, assistant or tool")
    given = {name: turn[name] for name in PASSED_ON if turn.get(name) not in (None, [], "")}
    try:
        passed = {name: _without_nulls(value) for name, value in given.items()}
        json.dumps(passed, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: {', '.join(given)} cannot be written as JSON; fix or remove the row") from error
    if content is None and not passed:
        raise DataError(f"{where} has no content; each message needs 'role' and 'content'")
    return {"role": _ROLES.get(role, role), "content": _content(where, content), **passed}


def _content(where: str, content: Any) -> str:
    """Text; text parts are joined, and null (a message of tool calls alone) is empty."""
    if content is None:
        return ""
    if isinstance(content, str):
        return read_text(where, content)
    if not _is_list(content):
        raise DataError(f"{where}: the content is {kind_of(content)}; write text, or a list of parts of text")
    return "".join(_part(where, part) for part in content)


def _part(where: str, part: Any) -> str:
    if isinstance(part, str):
        return read_text(where, part)
    kind = part.get("type", "text") if isinstance(part, Mapping) else kind_of(part)
    if kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
        raise DataError(
            f"{where} has a part of type {brief(kind)}; laser reads text only, so remove the part or the row"
        )
    return read_text(where, part["text"])


def _without_nulls(value: Any) -> Any:
    """The value without nulls in its objects, which Parquet adds where rows differ in their fields."""
    if isinstance(value, Mapping):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if _is_list(value) else value


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)

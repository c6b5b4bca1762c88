"""Text that a trainer has already rendered with its chat template: where the prompt ends, and what its turns were."""

from __future__ import annotations

import re
from collections.abc import Sequence

from laser.core.types import Message

_LEAST_OVERLAP = 16  # characters of a cut prompt that must still be in front of the response
_END = re.compile(r"(?:\s*(?:<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|</s>|<eos>|<end_of_turn>|<pad>))+\s*\Z")
_BEGIN = re.compile(r"(?:<\|begin_of_text\|>|<bos>|<s>)?")
_TURNS = (
    (re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n?", re.DOTALL), re.compile(r"<\|im_start\|>assistant\n")),
    (
        re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", re.DOTALL),
        re.compile(r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n"),
    ),
    (re.compile(r"<start_of_turn>(\w+)\n(.*?)<end_of_turn>\n?", re.DOTALL), re.compile(r"<start_of_turn>model\n")),
)
"""A turn (role and content) and the opening of the assistant's reply, in ChatML, Llama 3 and Gemma."""


def response_in(query: str, prompt: str) -> str | None:
    """The response at the end of `query`, which is the decoded tokens of prompt and response.

    Decoding may change white space, and a trainer cuts long prompts at their beginning.

    Returns:
        The text behind the prompt; None if the query does not continue the prompt.
    """
    if query.startswith(prompt):
        return query[len(prompt) :]
    end = _end_of(prompt, query)
    if end is not None:
        return query[end:]
    return _behind_cut(query, prompt)


def without_end(response: str) -> str:
    """A response without the special tokens that end it, such as ``<|im_end|>`` or ``</s>``."""
    return _END.sub("", response)


def turns_of(text: str) -> Sequence[Message] | None:
    """The messages of a prompt that was rendered by a ChatML, Llama 3 or Gemma template; None for other text."""
    begin = _BEGIN.match(text)
    start = begin.end() if begin is not None else 0
    for turn, reply in _TURNS:
        messages, at = [], start
        while (found := turn.match(text, at)) is not None:
            messages.append({"role": "assistant" if found[1] == "model" else found[1], "content": found[2].strip()})
            at = found.end()
        if messages and reply.match(text, at) is not None:
            return messages
    return None


def _end_of(prompt: str, query: str) -> int | None:
    """Where a prompt ends in a query that differs from it in white space only; None if it differs otherwise."""
    at = 0
    for character in prompt:
        if character.isspace():
            continue
        while at < len(query) and query[at].isspace():
            at += 1
        if at == len(query) or query[at] != character:
            return None
        at += 1
    for _ in range(len(prompt) - len(prompt.rstrip())):
        if at < len(query) and query[at].isspace():
            at += 1
    return at


def _behind_cut(query: str, prompt: str) -> str | None:
    """The response behind the longest end of the prompt that the query begins with."""
    for size in range(min(len(prompt), len(query)), _LEAST_OVERLAP - 1, -1):
        if query.startswith(prompt[-size:]):
            return query[size:]
    return None

"""Prompts as token ids through a model's own chat template, with control tokens out of the user's reach."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from laser.core.errors import DataWarning, ModelError
from laser.core.types import Message

PLAIN_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
"""Chat template of a base model: what was said, line by line, without roles."""

_OF_TOOLS = {"tool_calls": "an empty message instead", "tools": "nothing of them"}
"""What a model reads instead of them where its template does not show them."""

_CONTROL_TOKENS: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, frozenset[str]]] = WeakKeyDictionary()
"""Facts that are costly to collect from a large vocabulary, with its size at that time."""


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    system_prompt: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    generation_prompt: bool = True,
) -> list[int]:
    """Render messages with the chat template and tokenize.

    Text inside a message that spells a special token (``<|im_end|>``) stays text, and the template renders the rest of
    the message as it would without. A role that spells one is refused.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The conversation.
        system_prompt: Put first unless the conversation has a system message.
        tools: Definitions of the tools that the assistant may call.
        generation_prompt: Whether to open the assistant's turn at the end.

    Returns:
        Token ids, control tokens of the template included.

    Raises:
        ModelError: The tokenizer has no chat template, the template refuses the conversation, or a role or a tool
            spells a special token.
    """
    conversation = _conversation(tokenizer, messages, system_prompt, tools)
    if any(_spells_special_token(tokenizer, message["content"]) for message in conversation):
        return _encode_guarded(tokenizer, conversation, generation_prompt, tools)
    return _tokenize(tokenizer, _render(tokenizer, conversation, generation_prompt, tools))


def surely_fits(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    limit: int,
    *,
    system_prompt: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
) -> bool:
    """Whether the length of the text alone tells that `encode_prompt` gives at most `limit` tokens; takes less time.

    A token takes a byte at least. Normalization adds no more than a space before each piece of ASCII text, and makes
    at most 11 bytes of one elsewhere (U+FDFA under NFKC). If False, only tokenizing tells; raises what `encode_prompt`
    raises.
    """
    if not tokenizer.is_fast or 2 * sum(len(message["content"]) for message in messages) > limit:
        return False
    conversation = _conversation(tokenizer, messages, system_prompt, tools)
    if any(_spells_special_token(tokenizer, message["content"]) for message in conversation):
        return False
    text = _render(tokenizer, conversation, True, tools)
    return len(text.encode("utf-8", "surrogatepass")) * (2 if text.isascii() else 12) <= limit


def _conversation(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    system_prompt: str | None,
    tools: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The messages that the template gets; raises ModelError if there is none, or a field spells a control token."""
    if not has_chat_template(tokenizer):
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path or 'this model'} has no chat template; "
            "use a chat model, or template = 'plain' for a reward model"
        )
    conversation = [dict(message) for message in messages]
    if system_prompt is not None and conversation[0]["role"] != "system":
        conversation = [{"role": "system", "content": system_prompt}, *conversation]
    for message in conversation:
        if _spells_special_token(tokenizer, message["role"]):
            raise ModelError(f"the role {message['role']!r} spells a control token; use system, user or assistant")
        others = {name: value for name, value in message.items() if name not in ("role", "content")}
        _check_fields(tokenizer, "message", others)
    _check_fields(tokenizer, "prompt", {"tools": tools} if tools else {})
    return conversation


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token id that ends the assistant's turn, or None if there is none.

    It is the first control token that the chat template puts behind the assistant's text: Gemma's ``<end_of_turn>``,
    Llama 3's ``<|eot_id|>``, ``<|im_end|>`` of a Qwen base model. Without a template, or where the template puts none
    there, it is the tokenizer's EOS.
    """
    behind = _behind_answer(tokenizer) if has_chat_template(tokenizer) else ""
    added = {int(index) for index in getattr(tokenizer, "added_tokens_decoder", {})} | control_ids(tokenizer)
    found = (
        token for token in _tokenize(tokenizer, behind) if token in added and str(tokenizer.decode([token])).strip()
    )
    end = next(found, tokenizer.eos_token_id)
    return None if end is None else int(end)


def _behind_answer(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template's text after the assistant's; empty where it refuses the conversation or drops the answer."""
    answer = _unused_mark([])
    conversation = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
    try:
        return _render(tokenizer, conversation, generation_prompt=False).rpartition(answer)[2]
    except ModelError:
        return ""


def has_chat_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer carries a chat template."""
    return getattr(tokenizer, "chat_template", None) is not None


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Tokenize text in which nothing is a control token, without adding any."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """`encode_text` of many texts in one call, which takes less time."""
    if not texts:
        return []
    return [
        list(ids) for ids in tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ]


def encode_pieces(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[tuple[str, bool]]) -> list[int]:
    """Tokenize a filled template: control tokens in its own text, none in what was filled in; without adding any.

    Args:
        tokenizer: A tokenizer.
        pieces: Text and whether it was filled in, in order.
    """
    if not any(filled and _spells_special_token(tokenizer, text) for text, filled in pieces):
        return _tokenize(tokenizer, "".join(text for text, _ in pieces))
    parts = (encode_text(tokenizer, text) if filled else _tokenize(tokenizer, text) for text, filled in pieces)
    return [token for part in parts for token in part]


def _check_fields(tokenizer: PreTrainedTokenizerBase, owner: str, fields: Mapping[str, Any]) -> None:
    """Refuse control tokens in fields next to the content, and warn where the template shows no tools or calls."""
    if fields and _spells_special_token(tokenizer, json.dumps(fields, ensure_ascii=False)):
        raise ModelError(f"{', '.join(fields)} of a {owner} spells a control token; remove it from the data")
    for name, instead in _OF_TOOLS.items():
        if name in fields and name not in str(tokenizer.chat_template):
            warnings.warn(
                f"the chat template of {tokenizer.name_or_path or 'a tokenizer'} does not show {name}, so the model "
                f"reads {instead}; use a model that is trained on tools",
                DataWarning,
                stacklevel=2,
            )


def _render(
    tokenizer: PreTrainedTokenizerBase,
    conversation: list[dict[str, Any]],
    generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    try:
        text = tokenizer.apply_chat_template(
            conversation,
            tools=[dict(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=generation_prompt,
        )
    except Exception as error:  # templates are programs and raise what they like
        raise ModelError(f"the chat template of {tokenizer.name_or_path} refuses the conversation: {error}") from error
    return str(text)


def _tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _spells_special_token(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    return any(token in text for token in _control_tokens(tokenizer))


def control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the special tokens."""
    vocabulary = tokenizer.get_vocab()
    return {int(vocabulary[token]) for token in _control_tokens(tokenizer) if token in vocabulary}


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """Special tokens. Others that were added (``<think>``, Gemma's ``<b>``) are words of the model like any text."""
    known = _CONTROL_TOKENS.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        special = {str(token) for token in added if token.special} | set(tokenizer.all_special_tokens)
        known = _CONTROL_TOKENS[tokenizer] = len(tokenizer), frozenset(special - {""})
    return known[1]


def _encode_guarded(
    tokenizer: PreTrainedTokenizerBase,
    conversation: list[dict[str, Any]],
    generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] = (),
) -> list[int]:
    """Render with a mark in place of each control token that a message spells, then tokenize these apart.

    The template sees everything else of the messages, so it trims, splits and decides as it does without them.
    """
    mark = _unused_mark([message["content"] for message in conversation])
    control = sorted(_control_tokens(tokenizer), key=len, reverse=True)  # the longest first, as tokenizers match them
    pattern = re.compile("|".join(map(re.escape, control)))
    spelled: list[str] = []

    def marked(found: re.Match[str]) -> str:
        spelled.append(found.group())
        return f"{mark}{len(spelled) - 1}{mark}"

    marked_conversation = [{**message, "content": pattern.sub(marked, message["content"])} for message in conversation]
    rendered = _render(tokenizer, marked_conversation, generation_prompt, tools)
    ids: list[int] = []
    for number, piece in enumerate(re.split(f"{mark}(\\d+){mark}", rendered)):  # text, spelled token, text, ...
        ids += encode_text(tokenizer, spelled[int(piece)]) if number % 2 == 1 else _tokenize(tokenizer, piece)
    return ids


def _unused_mark(texts: Sequence[str]) -> str:
    """A private-use character that none of the texts has."""
    return next(chr(code) for code in range(0xE000, 0xF900) if not any(chr(code) in text for text in texts))

"""Single tokens of a tokenizer, and the special ones that it puts around a text."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from laser.core.errors import RewardModelError


def token_of(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """The id of a text that is one token.

    Raises:
        RewardModelError: It is not.
    """
    vocabulary = tokenizer.get_vocab()
    if text in vocabulary:
        return int(vocabulary[text])
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise RewardModelError(f"{text!r} is not a token of {tokenizer.name_or_path or 'the model'}; name one that is")
    return int(ids[0])


def surroundings(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text, such as BOS, or [CLS] and [SEP]."""
    bare = list(tokenizer("x", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("x")["input_ids"])
    begin = next(place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
    return whole[:begin], whole[begin + len(bare) :]


def surrounded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    """Token ids between the tokenizer's special tokens; one that is there already is not added twice."""
    before, after = surroundings(tokenizer)
    ids = list(ids)
    if before and ids[: len(before)] == before:
        before = []
    if after and ids[-len(after) :] == after:
        after = []
    return [*before, *ids, *after]


def first_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that every text begins with and that is never cut: BOS, or [CLS]."""
    candidates = (tokenizer.bos_token_id, tokenizer.cls_token_id)
    return next((int(candidate) for candidate in candidates if candidate is not None), None)

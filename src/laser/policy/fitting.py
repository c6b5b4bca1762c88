"""Shorten prompts that are longer than the policy's window: cut out the middle, and count it.

A long prompt has its instructions at the beginning and the question at the end, so both are kept, as in LongBench
(arXiv 2308.14508, Sec. 3: truncation in the middle). Reward models read the shortened prompt too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from laser.core.types import Prompt
from laser.lm.chat import encode_text
from laser.policy.policy import Policy

_TRIES = 8  # head and tail together can tokenize to more tokens, which then needs a wider cut


@dataclass(frozen=True, slots=True)
class Fitted:
    """Prompts that leave room for a response.

    Attributes:
        prompts: In their order; a shortened one has the number of removed tokens as `metadata["cut_tokens"]`.
        num_cut: Prompts that were shortened.
        num_tokens: Tokens removed from them.
    """

    prompts: Sequence[Prompt]
    num_cut: int
    num_tokens: int


def cut_middle(policy: Policy, prompts: Sequence[Prompt], max_new_tokens: int) -> Fitted:
    """Cut the middle out of the last message of every prompt that is too long.

    Args:
        policy: Gives the tokenizer, chat template and window.
        prompts: Prompts of any length; those that fit stay unchanged.
        max_new_tokens: Room that a response needs.

    Returns:
        The prompts. One whose last message is too short to cut stays too long, and `Policy.check_fits` refuses it.
    """
    limit = policy.context_length - max_new_tokens
    fitted = [_fit(policy, prompt, limit) for prompt in prompts]
    lost = [int(prompt.metadata.get("cut_tokens", 0)) for prompt in fitted]
    return Fitted(fitted, sum(count > 0 for count in lost), sum(lost))


def _fit(policy: Policy, prompt: Prompt, limit: int) -> Prompt:
    length = len(policy.encode([prompt])[0])
    if length <= limit:
        return prompt
    ids = encode_text(policy.tokenizer, prompt.text)
    keep, shortened, found = len(ids) - (length - limit), prompt, length
    for _ in range(_TRIES):
        if keep <= 0 or found <= limit:
            break
        shortened = _with_text(prompt, _joined(policy, prompt.text, ids, keep), len(ids) - keep)
        found = len(policy.encode([shortened])[0])
        keep -= max(found - limit, 0)
    return shortened if found <= limit else prompt


def _joined(policy: Policy, text: str, ids: list[int], keep: int) -> str:
    """Text of the first and the last tokens, half of `keep` each."""
    first, last = keep - keep // 2, len(ids) - keep // 2
    if policy.tokenizer.is_fast:  # exact also where a token is unknown and cannot be decoded
        encoded = policy.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        spans = encoded["offset_mapping"]
        return text[: spans[first - 1][1]] + (text[spans[last][0] :] if last < len(ids) else "")
    decoded = (policy.tokenizer.decode(part, clean_up_tokenization_spaces=False) for part in (ids[:first], ids[last:]))
    return "".join(str(part).replace("\ufffd", "") for part in decoded)  # bytes of a character that the cut has divided


def _with_text(prompt: Prompt, text: str, cut_tokens: int) -> Prompt:
    last = {**prompt.messages[-1], "content": text}
    metadata = {**prompt.metadata, "cut_tokens": cut_tokens}
    return replace(prompt, messages=(*prompt.messages[:-1], last), metadata=metadata)

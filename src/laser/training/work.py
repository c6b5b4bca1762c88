"""The responses that pairs use, gathered once each: what a micro-batch sends through the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laser.core.types import Pair, Responses

TokenIds = Sequence[int]


@dataclass(frozen=True, slots=True)
class Work:
    """The responses that pairs use, numbered afresh: `slots[prompt][response]` is the row of its log-prob."""

    prompts: tuple[int, ...]
    prompt_ids: list[list[int]]
    response_ids: list[list[TokenIds]]
    slots: dict[tuple[int, int], int]


def collect(prompt_ids: Sequence[TokenIds], responses: Responses, pairs: Sequence[Pair]) -> Work:
    """Gather the distinct responses of `pairs`, prompt by prompt, and number them."""
    used: dict[int, set[int]] = {}
    for pair in pairs:
        used.setdefault(pair.prompt, set()).update((pair.chosen, pair.rejected))
    prompts = tuple(sorted(used))
    keys = [(prompt, index) for prompt in prompts for index in sorted(used[prompt])]
    return Work(
        prompts=prompts,
        prompt_ids=[list(prompt_ids[prompt]) for prompt in prompts],
        response_ids=[[responses[prompt][index].token_ids for index in sorted(used[prompt])] for prompt in prompts],
        slots={key: slot for slot, key in enumerate(keys)},
    )


def num_tokens_of(work: Work) -> int:
    """Prompt and response tokens, each prompt once."""
    return sum(len(ids) for ids in work.prompt_ids) + sum(len(ids) for row in work.response_ids for ids in row)


def group_by_prompt(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs of each prompt that has any, in the order of the prompts."""
    groups: dict[int, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.prompt, []).append(pair)
    return [groups[prompt] for prompt in sorted(groups)]


def split_by_prompt(pairs: Sequence[Pair], num_chunks: int) -> list[list[Pair]]:
    """Split into at most `num_chunks` lists of whole prompts, as even as possible."""
    groups = group_by_prompt(pairs)
    chunks = np.array_split(np.arange(len(groups)), min(num_chunks, len(groups)))
    return [[pair for index in chunk for pair in groups[index]] for chunk in chunks]

"""The responses that pairs use: what a micro-batch sends through the policy, each response once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from laser.core.types import FloatArray, Pair, Responses

TokenIds = Sequence[int]


@dataclass(frozen=True, slots=True)
class UsedResponses:
    """The distinct responses of some pairs, prompt by prompt, numbered from 0.

    Attributes:
        prompts: Rows of the prompts in the batch, ascending.
        prompt_ids: Their token ids.
        response_ids: For each of them, the token ids of its responses.
        numbers: The number of each (prompt, response).
    """

    prompts: tuple[int, ...]
    prompt_ids: list[list[int]]
    response_ids: list[list[TokenIds]]
    numbers: dict[tuple[int, int], int]

    @property
    def num_tokens(self) -> int:
        """Prompt and response tokens, each prompt once."""
        return sum(map(len, self.prompt_ids)) + sum(len(ids) for row in self.response_ids for ids in row)


def collect(prompt_ids: Sequence[TokenIds], responses: Responses, pairs: Sequence[Pair]) -> UsedResponses:
    """Gather the distinct responses of `pairs`."""
    used: dict[int, set[int]] = {}
    for pair in pairs:
        used.setdefault(pair.prompt, set()).update((pair.chosen, pair.rejected))
    prompts = tuple(sorted(used))
    keys = [(prompt, index) for prompt in prompts for index in sorted(used[prompt])]
    return UsedResponses(
        prompts=prompts,
        prompt_ids=[list(prompt_ids[prompt]) for prompt in prompts],
        response_ids=[[responses[prompt][index].token_ids for index in sorted(used[prompt])] for prompt in prompts],
        numbers={key: number for number, key in enumerate(keys)},
    )


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


def micro_batches(
    prompt_ids: Sequence[TokenIds], responses: Responses, pairs: Sequence[Pair], max_batch_tokens: int
) -> Iterator[list[Pair]]:
    """Pairs of whole prompts, up to the token budget."""
    micro: list[Pair] = []
    num_tokens = 0
    for group in group_by_prompt(pairs):
        needed = collect(prompt_ids, responses, group).num_tokens
        if micro and num_tokens + needed > max_batch_tokens:
            yield micro
            micro, num_tokens = [], 0
        micro = micro + group
        num_tokens += needed
    if micro:
        yield micro


def mean_over_pairs(losses_B: FloatArray, pairs: Sequence[Pair]) -> float:
    """Mean over pairs of the losses of their prompts; NaN without pairs."""
    return float(np.mean([losses_B[pair.prompt] for pair in pairs])) if pairs else float("nan")

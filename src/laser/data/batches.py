"""Batches of one iteration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from laser.data.store import categories_of
from laser.seeding import stream
from laser.types import Prompt

Batching = Literal["shuffled", "by_category"]


def batches(
    prompts: Sequence[Prompt],
    *,
    batch_size: int,
    num_batches: int | None,
    batching: Batching,
    seed: int,
    iteration: int,
) -> list[list[int]]:
    """Draw the batches of one iteration, as indices into `prompts`.

    A function of (seed, iteration) alone, so a resumed run draws the same. One pass has every prompt once; its last
    batches may be short, none is dropped.

    Source: arXiv 2410.01735, Sec. 4.1: reasoning data is shuffled, WildChat batches hold one category each.

    Args:
        prompts: The training prompts.
        batch_size: Prompts per batch.
        num_batches: Batches wanted; None: one pass. More than a pass starts another, freshly shuffled.
        batching: "shuffled" over all prompts, or "by_category".
        seed: The run's seed.
        iteration: Number of the iteration.
    """
    drawn: list[list[int]] = []
    repeat = 0
    while not drawn or (num_batches is not None and len(drawn) < num_batches):
        drawn += _one_pass(prompts, batch_size, batching, stream(seed, "data", 1, iteration, repeat))
        repeat += 1
    return drawn[:num_batches]


def _one_pass(
    prompts: Sequence[Prompt], batch_size: int, batching: Batching, generator: np.random.Generator
) -> list[list[int]]:
    if batching == "shuffled":
        return list(_cut(generator.permutation(len(prompts)).tolist(), batch_size))
    members: dict[str, list[int]] = {}
    for index, category in enumerate(categories_of(prompts)):
        members.setdefault(category, []).append(index)
    cut = [
        batch for name in sorted(members) for batch in _cut(generator.permutation(members[name]).tolist(), batch_size)
    ]
    return [cut[position] for position in generator.permutation(len(cut))]


def _cut(indices: list[int], size: int) -> Iterator[list[int]]:
    return (indices[begin : begin + size] for begin in range(0, len(indices), size))

"""Batches of one iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from laser.core.seeding import stream
from laser.core.types import IntArray, Prompt
from laser.data.store import categories_of

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

    The batches depend on (seed, iteration) alone, so a resumed run draws the same ones. One pass has every prompt once;
    its last batches may be short, none is dropped.

    Source: arXiv 2410.01735, Sec. 4.1: reasoning data is shuffled, WildChat batches hold one category each.

    Args:
        prompts: The training prompts.
        batch_size: Prompts per batch.
        num_batches: Number of batches; None: one pass. After a full pass another begins, shuffled anew.
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
        return _cut(generator.permutation(len(prompts)), batch_size)
    names, kinds = np.unique(np.array(categories_of(prompts), dtype=object), return_inverse=True)
    members = (generator.permutation(np.flatnonzero(kinds == kind)) for kind in range(len(names)))
    cut = [batch for indices in members for batch in _cut(indices, batch_size)]
    return [cut[position] for position in generator.permutation(len(cut))]


def _cut(indices: IntArray, size: int) -> list[list[int]]:
    return [indices[begin : begin + size].tolist() for begin in range(0, len(indices), size)]

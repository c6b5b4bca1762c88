"""Deterministic train, dev and test splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from laser.errors import DataError
from laser.seeding import stream
from laser.types import Prompt


@dataclass(frozen=True, slots=True)
class Splits:
    """Prompts to train on, to check progress on, and to report on."""

    train: list[Prompt]
    dev: list[Prompt]
    test: list[Prompt]


def split(prompts: Sequence[Prompt], *, train: int | None, dev: int, test: int, seed: int) -> Splits:
    """Split prompts, categories spread evenly, no conversation in two splits.

    Args:
        prompts: All prompts; repeated conversations count once.
        train: Number of training prompts; None: all that remain.
        dev: Number of development prompts.
        test: Number of test prompts.
        seed: The run's seed; the same prompts and seed give the same splits, and a larger dev or test split contains
            the smaller.

    Raises:
        DataError: There are too few prompts.
    """
    distinct = list({_conversation(prompt): prompt for prompt in reversed(prompts)}.values())[::-1]
    needed = dev + test + (train if train is not None else 1)
    if needed > len(distinct):
        wanted = f"{train if train is not None else 'at least 1'} train + {dev} dev + {test} test"
        raise DataError(
            f"the splits ask for {wanted} prompts, but there are {len(distinct)} distinct ones; "
            "lower split.train, split.dev or split.test, or add prompts"
        )
    ordered = _interleaved(distinct, seed)
    rest = ordered[dev + test :]
    return Splits(train=rest if train is None else rest[:train], dev=ordered[:dev], test=ordered[dev : dev + test])


def _conversation(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in prompt.messages)


def _interleaved(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Shuffle within each category, then deal the categories out in turn."""
    by_category: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_category.setdefault(prompt.category, []).append(prompt)
    shuffled = []
    for index, category in enumerate(sorted(by_category)):
        members = by_category[category]
        order = stream(seed, "data", 0, index).permutation(len(members))
        shuffled.append([members[position] for position in order])
    return [prompt for prompt in chain.from_iterable(zip_longest(*shuffled)) if prompt is not None]

"""Deterministic train, dev and test splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from laser.data.store import categories_of, digest, first_of_each, pick
from laser.errors import DataError
from laser.seeding import stream
from laser.tasks import Role
from laser.types import IntArray, Prompt


@dataclass(frozen=True, slots=True)
class Splits:
    """Prompts to train on, to check progress on, and to report on."""

    train: Sequence[Prompt]
    dev: Sequence[Prompt]
    test: Sequence[Prompt]


def split(
    prompts: Sequence[Prompt], *, train: int | None, dev: int, test: int, seed: int, shrink: bool = False
) -> Splits:
    """Split prompts, categories spread evenly, no conversation in two splits.

    Args:
        prompts: All prompts; repeated conversations count once.
        train: Number of training prompts; None: all that remain.
        dev: Number of development prompts.
        test: Number of test prompts.
        seed: The run's seed; the same prompts and seed give the same splits, and a larger dev or test split contains
            the smaller.
        shrink: Where there are too few prompts, keep the proportions of the three numbers, or 70 : 10 : 20 without a
            number for training, instead of raising.

    Raises:
        DataError: There are too few prompts, and `shrink` is off.
    """
    distinct = first_of_each(prompts)
    sizes = _affordable(train, dev, test, len(distinct), shrink)
    categories = categories_of(prompts)
    ordered = distinct[_interleaved([categories[index] for index in distinct], seed)]
    held_out = sizes.dev + sizes.test
    end = None if sizes.train is None else held_out + sizes.train
    return Splits(
        train=pick(prompts, ordered[held_out:end]),
        dev=pick(prompts, ordered[: sizes.dev]),
        test=pick(prompts, ordered[sizes.dev : held_out]),
    )


def split_pools(
    pools: Mapping[Role, Sequence[Prompt]], *, train: int | None, dev: int, test: int, shrink: bool, seed: int
) -> Splits:
    """Split the prompts of a task that has splits of its own.

    Test prompts come from the original test split as far as it goes, then from dev, then from train; development
    prompts from dev, then train, then test; training prompts from train, then dev, then test. Categories are spread in
    proportion, and a conversation in two original splits counts for the earlier of train, dev, test.

    Args:
        pools: Prompts by original split.
        train: Number of training prompts; None: all that remain, those of the original test split excepted unless
            there is no other.
        dev: Number of development prompts.
        test: Number of test prompts.
        shrink: Where there are too few prompts, keep the proportions of the three numbers, or 70 : 10 : 20 without a
            number for training, instead of raising.
        seed: The run's seed; a larger test split contains the smaller.

    Raises:
        DataError: There are too few prompts, and `shrink` is off.
    """
    distinct: dict[Role, list[Prompt]] = {"train": [], "dev": [], "test": []}
    seen: set[bytes] = set()
    for role in distinct:
        for prompt in pools.get(role, ()):
            conversation = digest(prompt.messages)
            if conversation not in seen:
                seen.add(conversation)
                distinct[role].append(prompt)
    wanted = _affordable(train, dev, test, len(seen), shrink)
    left = {role: _in_proportion(prompts, seed) for role, prompts in distinct.items()}
    test_prompts = _take(left, ("test", "dev", "train"), wanted.test)
    dev_prompts = _take(left, ("dev", "train", "test"), wanted.dev)
    if wanted.train is not None:
        return Splits(_take(left, ("train", "dev", "test"), wanted.train), dev_prompts, test_prompts)
    own = [*left["train"], *left["dev"]]
    return Splits(own or left["test"], dev_prompts, test_prompts)


@dataclass(frozen=True, slots=True)
class _Sizes:
    train: int | None
    dev: int
    test: int


def _affordable(train: int | None, dev: int, test: int, available: int, shrink: bool) -> _Sizes:
    needed = dev + test + (train if train is not None else 1)
    if needed <= available:
        return _Sizes(train, dev, test)
    if not shrink:
        wanted = f"{train if train is not None else 'at least 1'} train + {dev} dev + {test} test"
        raise DataError(
            f"the splits ask for {wanted} prompts, but there are {available} distinct ones; lower split.train, "
            "split.dev or split.test, add prompts, or set split.shrink = true to keep their proportions"
        )
    if train is None:
        return _Sizes(None, min(dev, available // 10), min(test, available // 5))
    return _Sizes(train * available // needed, dev * available // needed, test * available // needed)


def _in_proportion(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Shuffle within each category, then merge so that every beginning has each category in proportion."""
    placed: list[tuple[float, int, Prompt]] = []
    for index, members in enumerate(_members(categories_of(prompts)).values()):
        order = stream(seed, "data", 0, index).permutation(len(members))
        placed += [((rank + 0.5) / len(members), index, prompts[members[member]]) for rank, member in enumerate(order)]
    return [prompt for _, _, prompt in sorted(placed, key=lambda item: item[:2])]


def _take(left: dict[Role, list[Prompt]], order: Sequence[Role], number: int) -> list[Prompt]:
    """Remove and return so many prompts, from the first role that has any."""
    taken: list[Prompt] = []
    for role in order:
        missing = number - len(taken)
        taken, left[role] = taken + left[role][:missing], left[role][missing:]
    return taken


def _interleaved(categories: Sequence[str], seed: int) -> IntArray:
    """Shuffle within each category, then deal the categories out in turn: positions."""
    shuffled = []
    for index, members in enumerate(_members(categories).values()):
        order = stream(seed, "data", 0, index).permutation(len(members))
        shuffled.append([members[position] for position in order])
    dealt = chain.from_iterable(zip_longest(*shuffled))
    return np.array([position for position in dealt if position is not None], dtype=np.int64)


def _members(categories: Sequence[str]) -> dict[str, list[int]]:
    """Positions of each category, in the order of their names."""
    members: dict[str, list[int]] = {name: [] for name in sorted(set(categories))}
    for position, name in enumerate(categories):
        members[name].append(position)
    return members

"""Deterministic train, dev and test splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from laser.core.errors import DataError
from laser.core.seeding import stream
from laser.core.types import IntArray, Prompt
from laser.data.store import categories_of, digest, first_of_each, pick
from laser.data.tasks import Role


@dataclass(frozen=True, slots=True)
class Splits:
    """Prompts for training, for checks of progress, and for the report."""

    train: Sequence[Prompt]
    dev: Sequence[Prompt]
    test: Sequence[Prompt]

    def by_name(self) -> dict[str, Sequence[Prompt]]:
        """The splits by their names."""
        return {"train": self.train, "dev": self.dev, "test": self.test}


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
    ordered = distinct[_dealt(pick(prompts, distinct), seed, in_proportion=False)]
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
    """Split the prompts of a task with original splits.

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
    left = {
        role: [prompts[index] for index in _dealt(prompts, seed, in_proportion=True)]
        for role, prompts in distinct.items()
    }
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


def _take(left: dict[Role, list[Prompt]], order: Sequence[Role], number: int) -> list[Prompt]:
    """Remove and return this many prompts, from the first roles that have any."""
    taken: list[Prompt] = []
    for role in order:
        missing = number - len(taken)
        taken, left[role] = taken + left[role][:missing], left[role][missing:]
    return taken


def _dealt(prompts: Sequence[Prompt], seed: int, *, in_proportion: bool) -> IntArray:
    """Indices, shuffled within each category and merged: in turn, or so that every prefix is in proportion."""
    if not prompts:
        return np.empty(0, dtype=np.int64)
    names, kinds = np.unique(np.array(categories_of(prompts), dtype=object), return_inverse=True)
    members = [stream(seed, "data", 0, kind).permutation(np.flatnonzero(kinds == kind)) for kind in range(len(names))]
    places = np.concatenate([(np.arange(len(m)) + 0.5) / (len(m) if in_proportion else 1) for m in members])
    sorted_kinds = np.repeat(np.arange(len(names)), [len(m) for m in members])
    return np.concatenate(members)[np.lexsort((sorted_kinds, places))]

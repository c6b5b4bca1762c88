"""The prompts and labeled pairs of a probe."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from laser.config import selection
from laser.config.data import Data
from laser.core.errors import ConfigError, DataError, DataWarning
from laser.core.types import Prompt
from laser.data.files import Fields
from laser.data.preferences import Candidates, load_candidates
from laser.data.split import Splits
from laser.data.store import categories_of, pick
from laser.training.probe_items import ProbeData
from laser.wiring.data import prompt_fields

_UNNAMED = "default"  # category of a row without one
_USUAL = selection.ProbeSignal.model_fields["prompts_per_category"].default


def split_off_probe(splits: Splits, section: selection.SignalConfig, data: Data) -> tuple[Splits, ProbeData]:
    """Read labeled pairs and set training prompts aside for a probe; nothing for other signals.

    Raises:
        DataError: There are too few prompts, they lack gold answers, or the pairs do not fit them.
        ConfigError: The policy gives one response to each prompt, and these have to be compared.
    """
    if not isinstance(section, selection.ProbeSignal):
        return splits, ProbeData()
    sizes = Counter(categories_of(splits.train))
    pairs = load_pairs(section.pairs, data, sizes) if section.pairs is not None else {}
    if section.labels == "pairs":
        if missing := [category for category in sizes if category not in pairs]:
            raise no_pairs(section.pairs, missing[0])
        return splits, ProbeData(pairs=pairs)
    _check_size(section, sizes)
    aside, rest = _divide(splits.train, section, sizes, pairs)
    if section.labels == "gold" and not aside:
        raise DataError(
            "signal.labels = 'gold' and no training prompt has a gold answer; set data.answer_field to the field with "
            "the answers, or signal.labels = 'auto' for labeled pairs or a consensus"
        )
    if not rest:
        raise DataError(
            f"the probe sets a prompt of each category aside, and of {len(splits.train)} none is left to train "
            "on; give more prompts, or set signal.type = 'none'"
        )
    prompts = {category: pick(splits.train, indices) for category, indices in aside.items()}
    if section.num_responses < 2 and any(one.answer is None for of in prompts.values() for one in of):
        raise ConfigError(
            "the probe compares the policy's answers to prompts without gold answers, and signal.num_responses is 1; "
            "raise it to 8"
        )
    return Splits(pick(splits.train, rest), splits.dev, splits.test), ProbeData(prompts, pairs)


def load_pairs(path: str, data: Data, categories: Mapping[str, int]) -> dict[str, list[Candidates]]:
    """Read labeled pairs, by category; pairs without categories are of the only one that the prompts have.

    Pairs of categories that no training prompt has are left out with a warning.

    Raises:
        DataError: A row cannot be used, or all pairs would be left out.
    """
    by_category: dict[str, list[Candidates]] = {}
    for pair in read_pairs(path, prompt_fields(data)):
        by_category.setdefault(pair.prompt.category, []).append(pair)
    known = ", ".join(map(repr, list(categories)[:8]))
    if used := {category: of for category, of in by_category.items() if category in categories}:
        if other := [category for category in by_category if category not in categories]:
            warnings.warn(
                f"{sum(len(by_category[category]) for category in other)} pairs in {path} are of "
                f"{', '.join(map(repr, other[:8])):.300} and left out, because the training prompts have {known:.300}; "
                "correct their 'category' if they should count",
                DataWarning,
                stacklevel=2,
            )
        return used
    if by_category.keys() == {_UNNAMED}:
        if len(categories) == 1:
            (only,) = categories
            return {only: [_of_category(pair, only) for pair in by_category[_UNNAMED]]}
        raise DataError(
            f"the pairs in {path} have no category, and the training prompts have {known:.300}; add a field 'category' "
            "to each pair, or name the one they have in data.category_field"
        )
    raise DataError(
        f"the pairs in {path} are of {', '.join(map(repr, list(by_category)[:8])):.300}, and the training prompts of "
        f"{known:.300}; give pairs with the categories of the training prompts"
    )


def read_pairs(path: str, fields: Fields) -> list[Candidates]:
    """Read labeled pairs; one that repeats another counts once, with a warning.

    Raises:
        DataError: A row cannot be used, or names a response twice.
    """
    pairs = load_candidates(path, fields)
    for number, pair in enumerate(pairs, 1):
        if len(set(pair.texts)) < len(pair.texts):
            raise DataError(f"{path}: two responses of pair {number} are the same text; remove the row")
    unique = {repr((pair.prompt.messages, pair.prompt.category, pair.correct, pair.incorrect)): pair for pair in pairs}
    if len(unique) < len(pairs):
        warnings.warn(
            f"{len(pairs) - len(unique)} pairs in {path} repeat others and count once; remove them",
            DataWarning,
            stacklevel=2,
        )
    return list(unique.values())


def no_pairs(path: str | None, category: str) -> DataError:
    """Why labeled pairs cannot say how good a reward model is in a category."""
    return DataError(
        f"{path} has no pairs of category {category!r:.80}, which training prompts have; add some, or set "
        "signal.labels = 'auto' for gold answers or a consensus there"
    )


def _of_category(pair: Candidates, category: str) -> Candidates:
    return replace(pair, prompt=replace(pair.prompt, category=category))


def _check_size(section: selection.ProbeSignal, sizes: Mapping[str, int]) -> None:
    wanted, largest = section.prompts_per_category, max(sizes.values(), default=0)
    if wanted > largest and wanted != _USUAL:
        raise DataError(
            f"signal.prompts_per_category is {wanted}, and the largest category has {largest} training prompts, of "
            f"which the probe takes at most a quarter; lower it to {_quarter(largest)} or give more prompts"
        )


def _divide(
    train: Sequence[Prompt],
    section: selection.ProbeSignal,
    sizes: Mapping[str, int],
    pairs: Mapping[str, Sequence[Candidates]],
) -> tuple[dict[str, list[int]], list[int]]:
    """Indices of the prompts set aside, by category, and of the rest.

    With labels "auto", prompts with gold answers come first; others make up the number where there are no pairs.
    """
    firsts: dict[tuple[str, bool], list[int]] = {}
    wanted = {category: min(section.prompts_per_category, _quarter(size)) for category, size in sizes.items()}
    for index, prompt in enumerate(train):
        key = prompt.category, prompt.answer is not None and section.labels != "consensus"
        of_kind = firsts.setdefault(key, [])
        if len(of_kind) < wanted[prompt.category]:
            of_kind.append(index)
    aside = {}
    for category, number in wanted.items():
        others = [] if section.labels == "gold" or category in pairs else firsts.get((category, False), [])
        if chosen := [*firsts.get((category, True), []), *others][:number]:
            aside[category] = sorted(chosen)
    taken = {index for indices in aside.values() for index in indices}
    return aside, [index for index in range(len(train)) if index not in taken]


def _quarter(size: int) -> int:
    return -(-size // 4)

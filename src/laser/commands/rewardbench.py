"""``laser rewardbench``: how often each reward model, and a trained selector, orders labelled pairs rightly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laser.config import RunConfig
from laser.core.errors import ConfigError, RewardModelError
from laser.core.seeding import stream
from laser.core.statistics import wilson_interval
from laser.core.types import BoolArray, FloatArray, IntArray
from laser.data.preferences import Preference, load_preferences
from laser.wiring import build_contexts, build_policy, build_pool, build_selector

LENGTH = "length only"
SELECTED = "selected"


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What came out.

    Attributes:
        num_pairs: Labelled pairs.
        accuracy: For each reward model, "length only" and the selector where there is one: share of pairs ordered
            rightly, ties counting half and pairs without a score as wrong.
        interval: 95% Wilson intervals of `accuracy`.
        by_category: For each of them, accuracy by category.
        counts: Pairs of each category.
        agreement: Macro F1 of one reward model's verdicts against another's, over pairs that both judge (Fig. 3).
        unscored: Responses each reward model gave no number for.
        too_long: Responses that did not fit its window, left out or scored with their prompt cut.
        silent: Reward models that gave no number for any response; their accuracy of 0 says nothing of them.
        chosen: For each category, how often the selector chose each reward model; empty without a selector.
        failed: Reward models that could not be used, and why.
    """

    num_pairs: int
    accuracy: dict[str, float]
    interval: dict[str, tuple[float, float]]
    by_category: dict[str, dict[str, float]]
    counts: dict[str, int]
    agreement: dict[str, dict[str, float]]
    unscored: dict[str, int]
    too_long: dict[str, int]
    silent: tuple[str, ...]
    chosen: dict[str, dict[str, float]]
    failed: dict[str, str]

    def as_record(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def rewardbench(
    config: RunConfig, paths: Sequence[str | Path], *, select: bool = False, learn: float = 0.0
) -> BenchResult:
    """Measure the pool of a configuration on preference sets.

    Source: arXiv 2410.01735, Fig. 3 (agreement) and Fig. 8 (accuracy by category, and that of the selection).

    Args:
        config: The pool, and the policy and selector for `select`.
        paths: Preference files; see `load_preferences`.
        select: Also measure the configuration's selector, per prompt, without learning: name a trained one as
            ``selector = {type = "frozen", run = ...}``.
        learn: Share of the prompts that the selector learns from first, told after each choice whether the pair was
            ordered rightly; everything is then measured on the pairs of the other prompts.

    Raises:
        LaserError: A file or the policy cannot be used, or no reward model could be.
    """
    if not 0 <= learn < 1:
        raise ConfigError(f"--learn is {learn}; give a share of the prompts from 0 up to, but not including, 1")
    preferences = [one for path in paths for one in load_preferences(path)]
    judged = _judge(config, preferences)
    verdicts = judged.gaps
    if not verdicts:
        raise RewardModelError(f"no reward model could be used: {'; '.join(judged.failed.values())}")
    lengths = np.array([len(one.chosen) - len(one.rejected) for one in preferences], dtype=np.float64)
    columns = {**verdicts, LENGTH: lengths}
    taught_N = _taught(preferences, learn, config.seed)
    arms_N: IntArray | None = None
    if select or learn:
        arms_N = _choices(config, preferences, verdicts, taught_N)
        names = [model.name for model in config.rewards.models]
        columns[SELECTED] = np.array([verdicts[names[arm]][row] for row, arm in enumerate(arms_N)])
    measured_N = ~taught_N
    heard = {name: gaps[measured_N] for name, gaps in verdicts.items()}
    agreement = {a: {b: _macro_f1(heard[a], heard[b]) for b in heard} for a in heard}
    right = {name: _right(column[measured_N]) for name, column in columns.items()}
    preferences = [one for one, measured in zip(preferences, measured_N, strict=True) if measured]
    categories = np.array([one.prompt.category for one in preferences])
    names = sorted(set(categories.tolist()))
    return BenchResult(
        num_pairs=len(preferences),
        accuracy={name: float(values.mean()) for name, values in right.items()},
        interval={name: wilson_interval(float(values.sum()), len(values)) for name, values in right.items()},
        by_category={
            name: {category: float(values[categories == category].mean()) for category in names}
            for name, values in right.items()
        },
        counts={category: int((categories == category).sum()) for category in names},
        agreement=agreement,
        unscored=judged.unscored,
        too_long=judged.too_long,
        silent=judged.silent,
        chosen={} if arms_N is None else _shares(config, arms_N[measured_N], categories),
        failed=judged.failed,
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """By reward model: `gaps`, its score of chosen minus rejected for each pair; the rest as in `BenchResult`."""

    gaps: dict[str, FloatArray]
    unscored: dict[str, int]
    too_long: dict[str, int]
    silent: tuple[str, ...]
    failed: dict[str, str]


def _judge(config: RunConfig, preferences: Sequence[Preference]) -> _Judged:
    """Ask every reward model about every response once."""
    pool = build_pool(config)
    of_prompt: dict[str, dict[str, int]] = {}
    for one in preferences:
        known = of_prompt.setdefault(_key(one), {})
        for text in (one.chosen, one.rejected):
            known.setdefault(text, len(known))
    first = {_key(one): one.prompt for one in reversed(preferences)}
    prompts, texts = [first[key] for key in of_prompt], [list(known) for known in of_prompt.values()]
    rows = {key: row for row, key in enumerate(of_prompt)}
    gaps: dict[str, FloatArray] = {}
    unscored, failed, silent = {}, {}, []
    for arm, name in enumerate(pool.names):
        try:
            scores = pool.score(arm, prompts, texts)
        except RewardModelError as error:
            failed[name] = str(error)
            continue
        unscored[name] = sum(int(np.isnan(row).sum()) for row in scores)
        if unscored[name] == sum(map(len, texts)):
            silent.append(name)
        gaps[name] = np.array(
            [
                scores[rows[key]][of_prompt[key][one.chosen]] - scores[rows[key]][of_prompt[key][one.rejected]]
                for one, key in ((one, _key(one)) for one in preferences)
            ]
        )
    pool.release_all()
    too_long = {name: used["too_long"] for name, used in pool.usage().items() if name in gaps}
    return _Judged(gaps, unscored, too_long, tuple(silent), failed)


def _key(one: Preference) -> str:
    """A prompt's conversation: several pairs may share it, and its responses are scored once."""
    return json.dumps([dict(message) for message in one.prompt.messages])


def _taught(preferences: Sequence[Preference], share: float, seed: int) -> BoolArray:
    """The pairs of a seeded share of the prompts."""
    keys = list(dict.fromkeys(_key(one) for one in preferences))
    order = stream(seed, "data", 2).permutation(len(keys))
    taught = {keys[index] for index in order[: round(share * len(keys))]}
    return np.array([_key(one) in taught for one in preferences])


def _choices(
    config: RunConfig, preferences: Sequence[Preference], gaps: Mapping[str, FloatArray], taught_N: BoolArray
) -> IntArray:
    """The reward model that the selector chooses for each pair's prompt, after learning from those it is taught."""
    policy = build_policy(config)
    contexts = build_contexts(config, dim=policy.context_dim)
    selector = build_selector(config, contexts)
    names = [model.name for model in config.rewards.models]
    available_K = np.array([name in gaps for name in names])
    embedded_ND = policy.embed([one.prompt for one in preferences])
    taught = np.flatnonzero(taught_N)
    for row in stream(config.seed, "data", 3).permutation(taught):
        selection = selector.select(contexts(embedded_ND[row : row + 1]), available_K)
        fed = [float(_right(gaps[names[arm]][row : row + 1])[0]) for _, arm in selection.charged_E]
        selector.update(selection.id, np.array(fed))
    selection = selector.select(contexts(embedded_ND), available_K)
    selector.expire(selection.id)
    return selection.arms_M


def _shares(config: RunConfig, arms_N: IntArray, categories: NDArray[np.str_]) -> dict[str, dict[str, float]]:
    return {
        str(category): {
            model.name: float((arms_N[categories == category] == arm).mean())
            for arm, model in enumerate(config.rewards.models)
        }
        for category in sorted(set(categories.tolist()))
    }


def _right(gaps_N: FloatArray) -> FloatArray:
    return np.where(np.isnan(gaps_N), 0.0, (gaps_N > 0) + 0.5 * (gaps_N == 0))


def _macro_f1(first_N: FloatArray, second_N: FloatArray) -> float:
    """Mean of the F1 of both verdicts; which of the two is called the truth makes no difference."""
    both = ~(np.isnan(first_N) | np.isnan(second_N))
    if not both.any():
        return float("nan")
    first, second = first_N[both] > 0, second_N[both] > 0
    return 0.5 * (_f1(first, second) + _f1(~first, ~second))


def _f1(first_N: BoolArray, second_N: BoolArray) -> float:
    """1 where neither has the verdict at all: they agree on it."""
    total = int(first_N.sum() + second_N.sum())
    return 2.0 * int((first_N & second_N).sum()) / total if total else 1.0

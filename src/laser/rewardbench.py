"""``laser rewardbench``: how often each reward model, and a trained selector, orders labelled pairs rightly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laser.build import build_contexts, build_policy, build_pool, build_selector
from laser.config import RunConfig
from laser.data.preferences import Preference, load_preferences
from laser.errors import RewardModelError
from laser.evaluation.accuracy import wilson_interval
from laser.types import BoolArray, FloatArray

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
        failed: Reward models that could not be used, and why.
    """

    num_pairs: int
    accuracy: dict[str, float]
    interval: dict[str, tuple[float, float]]
    by_category: dict[str, dict[str, float]]
    counts: dict[str, int]
    agreement: dict[str, dict[str, float]]
    unscored: dict[str, int]
    failed: dict[str, str]

    def as_record(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def rewardbench(config: RunConfig, paths: Sequence[str | Path], *, select: bool = False) -> BenchResult:
    """Measure the pool of a configuration on preference sets.

    Source: arXiv 2410.01735, Fig. 3 (agreement) and Fig. 8 (accuracy by category, and that of the selection).

    Args:
        config: The pool, and the policy and selector for `select`.
        paths: Preference files; see `load_preferences`.
        select: Also measure the configuration's selector, per prompt, without learning: name a trained one as
            ``selector = {type = "frozen", run = ...}``.

    Raises:
        LaserError: A file or the policy cannot be used, or no reward model could be.
    """
    preferences = [one for path in paths for one in load_preferences(path)]
    verdicts, unscored, failed = _judge(config, preferences)
    if not verdicts:
        raise RewardModelError(f"no reward model could be used: {'; '.join(failed.values())}")
    agreement = {a: {b: _macro_f1(verdicts[a], verdicts[b]) for b in verdicts} for a in verdicts}
    lengths = np.array([len(one.chosen) - len(one.rejected) for one in preferences], dtype=np.float64)
    columns = {**verdicts, LENGTH: lengths}
    if select:
        columns[SELECTED] = _selected(config, preferences, verdicts)
    right = {name: _right(column) for name, column in columns.items()}
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
        unscored=unscored,
        failed=failed,
    )


def _judge(
    config: RunConfig, preferences: Sequence[Preference]
) -> tuple[dict[str, FloatArray], dict[str, int], dict[str, str]]:
    """Score of chosen minus rejected by every reward model that can be used; how much it left out; who failed."""
    pool = build_pool(config)
    prompts = [one.prompt for one in preferences]
    texts = [[one.chosen, one.rejected] for one in preferences]
    gaps: dict[str, FloatArray] = {}
    unscored, failed = {}, {}
    for arm, name in enumerate(pool.names):
        try:
            scores = np.array(pool.score(arm, prompts, texts))
        except RewardModelError as error:
            failed[name] = str(error)
            continue
        gaps[name] = scores[:, 0] - scores[:, 1]
        unscored[name] = int(np.isnan(scores).sum())
    pool.release_all()
    return gaps, unscored, failed


def _selected(config: RunConfig, preferences: Sequence[Preference], gaps: Mapping[str, FloatArray]) -> FloatArray:
    """The gap by the reward model that the selector chooses for each prompt."""
    policy = build_policy(config)
    contexts = build_contexts(config, dim=policy.context_dim)
    selector = build_selector(config, contexts)
    names = [model.name for model in config.rewards.models]
    selection = selector.select(
        contexts(policy.embed([one.prompt for one in preferences])), np.array([name in gaps for name in names])
    )
    selector.expire(selection.id)
    columns = np.stack([gaps.get(name, np.zeros(len(preferences))) for name in names], axis=1)
    chosen: FloatArray = columns[np.arange(len(preferences)), selection.arms_M]
    return chosen


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

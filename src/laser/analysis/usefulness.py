"""Usefulness of reward models by category, with intervals: choices, bandit rewards, agreement, failures."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from laser.analysis.records import Run
from laser.analysis.shapes import DecilesRecord, EvaluationRecord, StepRecord
from laser.core.statistics import Estimate, estimate, holm, wilson_interval
from laser.core.types import FloatArray

MIXED = "batches of several categories"
LEVEL = 0.05
_HUGE = 1e300  # beyond it differences of scores overflow
_LEAST = 5  # rewards of a model below which the test's approximation is not trusted

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Choice:
    """How often a reward model was chosen for the prompts of a category.

    Attributes:
        share: Share of the prompts, an ensemble's divided by its weights.
        prompts: The same in prompts.
        interval: 95% Wilson interval of the share, as if choices were independent of each other.
    """

    share: float
    prompts: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Category:
    """One category of a run.

    Attributes:
        name: Its name.
        num_prompts: Its prompts, all batches together.
        num_choices: How many choices they amount to: a batch with one choice counts once (Kish's effective size).
        choices: By reward model.
        rewards: Bandit rewards by reward model, of those that were charged with one here.
        p: Kruskal-Wallis test that bandit rewards do not differ between reward models, corrected by Holm over the
            categories; None where fewer than two have enough of them.
    """

    name: str
    num_prompts: int
    num_choices: float
    choices: dict[str, Choice]
    rewards: dict[str, Estimate]
    p: float | None

    @property
    def most_chosen(self) -> str:
        """The reward model with the largest share."""
        return max(self.choices, key=lambda name: self.choices[name].share)

    @property
    def best_rewarded(self) -> str | None:
        """The reward model with the largest mean bandit reward, among those with enough of them."""
        enough = {name: one.mean for name, one in self.rewards.items() if one.num >= _LEAST}
        return max(enough, key=lambda name: enough[name]) if enough else None

    @property
    def distinguishable(self) -> bool:
        """Whether reward models differ by more than chance explains."""
        return self.p is not None and self.p <= LEVEL


def by_category(run: Run) -> list[Category]:
    """Every category of the run, by name; rewards of rows with prompts of several categories are under `MIXED`."""
    counts: defaultdict[str, list[tuple[int, list[float]]]] = defaultdict(list)
    rewards: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for step in run.steps:
        selection = step["selection"]
        for weights, categories in zip(selection["weights"], selection["categories"], strict=True):
            for category, count in categories.items():
                counts[category].append((count, weights))
        for category, name, reward in charged_rewards(step):
            rewards[category][name].append(reward)
    names = sorted({name for name, rows in counts.items() if sum(count for count, _ in rows)})
    if rewards.keys() - set(names):
        names.append(MIXED)
    corrected = holm({name: _differ(rewards[name]) for name in names})
    return [
        _category(name, run.names, counts[name], rewards[name], corrected[name])
        for name in names
        if counts[name] or rewards[name]
    ]


def charged_rewards(step: StepRecord) -> list[tuple[str, str, float]]:
    """Category, reward model and bandit reward of every choice that received one."""
    selection = step["selection"]
    rows, charged = selection["categories"], selection["charged"]
    if not charged or len(charged) % len(rows):
        return []
    per_row = len(charged) // len(rows)  # charges are in the order of rows
    return [
        (_only(rows[index // per_row]), name, reward)
        for index, (name, reward) in enumerate(zip(charged, step["bandit_rewards"], strict=True))
        if reward is not None
    ]


def _only(categories: Mapping[str, int]) -> str:
    return next(iter(categories)) if len(categories) == 1 else MIXED


def _category(
    name: str,
    names: Sequence[str],
    rows: Sequence[tuple[int, Sequence[float]]],
    rewards: Mapping[str, Sequence[float]],
    p: float | None,
) -> Category:
    counts = np.array([count for count, _ in rows], dtype=np.float64)
    total = float(counts.sum())
    effective = total**2 / float((counts**2).sum()) if total else 0.0
    prompts_K = counts @ np.array([weights for _, weights in rows]) if total else np.zeros(len(names))
    return Category(
        name=name,
        num_prompts=int(total),
        num_choices=effective,
        choices={
            one: Choice(
                float(prompts) / total,
                float(prompts),
                wilson_interval(float(prompts) / total * effective, effective),
            )
            for one, prompts in zip(names, prompts_K, strict=True)
        }
        if total
        else {},
        rewards={one: estimate(rewards[one]) for one in names if one in rewards},
        p=p,
    )


def _differ(rewards: Mapping[str, Sequence[float]]) -> float | None:
    groups = [values for values in rewards.values() if len(values) >= _LEAST]
    if len(groups) < 2 or len({value for values in groups for value in values}) < 2:
        return None
    return float(stats.kruskal(*groups).pvalue)


def unpaired_change(before: EvaluationRecord, after: EvaluationRecord) -> tuple[float, Interval]:
    """Change of the dev metric with a 95% interval, where the records do not hold the outcome of each prompt.

    Source: Newcombe, Statist. Med. 17 (1998), method 10, from the Wilson intervals of both checks. It assumes
    independent samples. Both checks measure the same prompts, so the interval is too wide rather than too narrow.
    """
    first, second = before["accuracy"], after["accuracy"]
    (low1, high1), (low2, high2) = before["interval"], after["interval"]
    gain = second - first
    below = math.hypot(second - low2, high1 - first)
    above = math.hypot(high2 - second, first - low1)
    return gain, (max(-1.0, gain - below), min(1.0, gain + above))


def total_agreement(steps: Iterable[StepRecord]) -> dict[tuple[str, str], tuple[int, int]]:
    """For every two reward models that scored the same responses: pairs ordered alike, and pairs both order."""
    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for step in steps:
        for one in step.get("agreement", []):
            alike, judged = totals.get((one["first"], one["second"]), (0, 0))
            totals[one["first"], one["second"]] = (alike + one["alike"], judged + one["judged"])
    return {couple: counts for couple, counts in totals.items() if counts[1]}


@dataclass(frozen=True, slots=True)
class Pooled:
    """A distribution put together from the deciles of batches, each weighted by its count.

    Attributes:
        num: Values in all.
        grid: Points, rising.
        cumulative: Share of the values at or below each point.
    """

    num: int
    grid: FloatArray
    cumulative: FloatArray

    def quantile(self, share: float) -> float:
        """The value at or below which `share` of the distribution is."""
        return float(np.interp(share, self.cumulative, self.grid))


def pooled(records: Iterable[DecilesRecord]) -> Pooled | None:
    """Mixture of distributions that are linear between deciles; None where there is nothing, or nothing finite."""
    usable: list[tuple[int, FloatArray]] = []
    for record in records:
        deciles = [value for value in record["deciles"] if value is not None]
        if record["count"] and len(deciles) == 11:
            usable.append((record["count"], np.maximum.accumulate(np.clip(deciles, -_HUGE, _HUGE))))
    if not usable:
        return None
    shares = np.linspace(0, 1, 11)
    grid = np.unique(np.concatenate([deciles for _, deciles in usable]))
    counts = np.array([count for count, _ in usable], dtype=np.float64)
    cumulative = (
        sum(count * np.interp(grid, deciles, shares, left=0.0, right=1.0) for count, deciles in usable) / counts.sum()
    )
    return Pooled(int(counts.sum()), grid, np.asarray(cumulative, dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Spell:
    """A reward model in quarantine.

    Attributes:
        name: The reward model.
        reason: Why.
        batch: Batch in which it was put out.
        seconds: Time of all batches up to then.
        back: The first batch after that in which it scored again; None: it has not come back.
    """

    name: str
    reason: str
    batch: int
    seconds: float
    back: int | None


def spells(run: Run) -> list[Spell]:
    """Quarantines in the order they began."""
    clock = elapsed(run)
    found = []
    for index, step in enumerate(run.steps):
        for name, reason in step.get("quarantined", {}).items():
            later = zip(run.batches[index + 1 :], run.steps[index + 1 :], strict=True)
            back = next((batch for batch, other in later if other["scored"].get(name, 0)), None)
            found.append(Spell(name, reason, run.batches[index], float(clock[index]), back))
    return found


def elapsed(run: Run) -> FloatArray:
    """Seconds of all batches up to and with each one; dev checks and checkpoints are not in them."""
    return np.cumsum([sum(step["seconds"].values()) for step in run.steps], dtype=np.float64)


def seconds_until(run: Run, batches: int) -> float:
    """Seconds of the batches up to and with number `batches`."""
    done = int(np.searchsorted(run.batches, batches, side="right"))
    return float(elapsed(run)[done - 1]) if done else 0.0

"""The summary of a run, from its records alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from laser.core.statistics import PairedChange, paired_change

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A finished or interrupted run.

    Attributes:
        num_batches: Batches done.
        metric_before: Dev metric before training in [0, 1], or None.
        metric_after: Dev metric at the last check, or None.
        metric_change: How it changed on the same prompts, with a 95% interval in [-1, 1]; None with fewer than two
            checks, or where the records do not hold the outcome of each prompt.
        metric_by_category: For each category, the dev metric before and after.
        num_evaluated: Prompts of one dev check.
        num_answers: Answers to them, one or more to each.
        num_unparseable: Answers of the first and of the last dev check that could not be read, and count as wrong.
        unparseable: Examples of the last check: id of the prompt, problem, end of the response.
        utilization: For each category, how many of its prompts each reward model was chosen for, an ensemble's prompts
            divided by its weights (Fig. 6 and 7).
        bandit_rewards: Mean bandit reward of each reward model that was charged with one (Fig. 9).
        scored: Responses each reward model was scored.
        cost: What that cost, in the unit of `rewards.models.*.cost`, or in seconds where no costs are given.
        dropped: Pairs and responses left out, by reason.
        num_pairs: Pairs trained on.
        tokens: Tokens sampled and trained on.
        seconds: Time by phase.
    """

    num_batches: int
    metric_before: float | None
    metric_after: float | None
    metric_change: PairedChange | None
    metric_by_category: dict[str, tuple[float, float]]
    num_evaluated: int
    num_answers: int
    num_unparseable: tuple[int, int]
    unparseable: tuple[Record, ...]
    utilization: dict[str, dict[str, float]]
    bandit_rewards: dict[str, float]
    scored: dict[str, int]
    cost: dict[str, float]
    dropped: dict[str, int]
    num_pairs: int
    tokens: dict[str, int]
    seconds: dict[str, float]

    @property
    def left_out(self) -> str:
        """`dropped` in words."""
        counts = (f"{count} {name.replace('_', ' ')}" for name, count in self.dropped.items() if count)
        return ", ".join(counts) or "nothing"

    def as_record(self) -> dict[str, Any]:
        """JSON-able form, the content of summary.json."""
        return asdict(self)


def summarize(steps: Sequence[Record], evaluations: Sequence[Record], names: Sequence[str]) -> RunSummary:
    """The summary of a run.

    Args:
        steps: Lines of steps.jsonl.
        evaluations: Lines of evaluations.jsonl, the first from before training.
        names: All reward models of the pool, chosen or not.
    """
    first, last = (evaluations[0], evaluations[-1]) if evaluations else ({}, {})
    before, after = first.get("by_category", {}), last.get("by_category", {})
    return RunSummary(
        num_batches=len(steps),
        metric_before=first.get("accuracy"),
        metric_after=last.get("accuracy"),
        metric_change=metric_change(evaluations),
        metric_by_category={name: (before[name], after[name]) for name in before},
        num_evaluated=last.get("num_prompts", 0),
        num_answers=last.get("num_answers", last.get("num_prompts", 0)),
        num_unparseable=(first.get("num_unparseable", 0), last.get("num_unparseable", 0)),
        unparseable=tuple(last.get("unparseable", ())),
        utilization=utilization(steps, names),
        bandit_rewards=_mean_rewards(steps),
        scored=_totals(step["scored"] for step in steps),
        cost=_totals(step.get("cost", {}) for step in steps),
        dropped=_totals(step["dropped"] for step in steps),
        num_pairs=sum(step["pairs"] for step in steps),
        tokens=_totals(step["tokens"] for step in steps),
        seconds={name: round(value, 3) for name, value in _totals(step["seconds"] for step in steps).items()},
    )


def metric_change(evaluations: Sequence[Record]) -> PairedChange | None:
    """How the dev metric changed from the first check to the last, prompt by prompt; None where that is unknown."""
    if len(evaluations) < 2:
        return None
    return paired_change(evaluations[0].get("correct", {}), evaluations[-1].get("correct", {}))


def utilization(steps: Sequence[Record], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """For each category, how many of its prompts each reward model was chosen for; see `RunSummary`."""
    counts: dict[str, dict[str, float]] = {}
    for step in steps:
        selection = step["selection"]
        for weights, categories in zip(selection["weights"], selection["categories"], strict=True):
            for category, count in categories.items():
                of_category = counts.setdefault(category, dict.fromkeys(names, 0.0))
                for name, weight in zip(names, weights, strict=True):
                    of_category[name] += weight * count
    return dict(sorted(counts.items()))


def _mean_rewards(steps: Sequence[Record]) -> dict[str, float]:
    rewards: defaultdict[str, list[float]] = defaultdict(list)
    for step in steps:
        for name, reward in zip(step["selection"]["charged"], step["bandit_rewards"], strict=True):
            if reward is not None:
                rewards[name].append(reward)
    return {name: sum(values) / len(values) for name, values in sorted(rewards.items())}


def _totals(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    totals: Counter[str] = Counter()
    for row in rows:
        totals.update(row)
    return dict(totals)

"""The laboratory's tables: accuracy with intervals over seeds, paired against LASeR, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laser.core.statistics import Estimate, estimate

Oracle = Mapping[str, Mapping[str, float]]
"""Pair accuracy by category and reward model."""

BEST, AVERAGE, FIXED = "best-rm", "avg-rm", "fixed-"
_UNKNOWN = "–"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished run.

    Attributes:
        accuracy: Final accuracy on the test questions, in [0, 1].
        before: The same before training.
        by_category: Final accuracy by category.
        scored: Responses that reward models were asked about.
        seconds: Time of all batches.
        regret: Mean over prompts of the oracle's best pair accuracy minus that of the reward models chosen; None where
            the pool has reward models that the oracle has not measured.
        right_choice: Share of prompts whose heaviest reward model is the oracle's best; None as above.
    """

    accuracy: float
    before: float
    by_category: dict[str, float]
    scored: int
    seconds: float
    regret: float | None
    right_choice: float | None


def read_outcome(folder: Path, oracle: Oracle) -> Outcome:
    """Read a run directory of the laboratory."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = [quality for step in steps for quality in _qualities(step, oracle)]
    measured = [quality for quality in chosen if quality is not None]
    known = len(measured) == len(chosen) > 0
    prompts = [quality.prompts for quality in measured]
    return Outcome(
        accuracy=summary["metric_after"],
        before=summary["metric_before"],
        by_category={name: values[1] for name, values in summary["metric_by_category"].items()},
        scored=sum(summary["scored"].values()),
        seconds=sum(summary["seconds"].values()),
        regret=float(np.average([one.regret for one in measured], weights=prompts)) if known else None,
        right_choice=float(np.average([one.right for one in measured], weights=prompts)) if known else None,
    )


@dataclass(frozen=True, slots=True)
class _Quality:
    """How good a choice was for the prompts of one category that it was made for."""

    prompts: int
    regret: float
    right: bool


def _qualities(step: Mapping[str, Any], oracle: Oracle) -> Iterator[_Quality | None]:
    """By row of the selection and category in it; None where a study's additional arms are unknown to the oracle."""
    selection = step["selection"]
    for weights, categories in zip(selection["weights"], selection["categories"], strict=True):
        for category, count in categories.items():
            values = np.array(list(oracle[category].values()))
            if len(weights) != len(values):
                yield None
            else:
                regret = float(values.max() - np.array(weights) @ values)
                yield _Quality(count, regret, int(np.argmax(weights)) == int(values.argmax()))


def table(outcomes: Mapping[str, Mapping[int, Outcome]], *, reference: str) -> str:
    """A Markdown table of methods, best first.

    Args:
        outcomes: For each method, outcomes by seed.
        reference: The method that the others are compared with on the same seeds.
    """
    categories = sorted({name for seeds in outcomes.values() for one in seeds.values() for name in one.by_category})
    head = ["method", "accuracy", f"minus {reference}", *categories, "right RM", "oracle regret", "RM calls", "time"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    base = outcomes.get(reference, {})
    calls, seconds = _typical(base) if base else (1.0, 1.0)
    order = sorted(outcomes, key=lambda name: -np.mean([one.accuracy for one in outcomes[name].values()]))
    for method in order:
        runs = outcomes[method]
        shared = sorted(set(runs) & set(base))
        difference = _percent(estimate([runs[seed].accuracy - base[seed].accuracy for seed in shared]), signed=True)
        scored, spent = _typical(runs)
        cells = [
            method,
            _percent(estimate([one.accuracy for one in runs.values()])),
            "" if method == reference or not shared else difference,
            *(f"{100 * np.mean([one.by_category[name] for one in runs.values()]):.0f}" for name in categories),
            _mean([one.right_choice for one in runs.values()], "{:.0%}"),
            _mean([one.regret for one in runs.values()], "{:.2f}"),
            f"{scored / calls:.2f}x",
            f"{spent / seconds:.2f}x",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def averages(groups: Mapping[str, Mapping[str, Mapping[int, Outcome]]], *, reference: str) -> str:
    """A Markdown table of the mean over pools and studies, each of equal weight, best first.

    Args:
        groups: For each pool or study what `collect` gives. Only methods and seeds that all of them have are compared.
        reference: The method that the others are compared with on the same seeds.
    """
    methods = set.intersection(*(set(outcomes) for outcomes in groups.values()))
    means: dict[str, dict[int, float]] = {}
    for method in methods:
        runs = [outcomes[method] for outcomes in groups.values()]
        seeds = sorted(set.intersection(*(set(one) for one in runs)))
        means[method] = {seed: float(np.mean([one[seed].accuracy for one in runs])) for seed in seeds}
    base = means.get(reference, {})
    lines = [f"| method | mean of {len(groups)} | minus {reference} |", "|---|---|---|"]
    for method in sorted((name for name in means if means[name]), key=lambda name: -np.mean([*means[name].values()])):
        shared = sorted(set(means[method]) & set(base))
        difference = (
            ""
            if method == reference or not shared
            else _percent(estimate([means[method][seed] - base[seed] for seed in shared]), signed=True)
        )
        lines.append(f"| {method} | {_percent(estimate([*means[method].values()]))} | {difference} |")
    return "\n".join(lines)


def _typical(runs: Mapping[int, Outcome]) -> tuple[float, float]:
    scored = float(np.median([one.scored for one in runs.values()]))
    return max(scored, 1.0), float(np.median([one.seconds for one in runs.values()]))


def _mean(values: Sequence[float | None], form: str) -> str:
    """The mean in a form, a dash where one is not known."""
    known = [value for value in values if value is not None]
    return form.format(np.mean(known)) if known and len(known) == len(values) else _UNKNOWN


def _percent(value: Estimate, *, signed: bool = False) -> str:
    number = f"{100 * value.mean:+.1f}" if signed else f"{100 * value.mean:.1f}"
    return number if np.isnan(value.half) else f"{number} ± {100 * value.half:.1f}"


def collect(out: Path, group: str, oracle: Oracle) -> dict[str, dict[int, Outcome]]:
    """All finished runs of one pool or study, by method and seed; fixed runs also as best-rm and avg-rm.

    Best-rm is the fixed run of the reward model that the oracle puts first, averaged over categories: it is chosen
    before any training, as the paper chooses its Best RM by RewardBench. Avg-rm is the mean of the fixed runs, on the
    seeds that all of them have.
    """
    outcomes: dict[str, dict[int, Outcome]] = {}
    for folder in sorted((out / group).glob("*/seed-*")):
        if (folder / "summary.json").is_file():
            outcomes.setdefault(folder.parent.name, {})[int(folder.name[5:])] = read_outcome(folder, oracle)
    fixed = {name: runs for name, runs in outcomes.items() if name.startswith(FIXED)}
    seeds = sorted(set.intersection(*(set(runs) for runs in fixed.values()))) if fixed else []
    if seeds:
        outcomes[AVERAGE] = {seed: _averaged([runs[seed] for runs in fixed.values()]) for seed in seeds}
    best = f"{FIXED}{_best(oracle)}"
    return {**outcomes, BEST: fixed[best]} if best in fixed else outcomes


def _best(oracle: Oracle) -> str:
    """The reward model of the largest pair accuracy, averaged over categories; the first of several."""
    names = list(next(iter(oracle.values())))
    return max(names, key=lambda name: float(np.mean([of_category[name] for of_category in oracle.values()])))


def _averaged(runs: Sequence[Outcome]) -> Outcome:
    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    regrets = [run.regret for run in runs if run.regret is not None]
    rights = [run.right_choice for run in runs if run.right_choice is not None]
    return Outcome(
        accuracy=mean(run.accuracy for run in runs),
        before=mean(run.before for run in runs),
        by_category={name: mean(run.by_category[name] for run in runs) for name in runs[0].by_category},
        scored=round(mean(run.scored for run in runs)),
        seconds=mean(run.seconds for run in runs),
        regret=mean(regrets) if len(regrets) == len(runs) else None,
        right_choice=mean(rights) if len(rights) == len(runs) else None,
    )

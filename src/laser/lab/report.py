"""The laboratory's tables: accuracy with intervals over seeds, paired against LASeR, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laser.analysis.statistics import Estimate, estimate

Oracle = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished run.

    Attributes:
        accuracy: Final accuracy on the test questions, in [0, 1].
        before: The same before training.
        by_category: Final accuracy by category.
        scored: Responses that reward models were asked about.
        seconds: Time of all batches.
        regret: Mean over batches of the oracle's best pair accuracy minus that of the reward models chosen.
        right_choice: Share of batches whose heaviest reward model is the oracle's best.
    """

    accuracy: float
    before: float
    by_category: dict[str, float]
    scored: int
    seconds: float
    regret: float
    right_choice: float


def read_outcome(folder: Path, oracle: Oracle) -> Outcome:
    """Read a run directory of the laboratory."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = [_quality(step, oracle) for step in steps]
    return Outcome(
        accuracy=summary["metric_after"],
        before=summary["metric_before"],
        by_category={name: values[1] for name, values in summary["metric_by_category"].items()},
        scored=sum(summary["scored"].values()),
        seconds=sum(summary["seconds"].values()),
        regret=float(np.mean([best - got for best, got, _ in chosen])),
        right_choice=float(np.mean([right for _, _, right in chosen])),
    )


def _quality(step: Mapping[str, Any], oracle: Oracle) -> tuple[float, float, bool]:
    of_category = oracle[step["category"]]
    names, values = list(of_category), np.array(list(of_category.values()))
    weights = np.mean(step["selection"]["weights"], axis=0)
    if len(weights) != len(values):  # a study's additional arms are unknown to the oracle
        return float("nan"), float("nan"), False
    return float(values.max()), float(weights @ values), names[int(weights.argmax())] == names[int(values.argmax())]


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
            f"{100 * np.mean([one.right_choice for one in runs.values()]):.0f}%",
            f"{np.mean([one.regret for one in runs.values()]):.2f}",
            f"{scored / calls:.2f}x",
            f"{spent / seconds:.2f}x",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _typical(runs: Mapping[int, Outcome]) -> tuple[float, float]:
    scored = float(np.median([one.scored for one in runs.values()]))
    return max(scored, 1.0), float(np.median([one.seconds for one in runs.values()]))


def _percent(value: Estimate, *, signed: bool = False) -> str:
    number = f"{100 * value.mean:+.1f}" if signed else f"{100 * value.mean:.1f}"
    return number if np.isnan(value.half) else f"{number} ± {100 * value.half:.1f}"


def collect(out: Path, group: str, oracle: Oracle) -> dict[str, dict[int, Outcome]]:
    """All finished runs of one pool or study, by method and seed; fixed runs also as best-rm and avg-rm."""
    outcomes: dict[str, dict[int, Outcome]] = {}
    for folder in sorted((out / group).glob("*/seed-*")):
        if (folder / "summary.json").is_file():
            outcomes.setdefault(folder.parent.name, {})[int(folder.name[5:])] = read_outcome(folder, oracle)
    fixed = {name: runs for name, runs in outcomes.items() if name.startswith("fixed-")}
    seeds = sorted(set.intersection(*(set(runs) for runs in fixed.values()))) if fixed else []
    if seeds:
        outcomes["avg-rm"] = {seed: _averaged([runs[seed] for runs in fixed.values()]) for seed in seeds}
    return outcomes


def _averaged(runs: Sequence[Outcome]) -> Outcome:
    def mean(name: str) -> float:
        return float(np.mean([getattr(run, name) for run in runs]))

    return Outcome(
        accuracy=mean("accuracy"),
        before=mean("before"),
        by_category={name: float(np.mean([run.by_category[name] for run in runs])) for name in runs[0].by_category},
        scored=round(mean("scored")),
        seconds=mean("seconds"),
        regret=mean("regret"),
        right_choice=mean("right_choice"),
    )

"""Pictures of a run: loss, dev metric, choices, bandit rewards, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import stats

from laser.analysis.records import Run
from laser.analysis.report.blocks import Cell, Picture, table
from laser.analysis.report.figure import dots_and_lines, label, legend, look, outline
from laser.analysis.shown import duration, percent
from laser.analysis.usefulness import Category, charged_rewards, seconds_until
from laser.core.statistics import estimate
from laser.core.types import FloatArray, IntArray

_LEAST_BAND = 4  # values without which an interval is too wide to draw
_DRAWN = 600  # batches that a line or a cloud of dots shows, at most
_STRETCHES = 8  # parts of a run that is too short in iterations


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some batches in a row: an iteration, or a part of a short run.

    Attributes:
        name: What it is called.
        middle: Number of the batch in its middle.
        steps: Indices into the run's steps.
    """

    name: str
    middle: float
    steps: range


def stretches(run: Run) -> list[Stretch]:
    """The iterations of a run; of a run with fewer than three, up to eight equal parts."""
    iterations = np.array([step["iteration"] for step in run.steps])
    if len(set(iterations.tolist())) >= 3:
        bounds = [0, *(np.flatnonzero(np.diff(iterations)) + 1).tolist(), len(iterations)]
        names = [f"iteration {iterations[begin] + 1}" for begin in bounds[:-1]]
    else:
        bounds = np.unique(np.linspace(0, len(iterations), min(_STRETCHES, len(iterations)) + 1).astype(int)).tolist()
        names = [
            f"batch {run.batches[a]}" + (f" to {run.batches[b - 1]}" if b - a > 1 else "") for a, b in pairwise(bounds)
        ]
    return [
        Stretch(name, (run.batches[begin] + run.batches[end - 1]) / 2, range(begin, end))
        for name, begin, end in zip(names, bounds[:-1], bounds[1:], strict=True)
    ]


def loss(run: Run) -> Picture:
    """Loss of every batch, its moving mean and the mean's 95% interval."""
    values = np.array([np.nan if step["loss"] is None else step["loss"] for step in run.steps], dtype=np.float64)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        mean, half = moving(values, window_of(run))
        some = drawn(run)
        batches = np.array(run.batches)[some]
        axis.scatter(batches, values[some], s=16, color=look(0).color, alpha=0.6, linewidths=0)
        axis.plot(batches, mean[some], color=look(0).color)
        axis.fill_between(batches, (mean - half)[some], (mean + half)[some], color=look(0).color, alpha=0.2, lw=0)
        axis.set(xlabel="batch", ylabel="loss (nats)")
        axis.grid(axis="y")

    rows: list[tuple[Cell, ...]] = []
    for stretch in stretches(run):
        one = estimate([value for value in values[stretch.steps] if not np.isnan(value)])
        rows.append((stretch.name, one.mean, one.mean - one.half, one.mean + one.half, one.num))
    text = (
        f"Loss of each batch (dots), its mean over the latest {window_of(run)} batches (line) and the mean's 95% "
        "interval (band). Batches without pairs have none."
    )
    head = ("batches", "mean loss (nats)", "95% from", "to", "batches with pairs")
    return Picture("loss", "Loss", text, draw, table("Loss", head, rows))


def dev(run: Run) -> Picture:
    """Dev metric against batches and against the time they took (Fig. 4)."""
    rows = run.evaluations
    values = 100 * np.array([row["accuracy"] for row in rows])
    bounds = 100 * np.array([row["interval"] for row in rows]).T
    batches = [row["batches"] for row in rows]
    seconds = [seconds_until(run, row["batches"]) for row in rows]
    unit, size = time_unit(max(seconds))
    errors = np.abs(bounds - values)

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        spent = [value / size for value in seconds]
        for axis, where, name in ((left, batches, "batch"), (right, spent, f"{unit} in batches")):
            axis.errorbar(where, values, yerr=errors, color=look(0).color, marker="o", capsize=3)
            axis.set(xlabel=name)
            axis.grid(axis="y")
        left.set(ylabel="dev accuracy (%)")

    categories = sorted({name for row in rows for name in row["by_category"]})
    cells: list[tuple[Cell, ...]] = [
        (
            row["batches"],
            f"{spent / size:.1f}",
            percent(row["accuracy"]),
            f"{percent(row['interval'][0])} to {percent(row['interval'][1])}",
            row["num_prompts"],
            *(percent(row["by_category"].get(name)) for name in categories),
        )
        for row, spent in zip(rows, seconds, strict=True)
    ]
    head = ("after batches", unit, "dev accuracy", "95% interval", "prompts", *categories)
    text = (
        "Dev accuracy with 95% Wilson intervals, against batches (left) and against the time that batches took "
        "(right); the time of dev checks and checkpoints is not in it."
    )
    return Picture("dev-metric", "Dev metric", text, draw, table("Dev metric", head, cells))


def utilization(categories: Sequence[Category], names: Sequence[str]) -> Picture:
    """Share of each category's prompts that each reward model was chosen for (Fig. 6 and 7)."""
    shown = [category for category in categories if category.choices]

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        left, handles = np.zeros(len(shown)), []
        for index, name in enumerate(names):
            share = np.array([100 * category.choices[name].share for category in shown])
            style = look(index)
            handles.append(
                axis.barh(
                    range(len(shown)),
                    share,
                    left=left,
                    color=style.color,
                    hatch=style.hatch,
                    edgecolor=outline(),
                    linewidth=0.5,
                )
            )
            left = left + share
        axis.set(xlabel="share of the category's prompts (%)", xlim=(0, 100))
        axis.set_yticks(range(len(shown)), [label(category.name) for category in shown])
        axis.invert_yaxis()
        legend(axis, names, handles)

    rows = [
        (category.name, category.num_prompts, *(percent(category.choices[name].share) for name in names))
        for category in shown
    ]
    return Picture(
        "utilization",
        "Choices by category",
        "Share of the prompts of each category that each reward model was chosen for, over the whole run; the prompts "
        "of an ensemble are divided by its weights.",
        draw,
        table("Share of prompts by category", ("category", "prompts", *names), rows),
        height=1.4 + 0.34 * len(shown) + 0.2 * (len(names) // 3),
    )


def over_time(run: Run) -> Picture:
    """Share of the prompts of each batch, as a moving mean."""
    shares_TK = np.array([_shares(step["selection"]) for step in run.steps])
    names = run.names

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        some = drawn(run)
        bands = axis.stackplot(
            np.array(run.batches)[some],
            100 * np.stack([moving(column, window_of(run))[0][some] for column in shares_TK.T]),
            colors=[look(index).color for index in range(len(names))],
            hatch=[look(index).hatch for index in range(len(names))],
            edgecolor=outline(),
            linewidth=0.5,
        )
        axis.set(xlabel="batch", ylabel="share of prompts (%)", ylim=(0, 100), xlim=_limits(run))
        legend(axis, names, bands)

    rows = [
        (stretch.name, *(percent(share) for share in shares_TK[stretch.steps].mean(axis=0)))
        for stretch in stretches(run)
    ]
    return Picture(
        "utilization-over-time",
        "Choices over the run",
        "Share of each batch's prompts that each reward model was chosen for, as a mean over the latest "
        f"{window_of(run)} batches.",
        draw,
        table("Share of prompts over the run", ("batches", *names), rows),
        height=3.2,
    )


def rewards(run: Run) -> Picture:
    """Bandit reward of each reward model over iterations, with its spread (Fig. 9)."""
    parts = stretches(run)
    values = {
        name: [
            [reward for step in part.steps for _, one, reward in charged_rewards(run.steps[step]) if one == name]
            for part in parts
        ]
        for name in run.names
    }
    shown = [name for name in run.names if any(values[name])]
    width = (parts[-1].middle - parts[0].middle) / max(1, len(parts) - 1) if len(parts) > 1 else 1.0

    def draw(figure: Any) -> None:
        axis, handles = figure.subplots(), []
        for place, name in enumerate(shown):
            shift = 0.5 * width * ((place + 0.5) / len(shown) - 0.5)  # side by side, not on top of each other
            points = [
                (part.middle + shift, np.mean(some), np.std(some))
                for part, some in zip(parts, values[name], strict=True)
                if some
            ]
            where, means, spread = np.array(points).T
            below_above = np.minimum(spread, np.stack([means, 1 - means]))  # a bandit reward is in [0, 1]
            handles.append(axis.errorbar(where, means, yerr=below_above, **dots_and_lines(run.names.index(name))))
        axis.set(xlabel="batch", ylabel="bandit reward", ylim=(-0.03, 1.03))
        axis.grid(axis="y")
        legend(axis, shown, handles)

    rows = [
        (part.name, *(_spread(values[name][index]) for name in shown)) for index, part in enumerate(parts)
    ]  # one row per part
    by_iteration = parts[0].name.startswith("iteration")
    return Picture(
        "bandit-reward",
        "Bandit reward by reward model",
        f"Mean bandit reward of each reward model in each {'iteration' if by_iteration else 'part of the run'}, from 0 "
        "to 1; the bars are one standard deviation, the spread of single rewards.",
        draw,
        table("Bandit reward: mean ± standard deviation (number)", ("batches", *shown), rows),
        height=3.3,
    )


def time_by_phase(seconds: dict[str, float]) -> Picture:
    """Share of the batches' time that each phase took."""
    spent = {phase: value for phase, value in seconds.items() if value > 0}
    total = sum(spent.values()) or 1.0

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        bars = axis.barh(
            range(len(spent)),
            [100 * value / total for value in spent.values()],
            color=look(4).color,
            edgecolor=outline(),
            linewidth=0.5,
        )
        axis.bar_label(bars, fmt="%.0f%%", padding=3)
        axis.set_yticks(range(len(spent)), [label(phase) for phase in spent])
        axis.set(xlabel="share of the time of all batches (%)", xlim=(0, 110))
        axis.invert_yaxis()

    rows = [(phase, f"{value:.1f}", percent(value / total)) for phase, value in spent.items()]
    return Picture(
        "time",
        "Where the time went",
        f"Share of {duration(total)} of batches that each phase took.",
        draw,
        table("Time by phase", ("phase", "seconds", "share"), rows),
        height=1.1 + 0.28 * max(1, len(spent)),
    )


def moving(values_T: FloatArray, window: int) -> tuple[FloatArray, FloatArray]:
    """Mean over the latest `window` values and the half-width of its 95% t-interval; NaN are skipped."""
    known = ~np.isnan(values_T)
    center = float(values_T[known].mean()) if known.any() else 0.0
    moments = np.stack([known, np.where(known, values_T - center, 0.0), np.where(known, values_T - center, 0.0) ** 2])
    sums = np.concatenate([np.zeros((3, 1)), np.cumsum(moments, axis=1)], axis=1)
    ends = np.arange(1, len(values_T) + 1)
    count, total, squares = sums[:, ends] - sums[:, np.maximum(0, ends - window)]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / count
        count[count < _LEAST_BAND] = np.nan
        variance = np.maximum(0.0, squares / count - mean**2) * count / (count - 1)
        half = stats.t.ppf(0.975, count - 1) * np.sqrt(variance / count)
    return mean + center, half


def window_of(run: Run) -> int:
    """Number of batches of a moving mean: 9, or 1% of a long run."""
    return max(9, len(run.steps) // 100)


def drawn(run: Run) -> IntArray:
    """Indices of the batches that are drawn: all, or an even sample of a long run."""
    return np.unique(np.linspace(0, len(run.steps) - 1, min(_DRAWN, len(run.steps))).astype(np.int64))


def time_unit(longest: float) -> tuple[str, float]:
    """The unit in which times up to `longest` seconds are drawn, and its length in seconds."""
    return ("seconds", 1.0) if longest < 120 else ("minutes", 60.0) if longest < 7200 else ("hours", 3600.0)


def _spread(values: Sequence[float]) -> str | None:
    return f"{np.mean(values):.2f} ± {np.std(values):.2f} ({len(values)})" if values else None


def _shares(selection: Any) -> FloatArray:
    counts = np.array([sum(row.values()) for row in selection["categories"]], dtype=np.float64)
    weights_MK = np.array(selection["weights"], dtype=np.float64)
    mean: FloatArray = counts @ weights_MK / counts.sum() if counts.sum() else weights_MK.mean(axis=0)
    return mean


def _limits(run: Run) -> tuple[float, float]:
    first, last = run.batches[0], run.batches[-1]
    return (first, last) if last > first else (first - 0.5, last + 0.5)

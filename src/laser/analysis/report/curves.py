"""Pictures of a suite: results with intervals, accuracy against time, and curves over noise and number of models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from laser.analysis.records import Run
from laser.analysis.report.blocks import Cell, Picture, table
from laser.analysis.report.charts import time_unit
from laser.analysis.report.figure import dots_and_lines, file_name, label, legend, look, outline
from laser.analysis.shown import percent
from laser.analysis.suites import RowRecord, Suite
from laser.analysis.usefulness import seconds_until
from laser.core.errors import RunDirectoryError
from laser.core.statistics import Estimate, estimate

_HUGE = 1e100  # beyond any noise
_CURVES = 8  # lines that a reader can distinguish in one picture


def results(suite: Suite, task: str, rows: Sequence[RowRecord]) -> Picture:
    """Mean of every method on a task with its 95% interval, and every seed."""
    ranked = sorted((row for row in rows if row["mean"] is not None), key=lambda row: row["mean"] or 0.0)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for place, row in enumerate(ranked):
            mean, low, high = (_percent(row[key]) for key in ("mean", "interval_low", "interval_high"))
            seeds = [100 * value for value in row["values"].values()]
            axis.scatter(seeds, [place] * len(seeds), s=16, facecolors="none", edgecolors=outline(), linewidths=0.6)
            color = look(5).color if row["method"] == suite.results["reference"] else look(0).color
            bar = [[mean - low], [high - mean]] if np.isfinite(high - low) else None
            axis.errorbar([mean], [place], xerr=bar, color=color, marker="D", markersize=5, capsize=3)
        axis.set_yticks(range(len(ranked)), [label(suite.label(row["method"])) for row in ranked])
        axis.set(xlabel=f"{suite.results['metric']} metric (%)")
        _widened(axis.get_xlim, axis.set_xlim)
        axis.grid(axis="x")

    name = suite.task(task)
    head = ("method", "mean", "95% interval", "seeds", "difference", "its interval", "p (Holm)")
    cells = [result_cells(suite, row) for row in reversed(ranked)]
    text = (
        f"{name}: mean over seeds (diamond) with its 95% t-interval, and every seed (circles). Differences are paired, "
        f"seed by seed, against {suite.label(suite.results['reference'])}."
    )
    return Picture(
        f"results-{file_name(task)}",
        f"Results: {name}",
        text,
        draw,
        table(f"Results: {name}", head, cells),
        height=1.0 + 0.3 * len(ranked),
    )


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a curve: the mean over seeds at some place."""

    at: float
    value: Estimate


def against_time(suite: Suite, task: str, methods: Sequence[str]) -> Picture | None:
    """Dev accuracy against the time of the batches (Fig. 4), mean over seeds; None without dev checks."""
    timed = {name: _over_time(suite.of(task, name)) for name in methods}
    unit, size = time_unit(max((point.at for points in timed.values() for point in points), default=0.0))
    curves = {name: [Point(one.at / size, one.value) for one in points] for name, points in timed.items()}
    shown = [name for name in methods if curves[name]][:_CURVES]
    if not shown:
        return None
    name = suite.task(task)
    return _lines(
        f"accuracy-against-time-{file_name(task)}",
        f"Accuracy against time: {name}",
        f"{name}: dev accuracy against the {unit} that batches took, both means over seeds; bars are 95% t-intervals. "
        "The time of dev checks and checkpoints is not in it.",
        {suite.label(one): curves[one] for one in shown},
        f"{unit} in batches",
    )


@dataclass(frozen=True, slots=True)
class Axis:
    """What a suite may vary in steps.

    Attributes:
        name: File name of its picture.
        title: What it shows.
        label: Name of the horizontal axis.
        read: Its value of a run.
    """

    name: str
    title: str
    label: str
    read: Callable[[Run], float]


AXES = (
    Axis("noise", "Noise on the scores", "noise (standard deviations of a prompt's scores)", lambda run: _noise(run)),
    Axis("number-of-rms", "Number of reward models", "reward models", lambda run: float(len(run.names))),
    Axis("corrupted-rms", "Corrupted reward models", "corrupted reward models", lambda run: _corrupted(run)),
)
"""Fig. 12, 11 and 13."""


def over(suite: Suite, axis: Axis) -> Picture | None:
    """The suite's metric over something that it varies; None where it does not."""
    values = {
        (row["task"], row["method"], int(seed)): value
        for row in suite.results["rows"]
        for seed, value in row["values"].items()
    }
    levels = {(cell.task, cell.method, cell.seed): axis.read(cell.run) for cell in suite.cells}
    of_method: dict[str, set[float]] = {}
    for (_, method, _), level in levels.items():
        of_method.setdefault(method, set()).add(level)
    kinds = {cell.method: _kind(cell.run) for cell in suite.cells}
    by_task = any(len(found) > 1 for found in of_method.values())
    points: dict[str, dict[float, dict[int, list[float]]]] = {}
    for key in levels.keys() & values.keys():
        line = suite.label(key[1]) if by_task else kinds[key[1]]
        points.setdefault(line, {}).setdefault(levels[key], {}).setdefault(key[2], []).append(values[key])
    curves = {
        line: [
            Point(level, estimate([float(np.mean(some)) for some in by_seed.values()]))
            for level, by_seed in sorted(by_level.items())
        ]
        for line, by_level in sorted(points.items())
        if len(by_level) > 1
    }
    if not curves:
        return None
    text = (
        f"{suite.results['metric'].capitalize()} metric over {axis.label}: mean over seeds, where there are several "
        "over tasks too, with 95% t-intervals over seeds."
    )
    return _lines(axis.name, axis.title, text, dict(list(curves.items())[:_CURVES]), axis.label)


def result_cells(suite: Suite, row: RowRecord) -> tuple[Cell, ...]:
    """A method's mean over seeds and its paired difference from the reference, each with its interval, and p."""
    return (
        suite.label(row["method"]),
        percent(row["mean"]),
        between(row["interval_low"], row["interval_high"]),
        f"{row['seeds']} of {row['seeds_wanted']}",
        percent(row["difference"]),
        between(row["difference_low"], row["difference_high"]),
        row["p_holm"],
    )


def between(low: float | None, high: float | None) -> str | None:
    """An interval of shares in percent."""
    return None if low is None or high is None else f"{percent(low)} to {percent(high)}"


def _lines(name: str, title: str, text: str, curves: dict[str, list[Point]], xlabel: str) -> Picture:
    def draw(figure: Any) -> None:
        axis, handles = figure.subplots(), []
        for index, points in enumerate(curves.values()):
            halves = [0.0 if np.isnan(one.value.half) else 100 * one.value.half for one in points]
            handles.append(
                axis.errorbar(
                    [one.at for one in points],
                    [100 * one.value.mean for one in points],
                    yerr=halves,
                    elinewidth=0.8,
                    **dots_and_lines(index),
                )
            )
        axis.set(xlabel=xlabel, ylabel="metric (%)")
        _widened(axis.get_ylim, axis.set_ylim)
        axis.grid(axis="y")
        legend(axis, list(curves), handles)

    rows = [
        (line, one.at, percent(one.value.mean), percent(one.value.half) if one.value.num > 1 else None, one.value.num)
        for line, points in curves.items()
        for one in points
    ]
    return Picture(
        name, title, text, draw, table(title, ("method", xlabel, "mean", "± 95%", "seeds"), rows), height=3.4
    )


def _over_time(runs: Sequence[Run]) -> list[Point]:
    """Dev metric at every check that all runs have made, against seconds."""
    checked = [run for run in runs if run.evaluations]
    if not checked:
        return []
    points = []
    for rows in zip(*(run.evaluations for run in checked), strict=False):
        seconds = [seconds_until(run, row["batches"]) for run, row in zip(checked, rows, strict=True)]
        points.append(Point(float(np.mean(seconds)), estimate([row["accuracy"] for row in rows])))
    return points


def _percent(share: float | None) -> float:
    return float("nan") if share is None else 100 * share


def _widened(get: Callable[[], tuple[float, float]], set_to: Callable[[float, float], Any]) -> None:
    """At least two points wide, so that equal values do not look like a difference."""
    low, high = get()
    if high - low < 2:
        set_to((low + high) / 2 - 1, (low + high) / 2 + 1)


def _noise(run: Run) -> float:
    found = [model.get("noise", 0.0) for model in run.setting("rewards.models")]
    if not all(isinstance(noise, int | float) and abs(noise) < _HUGE for noise in found):
        raise RunDirectoryError(f"{run.path / 'config.json'} has a noise that is not a number; restore the file")
    return max(map(float, found))


def _corrupted(run: Run) -> float:
    return float(sum(model.get("corruption", "none") != "none" for model in run.setting("rewards.models")))


def _kind(run: Run) -> str:
    """The kind of a method whose name says the level."""
    kind, signal = run.setting("selector.type", "?"), run.setting("signal.type", "none")
    return str(kind) if signal == "none" else f"{kind} with {signal}"

"""A run as it grows, drawn for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from laser.analysis.follow import LATEST_HEAD, View, latest, standing
from laser.analysis.records import Run
from laser.analysis.report.words import trouble
from laser.analysis.shown import one_line, visible
from laser.analysis.summary import summarize
from laser.analysis.usefulness import by_category

_BARS = "▁▂▃▄▅▆▇█"
_CATEGORIES = 4  # columns of shares that fit next to each other
_NAME = 24


def frame(view: View) -> RenderableType:
    """Everything about a run at one moment."""
    title = Text.assemble((one_line(view.path.resolve().name, 60), "bold"), "  ", (view.state.value, "cyan"))
    if view.problem:
        return Group(title, Text(visible(view.problem), style="red"))
    if view.run is None:
        return Group(title, Text(visible(f"no run at {view.path} yet")))
    parts: list[RenderableType] = [title, _bar(view)]
    if view.run.steps:
        parts += [_latest(view.run), _models(view.run), *_numbers(view.run)]
    return Group(*parts)


def differ(before: View, after: View) -> bool:
    """Whether there is anything new to draw; the run is the same object while its files are as they were."""
    same = before.run is after.run and (before.state, before.problem) == (after.state, after.problem)
    return not same or standing(before) != standing(after)


def _bar(view: View) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    words = Text(", ".join(standing(view)))
    if view.num_planned:
        row.add_row(ProgressBar(total=view.num_planned, completed=view.num_done, width=24), words)
    else:
        row.add_row(words)
    return row


def _latest(run: Run) -> RenderableType:
    rows = [[_cell(value) for value in row] for row in latest(run)]
    return _table("Latest batches", LATEST_HEAD, rows)


def _models(run: Run) -> RenderableType:
    """Per reward model: shares by category, bandit reward, responses scored."""
    categories = [category for category in by_category(run) if category.choices][:_CATEGORIES]
    summary = summarize(run.steps, run.evaluations, run.names)
    rows = [
        [
            one_line(name, _NAME),
            *(f"{category.choices[name].share:.0%}" for category in categories),
            _cell(summary.bandit_rewards.get(name)),
            str(summary.scored.get(name, 0)),
        ]
        for name in run.names
    ]
    head = ["reward model", *(one_line(category.name, 14) for category in categories), "bandit reward", "scored"]
    return _table("Reward models: share of the prompts of each category", head, rows)


def _numbers(run: Run) -> list[RenderableType]:
    """Dev metric, loss, what was left out, what went wrong."""
    summary = summarize(run.steps, run.evaluations, run.names)
    lines: list[RenderableType] = [
        Text("loss  ") + Text(sparkline([step["loss"] for step in run.steps], 48), style="blue")
    ]
    if run.evaluations:
        checks = " → ".join(f"{row['accuracy']:.1%}" for row in run.evaluations[-6:])
        low, high = run.evaluations[-1]["interval"]
        lines.append(Text(f"dev accuracy  {checks}  (95% interval {low:.1%} to {high:.1%})", style="green"))
    lines.append(Text(visible(f"pairs trained on: {summary.num_pairs}; left out: {summary.left_out}")))
    if trouble(run):
        lines.append(Text(trouble(run), style="red"))
    return lines


def sparkline(values: Sequence[float | None], width: int) -> str:
    """The values as a row of bars, at most `width`, each the mean of its share; a space where there is none."""
    size = max(1, math.ceil(len(values) / width))
    parts = [[value for value in values[at : at + size] if value is not None] for at in range(0, len(values), size)]
    means = [sum(part) / len(part) if part else None for part in parts]
    known = [value for value in means if value is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    scale = (len(_BARS) - 1) / span if span > 0 and math.isfinite(span) else 0.0
    return "".join(" " if value is None else _BARS[round((value - low) * scale)] for value in means)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in head:
        table.add_column(Text(name))
    for row in rows:
        table.add_row(*(Text(value) for value in row))
    return table


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else one_line(str(value), 40)

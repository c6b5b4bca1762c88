"""Pictures that compare reward models: agreement, distributions of scores and margins, accuracy on labeled pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from laser.analysis.records import Run
from laser.analysis.report.blocks import Cell, Picture, table
from laser.analysis.report.figure import file_name, label, look, outline
from laser.analysis.shapes import DecilesRecord
from laser.analysis.shown import percent
from laser.analysis.usefulness import Pooled, pooled
from laser.core.statistics import wilson_interval
from laser.core.types import FloatArray

Couple = tuple[str, str]
_BINS = 24
_ENDS = (0.01, 0.99)  # quantiles between which a distribution is drawn; the rest goes into the outer bars


def agreement_in_runs(names: Sequence[str], totals: Mapping[Couple, tuple[int, int]], text: str) -> Picture:
    """Heat map of pairs ordered alike among pairs that both order, from `usefulness.total_agreement`."""
    values = {couple: alike / judged for couple, (alike, judged) in totals.items()}
    return agreement(names, values, {couple: judged for couple, (_, judged) in totals.items()}, text)


def agreement(names: Sequence[str], values: Mapping[Couple, float], counts: Mapping[Couple, int], text: str) -> Picture:
    """Heat map of how often two reward models agree (Fig. 3).

    Args:
        names: All reward models.
        values: Agreement in [0, 1] of couples, in either order.
        counts: Number of pairs behind each value, where known.
        text: What was counted.
    """
    matrix = np.array([[_either(values, a, b) if a != b else np.nan for b in names] for a in names], dtype=np.float64)

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        image = axis.imshow(matrix, vmin=0, vmax=1, cmap="cividis")
        for row, column in np.ndindex(matrix.shape):
            value = float(matrix[row, column])
            words = "" if row == column else "?" if np.isnan(value) else f"{value:.2f}"
            color = outline() if np.isnan(value) else ink_on(value)
            axis.text(column, row, words, ha="center", va="center", color=color, gid=f"cell-{row}-{column}")
        axis.set_xticks(range(len(names)), [label(name) for name in names], rotation=30, ha="right")
        axis.set_yticks(range(len(names)), [label(name) for name in names])
        figure.colorbar(image, ax=axis, label="agreement")

    rows: list[tuple[Cell, ...]] = [
        (f"{a}, {b}", percent(values[a, b]), *_behind(values[a, b], counts.get((a, b)))) for a, b in values
    ]
    head = ("reward models", "agreement", "95% interval", "pairs")
    height = 1.9 + 0.42 * len(names)
    return Picture(
        "agreement", "Agreement between reward models", text, draw, table("Agreement", head, rows), height=height
    )


def ink_on(value: float) -> str:
    """The color of a number on a cell of the heat map; black and white meet where both have a contrast of 4.5."""
    return "#ffffff" if value < 0.47 else "#000000"


def distributions(run: Run) -> Picture | None:
    """Scores and margins of each reward model, and the policy's own margins (Fig. 5); None where no step has them."""
    scores, margins = _collected(run, "scores"), _collected(run, "margins")
    of_policy = pooled(
        step["distributions"]["logp_margins"]
        for step in run.steps
        if "distributions" in step and step["distributions"]["logp_margins"]
    )
    named = [(name, scores.get(name), margins.get(name)) for name in run.names if name in scores]
    if None in margins:
        named.append(("several together", None, margins[None]))
    if not named and of_policy is None:
        return None

    def draw(figure: Any) -> None:
        grid = figure.subplots(len(named) + (of_policy is not None), 2, squeeze=False)
        for axes, (name, score, margin) in zip(grid, named, strict=False):
            style = look(run.names.index(name)) if name in run.names else look(6)
            _histogram(axes[0], score, style.color, style.hatch, f"score: {label(name)}", zero=False)
            _histogram(axes[1], margin, style.color, style.hatch, f"margin: {label(name)}", zero=True)
        if of_policy is not None:
            _histogram(grid[-1][0], None, "", "", "", zero=False)
            _histogram(grid[-1][1], of_policy, look(6).color, "", "log-prob margin of the policy (nats)", zero=True)

    cells: list[tuple[Cell, ...]] = []
    for name, score, margin in named:
        cells += [(f"score of {name}", *_quantiles(score))] if score else []
        cells += [(f"margin of {name}", *_quantiles(margin))] if margin else []
    cells += [("log-prob margin of the policy", *_quantiles(of_policy))] if of_policy else []
    return Picture(
        "distributions",
        "Scores and margins",
        "Distribution of each reward model's scores (left) and of its margins, chosen minus rejected score, over the "
        "pairs it ordered (right); at the bottom the log-prob of the chosen minus that of the rejected response under "
        "the policy that sampled them. Put together from the deciles of every batch. Scales differ.",
        draw,
        table("Quantiles", ("distribution", "5%", "25%", "median", "75%", "95%", "above 0", "values"), cells),
        height=0.5 + 1.25 * (len(named) + (of_policy is not None)),
    )


def bench(record: Mapping[str, Any]) -> Picture:
    """Accuracy of each reward model on labeled pairs (Fig. 8), from the JSON of ``laser rewardbench``."""
    names = sorted(record["accuracy"], key=lambda name: float(record["accuracy"][name]))
    values = 100 * np.array([record["accuracy"][name] for name in names], dtype=np.float64)
    bounds = 100 * np.array([record["interval"][name] for name in names], dtype=np.float64).T

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        axis.barh(range(len(names)), values, color=look(4).color, edgecolor=outline(), linewidth=0.5)
        axis.errorbar(values, range(len(names)), xerr=np.abs(bounds - values), fmt="none", ecolor=outline(), capsize=3)
        axis.axvline(100 * record.get("chance", 0.5), color=outline(), linestyle=(0, (2, 2)), linewidth=0.8)
        axis.set_yticks(range(len(names)), [label(name) for name in names])
        axis.set(xlabel="accuracy on labeled pairs (%), 95% interval; dashed: chance", xlim=(0, 100))

    categories = list(record["counts"])
    rows = [
        (
            name,
            percent(record["accuracy"][name]),
            f"{percent(record['interval'][name][0])} to {percent(record['interval'][name][1])}",
            *(percent(record["by_category"][name].get(category)) for category in categories),
        )
        for name in reversed(names)
    ]
    head = ("reward model", "accuracy", "95% interval", *(f"{name} ({record['counts'][name]})" for name in categories))
    return Picture(
        "rewardbench",
        "Accuracy on labeled pairs",
        f"Share of {record['num_pairs']} prompts whose correct response each reward model scores highest; ties count "
        "by share, prompts with an unscored response as wrong.",
        draw,
        table("Accuracy on labeled pairs, by category (pairs)", head, rows),
        height=1.1 + 0.32 * len(names),
    )


def of_task(picture: Picture, task: str, name: str) -> Picture:
    """The same picture, as one of several tasks."""
    return dataclasses.replace(picture, name=f"{picture.name}-{file_name(task)}", title=f"{picture.title}: {name}")


def _either(values: Mapping[Couple, float], a: str, b: str) -> float:
    return values.get((a, b), values.get((b, a), float("nan")))


def _behind(value: float, count: int | None) -> tuple[Cell, Cell]:
    if not count:
        return None, None
    low, high = wilson_interval(value * count, count)
    return f"{percent(low)} to {percent(high)}", count


def _collected(run: Run, kind: str) -> dict[str | None, Pooled]:
    """Distributions of the whole run by reward model."""
    records: dict[str | None, list[DecilesRecord]] = {}
    for step in run.steps:
        if "distributions" in step:
            given = step["distributions"]
            for one in given["scores"] if kind == "scores" else given["margins"]:
                records.setdefault(one.get("reward_model"), []).append(one)
    found = {name: pooled(some) for name, some in records.items()}
    return {name: one for name, one in found.items() if one is not None}


def _histogram(axis: Any, given: Pooled | None, color: str, hatch: str, title: str, *, zero: bool) -> None:
    if given is None:
        axis.axis("off")
        return
    low, high = given.quantile(_ENDS[0]), given.quantile(_ENDS[1])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    at = np.interp(edges, given.grid, given.cumulative, left=0.0, right=1.0)
    at[0], at[-1] = 0.0, 1.0
    shares: FloatArray = 100 * np.diff(at)
    axis.bar(
        (edges[:-1] + edges[1:]) / 2,
        shares,
        width=np.diff(edges),
        color=color,
        hatch=hatch,
        edgecolor=outline(),
        linewidth=0.4,
    )
    if zero and low < 0 < high:
        axis.axvline(0, color=outline(), linewidth=0.8, linestyle=(0, (2, 2)))
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.tick_params(labelsize=8)
    axis.locator_params(axis="x", nbins=5)


def _quantiles(given: Pooled) -> tuple[Cell, ...]:
    above = 1 - float(np.interp(0.0, given.grid, given.cumulative, left=0.0, right=1.0))
    return (*(given.quantile(share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)), percent(above), given.num)

"""The page about a suite of runs: methods x tasks x seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from laser.analysis.records import Run
from laser.analysis.report import charts, comparisons, curves
from laser.analysis.report.blocks import Block, Cell, Page, Section, table, words
from laser.analysis.report.curves import between, result_cells
from laser.analysis.report.run import bench_blocks, configuration, damaged, examples
from laser.analysis.report.words import listed, p_value
from laser.analysis.shown import duration, percent
from laser.analysis.suites import RowRecord, Suite, together
from laser.analysis.usefulness import LEVEL, by_category, spells, total_agreement
from laser.core.statistics import Estimate, estimate, holm, paired

_TASKS = 4  # tasks that have pictures and sentences; all are in the table


@dataclass(frozen=True, slots=True)
class Preference:
    """How often the reference method chose one reward model for one category, over seeds.

    Attributes:
        task: The task.
        category: The category.
        name: The reward model.
        share: Share of the category's prompts, one value per seed.
        reward: Mean bandit reward, one value per seed that charged it.
        even: An even share.
        p: Paired t-test of the shares against an even one, corrected by Holm over all rows; None with one seed.
    """

    task: str
    category: str
    name: str
    share: Estimate
    reward: Estimate
    even: float
    p: float | None


def suite_page(suite: Suite, bench: Mapping[str, Any] | None = None) -> Page:
    """Everything about a suite of which at least one run has finished a batch."""
    drawn = _tasks(suite)[:_TASKS]
    reference = suite.results["reference"]
    preferred = preferences(suite, reference)
    sections = [
        Section("results", "Results", (_table(suite), *(_results(suite, task) for task in drawn))),
        Section("costs", "Costs", (_costs(suite), *_over_time(suite, drawn))),
        Section("useful", f"Usefulness by category, {suite.label(reference)}", _useful(suite, preferred)),
        Section("chosen", f"Choices of {suite.label(reference)}", _of_reference(suite, reference)),
        Section("levels", "Noise and number of reward models", _levels(suite)),
        Section("agreement", "Agreement between reward models", _agreement(suite, bench)),
        Section("examples", "Examples", _examples(suite, reference)),
        Section("left-out", "Missing and failed", _missing(suite)),
        Section("configuration", "Configuration", _configuration(suite, reference)),
    ]
    title = suite.results["title"] or suite.results["name"]
    return Page(title, lead(suite, preferred), tuple(section for section in sections if section.blocks))


def lead(suite: Suite, preferred: Sequence[Preference]) -> tuple[str, ...]:
    """The results in words."""
    results = suite.results
    states = [cell["state"] for cell in results["cells"]]
    unfinished = len(states) - states.count("finished")
    tasks = {cell["task"] for cell in results["cells"]}
    first = (
        f"{len(results['methods'])} methods, {len(tasks)} tasks, {len(states)} cells"
        f"{f', {unfinished} of them not finished' if unfinished else ''}."
    )
    measured = _tasks(suite)
    per_task = [_best(suite, task) for task in measured[:_TASKS]]
    more = len(measured) - _TASKS
    rest = [f"{more} more columns are in the table below."] if more > 0 else []
    paragraphs = (first, " ".join(filter(None, [*per_task, *rest])), _usefulness(suite, preferred))
    return tuple(filter(None, paragraphs))


def _tasks(suite: Suite) -> list[str]:
    """The tasks with a finished run."""
    return [task for task in suite.results["tasks"] if any(row["task"] == task for row in _rows(suite))]


def _rows(suite: Suite) -> list[RowRecord]:
    """The rows with a finished run."""
    return [row for row in suite.results["rows"] if row["seeds"]]


def preferences(suite: Suite, method: str) -> list[Preference]:
    """How often a method chose each reward model, by category, with intervals over seeds."""
    found: list[Preference] = []
    for task in dict.fromkeys(cell.task for cell in suite.cells):
        runs = suite.of(task, method)
        of_runs = [{category.name: category for category in by_category(run)} for run in runs]
        for category in dict.fromkeys(name for one in of_runs for name, of in one.items() if of.choices):
            for name in runs[0].names:
                there = [one[category] for one in of_runs if category in one]
                shares = [one.choices[name].share for one in there if name in one.choices]
                rewards = [one.rewards[name].mean for one in there if name in one.rewards]
                even = 1 / len(runs[0].names)
                found.append(
                    Preference(task, category, name, estimate(shares), estimate(rewards), even, _t_test(shares, even))
                )
    corrected = holm({index: one.p for index, one in enumerate(found)})
    return [replace(one, p=corrected[index]) for index, one in enumerate(found)]


def within(share: Estimate) -> str | None:
    """The 95% interval of a share, within [0, 1]."""
    if share.num < 2:
        return None
    return between(max(0.0, share.mean - share.half), min(1.0, share.mean + share.half))


def _t_test(shares: Sequence[float], even: float) -> float | None:
    return paired(dict(enumerate(shares)), dict.fromkeys(range(len(shares)), even)).p


def _best(suite: Suite, task: str) -> str:
    """Which method came first on a task, and whether that is more than chance."""
    rows = [row for row in suite.results["rows"] if row["task"] == task and row["mean"] is not None]
    if not rows:
        return ""
    first = max(rows, key=lambda row: row["mean"] or 0.0)
    reference = suite.results["reference"]
    interval = between(first["interval_low"], first["interval_high"])
    behind = f" (95% interval {interval}, {first['seeds']} seeds)" if interval else f" ({first['seeds']} seed)"
    name = suite.results["tasks"][task]
    if len(rows) > 1 and len({row["mean"] for row in rows}) == 1:
        return f"{name}: all methods are at {percent(first['mean'])}."
    said = f"{name}: {suite.label(first['method'])} is highest with {percent(first['mean'])}{behind}"
    better = [row for row in rows if _beyond_chance(row)]
    if reference not in {row["method"] for row in rows} or len(rows) == 1:
        return f"{said}."
    ahead = [suite.label(row["method"]) for row in better if (row["difference"] or 0) > 0]
    behind_it = [suite.label(row["method"]) for row in better if (row["difference"] or 0) < 0]
    told = []
    if ahead:
        told.append(f"{listed(ahead)} above {suite.label(reference)} beyond chance")
    if behind_it:
        told.append(f"{listed(behind_it)} below {suite.label(reference)} beyond chance")
    verdict = ", ".join(told) if told else f"no method is distinguishable from {suite.label(reference)}"
    return f"{said}; {verdict}."


def _beyond_chance(row: RowRecord) -> bool:
    return row["p_holm"] is not None and row["p_holm"] <= LEVEL


def _usefulness(suite: Suite, preferred: Sequence[Preference]) -> str:
    reference = suite.label(suite.results["reference"])
    if not preferred:
        return ""
    several = len({one.task for one in preferred}) > 1

    def where(one: Preference) -> str:
        return f" in {suite.task(one.task)}" if several else ""

    told = [one for one in preferred if one.p is not None and one.p <= LEVEL and one.share.mean > one.even]
    told.sort(key=lambda one: one.p or 0.0)
    sentences = [
        f"{reference} chose {one.name} for {percent(one.share.mean)} of {one.category} prompts{where(one)} (95% "
        f"interval {within(one.share)} over {one.share.num} seeds, even {percent(one.even)}, {p_value(one.p or 0.0)})."
        for one in told[:5]
    ]
    if not told:
        sentences.append(
            f"{reference} has no preference among reward models, in any category, that is beyond chance over seeds."
        )
    return " ".join(sentences)


def _table(suite: Suite) -> Block:
    """Every method on every task."""
    rows: list[tuple[Cell, ...]] = [(suite.task(row["task"]), *result_cells(suite, row)) for row in _rows(suite)]
    against = suite.label(suite.results["reference"])
    head = ("task", "method", "mean", "95% interval", "seeds", f"minus {against}", "its interval", "p (Holm)")
    return table("Means over seeds, with 95% t-intervals and paired tests", head, rows)


def _results(suite: Suite, task: str) -> Block:
    return curves.results(suite, task, [row for row in suite.results["rows"] if row["task"] == task])


def _costs(suite: Suite) -> Block:
    rows: list[tuple[Cell, ...]] = [
        (
            suite.task(row["task"]),
            suite.label(row["method"]),
            duration(row["seconds"]) if row["seconds"] is not None else None,
            f"{row['rm_calls']:.0f}" if row["rm_calls"] is not None else None,
            f"{row['tokens']:.0f}" if row["tokens"] is not None else None,
        )
        for row in _rows(suite)
    ]
    head = ("task", "method", "time of batches", "responses scored", "tokens")
    return table("Means over seeds", head, rows)


def _over_time(suite: Suite, tasks: Sequence[str]) -> list[Block]:
    methods = list(suite.results["methods"])
    pictures = [curves.against_time(suite, task, methods) for task in tasks]
    return [picture for picture in pictures if picture is not None]


def _useful(suite: Suite, preferred: Sequence[Preference]) -> tuple[Block, ...]:
    rows: list[tuple[Cell, ...]] = [
        (
            suite.task(one.task),
            one.category,
            one.name,
            percent(one.share.mean),
            within(one.share),
            one.p,
            one.reward.mean if one.reward.num else None,
            one.share.num,
        )
        for one in preferred
    ]
    head = (
        "task",
        "category",
        "reward model",
        "share of prompts",
        "95% interval",
        "p (Holm)",
        "bandit reward",
        "seeds",
    )
    about = (
        "Every seed is one value. p is of a t-test that the share is an even one, corrected for the number of rows "
        "(Holm). A bandit reward is in [0, 1]."
    )
    return (words(about), table("Shares and bandit rewards over seeds", head, rows)) if rows else ()


def _of_reference(suite: Suite, reference: str) -> tuple[Block, ...]:
    found: list[Block] = []
    for task in dict.fromkeys(cell.task for cell in suite.cells):
        runs = suite.of(task, reference)
        if runs and len(found) < 3 * _TASKS:
            run, name = together(runs), suite.task(task)
            found += [
                comparisons.of_task(picture, task, name)
                for picture in (
                    charts.utilization(by_category(run), run.names),
                    charts.over_time(run),
                    charts.rewards(run),
                )
            ]
    return tuple(found)


def _levels(suite: Suite) -> tuple[Block, ...]:
    pictures = (curves.over(suite, axis) for axis in curves.AXES)
    return tuple(picture for picture in pictures if picture is not None)


def _agreement(suite: Suite, bench: Mapping[str, Any] | None) -> tuple[Block, ...]:
    totals = total_agreement(step for cell in suite.cells for step in cell.run.steps)
    found: list[Block] = []
    if totals:
        names = list(dict.fromkeys(name for couple in totals for name in couple))
        text = (
            "Share of the pairs of responses that two reward models order alike, over all runs of the suite in which "
            "both scored them; 0.5 is chance, ? was not measured."
        )
        found.append(comparisons.agreement_in_runs(names, totals, text))
    return (*found, *bench_blocks(bench)) if bench is not None else tuple(found)


def _examples(suite: Suite, reference: str) -> tuple[Block, ...]:
    runs = [cell.run for cell in suite.cells if cell.run.steps and cell.method == reference]
    runs = [run for run in runs if any(step.get("disagreement") for step in run.steps)] or runs
    return examples(runs[0]) if runs else ()


def _missing(suite: Suite) -> tuple[Block, ...]:
    unfinished: list[tuple[Cell, ...]] = [
        (f"{cell['task']}/{cell['method']}/seed-{cell['seed']}", cell["state"], cell["reason"])
        for cell in suite.results["cells"]
        if cell["state"] not in ("finished", "missing")
    ]
    not_started = sum(cell["state"] == "missing" for cell in suite.results["cells"])
    unfinished += [(name, "cannot be read", why) for name, why in suite.broken]
    found: list[Block] = []
    if not_started:
        found.append(words(f"{not_started} of {len(suite.results['cells'])} cells were not started."))
    if unfinished:
        found.append(table("Cells that are not finished", ("cell", "state", "why"), unfinished))
    spelled: list[tuple[Cell, ...]] = [
        (str(cell.run.path.relative_to(suite.path)), one.name, one.batch, one.reason, one.back or "not yet")
        for cell in suite.cells
        for one in spells(cell.run)
    ]
    if spelled:
        head = ("run", "reward model", "out in batch", "reason", "scored again in batch")
        found.append(table("Quarantines", head, spelled))
    if suite.damage:
        found.append(damaged(suite.damage))
    return tuple(found) or (words("Every cell is finished, and no reward model was put in quarantine."),)


def _configuration(suite: Suite, reference: str) -> tuple[Block, ...]:
    run: Run | None = next((cell.run for cell in suite.cells if cell.method == reference), None)
    if run is None:
        return ()
    return configuration(run, f"of {run.path.relative_to(suite.path)}, ")

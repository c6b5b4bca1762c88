"""What `laser train` and `laser sft` print at their end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from laser.analysis.summary import RunSummary
    from laser.commands.train import RunResult


def print_result(result: RunResult, console: Console) -> None:
    """Print who was chosen where, what to do next, and last how the dev metric changed."""
    from laser.analysis.records import read_config
    from laser.analysis.report import write_report
    from laser.core.files import read_json

    summary, config = result.summary, read_config(result.path)
    console.print()
    _print_metric(summary, config["evaluation"]["temperature"], console)
    probe = read_json(result.path / "summary.json").get("probe")
    if probe is not None and probe["accuracy"]:
        console.print(probe_table(probe))
    measured = config["rewards"]["models"][0].get("cost") is None
    console.print(_utilization_table(summary, "cost, seconds" if measured else "cost"))
    console.print(f"pairs trained on: {summary.num_pairs}; left out: {escape(summary.left_out)}")
    if summary.num_pairs == 0:
        why = escape(summary.left_out) if summary.num_batches else "no batch was done"
        console.print(f"the policy is unchanged: no pair of responses was left to train on ({why}); see the report")
    console.print(f"run directory: {escape(str(result.path))}", soft_wrap=True)
    console.print(f"report: {escape(str(write_report(result.path).page))}", soft_wrap=True)
    console.print(f"next: {_next_step(result.path, config)}", soft_wrap=True)
    _print_change(summary, console)


def print_fine_tuned(result: RunResult, console: Console) -> None:
    """Print where the adapter is, what to do next, and how the dev metric changed."""
    from laser.analysis.records import read_config

    console.print()
    _print_metric(result.summary, read_config(result.path)["evaluation"]["temperature"], console)
    console.print(f"adapter: {escape(str(result.adapter))}", soft_wrap=True)
    path = escape(str(result.path))
    console.print(f"next: laser train CONFIG --set policy.model={path}   (train it with reward models)", soft_wrap=True)
    _print_change(result.summary, console)


def _print_metric(summary: RunSummary, temperature: float, console: Console) -> None:
    """Print the dev metric by category, and the answers that could not be read."""
    from laser.analysis.shown import visible
    from laser.evaluation.unreadable import unreadable_lines

    if summary.metric_before is None:
        return
    console.print(_metric_table(summary, temperature))
    before, after = summary.num_unparseable
    if before or after:
        console.print(f"answers that could not be read, counted as wrong: {before} before, {after} after")
    examples = {"num_unparseable": after, "unparseable": summary.unparseable}
    for line in unreadable_lines(examples, summary.num_answers):
        console.print(escape(visible(line)), soft_wrap=True)


def _print_change(summary: RunSummary, console: Console) -> None:
    """Print in words how the dev metric changed."""
    from laser.analysis.report.words import change_in_words, fall_in_words

    if summary.metric_change is None:
        return
    before, after = f"{summary.metric_before:.1%}", f"{summary.metric_after:.1%}"
    console.print(f"dev accuracy: {before} -> {after}, {change_in_words(summary.metric_change)}", soft_wrap=True)
    if fall := fall_in_words(summary.metric_change, summary.utilization):
        console.print(escape(fall), style="red", soft_wrap=True)


def _next_step(run: Path, config: Mapping[str, Any]) -> str:
    """The one command to run next: `laser init` after the demo, `laser chat` after any other run."""
    if config["data"]["type"] == "embedded":
        return "laser init my-run   (prompts, reward functions and a configuration to make yours)"
    return f"laser chat {escape(str(run))}   (talk to the trained model)"


def _metric_table(summary: RunSummary, temperature: float) -> Table:
    how = f"sampled at temperature {temperature:g}" if temperature else "greedy"
    table = Table("dev accuracy", "before", "after", title=f"Dev metric ({summary.num_evaluated} prompts, {how})")
    for name, (before, after) in summary.metric_by_category.items():
        table.add_row(escape(name), f"{before:.1%}", f"{after:.1%}")
    table.add_section()
    table.add_row("all", f"{summary.metric_before:.1%}", f"{summary.metric_after:.1%}", style="bold")
    return table


def probe_table(record: Mapping[str, Any]) -> Table:
    """What a probe found, from the `probe` of summary.json: accuracy by category and reward model, with intervals."""
    names = list(dict.fromkeys(name for row in record["accuracy"].values() for name in row))
    title = f"Accuracy of each reward model on the probe (labels: {record['labels']}), 95% interval"
    table = Table("prompts of", *map(escape, names), title=title)
    for category, row in record["accuracy"].items():
        table.add_row(escape(category), *(_accuracy(row.get(name)) for name in names))
    return table


def _accuracy(found: Mapping[str, Any] | None) -> str:
    if found is None or found["accuracy"] is None:
        return "-"
    return f"{found['accuracy']:.0%} ({100 * found['low']:.0f} to {100 * found['high']:.0f})"


def _utilization_table(summary: RunSummary, cost: str) -> Table:
    names = list(dict.fromkeys(name for counts in summary.utilization.values() for name in counts))
    table = Table("chosen for prompts of", *map(escape, names), title="How often each reward model was chosen")
    for category, counts in summary.utilization.items():
        total = sum(counts.values())
        table.add_row(escape(category), *(f"{counts.get(name, 0) / total:.0%}" for name in names))
    table.add_section()
    rewards = (f"{summary.bandit_rewards[name]:.2f}" if name in summary.bandit_rewards else "-" for name in names)
    table.add_row("mean bandit reward", *rewards)
    table.add_row("responses scored", *(f"{summary.scored.get(name, 0):,}" for name in names))
    table.add_row(cost, *(_price(summary.cost.get(name, 0.0)) for name in names))
    return table


def _price(cost: float) -> str:
    return f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}"

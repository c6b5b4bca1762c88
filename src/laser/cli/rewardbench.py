"""``laser rewardbench``: measure, and print the tables."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from laser.cli.environment import prepare
from laser.cli.options import ConfigOption, Overrides
from laser.cli.terminal import make_console

if TYPE_CHECKING:
    from laser.commands.rewardbench import BenchResult
    from laser.config import RunConfig


def rewardbench(
    pairs: Annotated[
        list[Path],
        typer.Argument(help="Files of prompt, chosen, rejected, RewardBench 1 and 2 among them.", show_default=False),
    ],
    config: ConfigOption = None,
    overrides: Overrides = None,
    select: Annotated[bool, typer.Option("--select", help="Measure the configuration's selector too.")] = False,
    learn: Annotated[
        float, typer.Option(help="Share of the prompts the selector learns from first; the others are measured.")
    ] = 0.0,
    out: Annotated[Path | None, typer.Option(help="New .json file for the results.", show_default=False)] = None,
    leaderboard: Annotated[
        Path | None,
        typer.Option(help="Folder for one .json per reward model in RewardBench's own format.", show_default=False),
    ] = None,
) -> None:
    """Measure the accuracy of each reward model on labeled responses, by category, and how much the models agree.

    Example: laser rewardbench pairs.jsonl --config run.toml --out bench.json
    """
    prepare()
    from laser.config import load_config
    from laser.core.outputs import results_file, write_results

    results = results_file(out, inputs=[*pairs, config])
    parsed = load_config(config, overrides or [])
    of_model = _leaderboard_files(leaderboard, parsed)
    from laser.commands import rewardbench as api

    result = api.rewardbench(parsed, pairs, select=select, learn=learn)
    console = make_console()
    console.print(_accuracy_table(result))
    console.print(_agreement_table(result))
    for category, shares in result.chosen.items():
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        console.print(f"chosen for {escape(category)}: {escape(listed)}")
    for name, reason in result.failed.items():
        console.print(f"left out: {escape(name)}: {escape(reason)}", soft_wrap=True)
    for name in result.silent:
        console.print(f"{escape(name)} gave no score", soft_wrap=True)
    if results is not None:
        write_results(results, result.as_record())
        console.print(f"written: {escape(str(out))}", soft_wrap=True)
    for model in parsed.rewards.models:
        if model.name in of_model and model.name in result.by_subset:
            write_results(of_model[model.name], result.as_rewardbench(model.name, model.type))
            console.print(f"written: {escape(str(of_model[model.name]))}", soft_wrap=True)


def _leaderboard_files(folder: Path | None, config: RunConfig) -> dict[str, Path]:
    """A new file for each reward model, by name. Raises LaserError where one cannot be written."""
    from laser.core.outputs import results_file

    if folder is None:
        return {}
    names = [model.name for model in config.rewards.models]
    paths = {name: folder / (re.sub(r"[^\w.-]+", "_", name) + ".json") for name in names}
    for path in paths.values():
        results_file(path)
    return paths


def _accuracy_table(result: BenchResult) -> Table:
    """Of pairs the accuracy first, of several candidates RewardBench 2's score."""
    scored = ("score",) if result.score else ()
    table = Table(
        "reward model", *scored, "accuracy", "95% interval", *map(escape, result.counts), "unscored", "too long"
    )
    table.title = (
        f"Best of up to {result.candidates} responses to {result.num_pairs} prompts; random choice: {result.chance:.3f}"
        if scored
        else f"Accuracy on {result.num_pairs} labeled pairs"
    )
    for name, value in sorted((result.score or result.accuracy).items(), key=lambda item: -item[1]):
        low, high = result.interval[name]
        numbers = [f"{value:.3f}"] * bool(scored) + [f"{result.accuracy[name]:.3f}", f"{low:.3f} to {high:.3f}"]
        numbers += [f"{result.by_category[name][category]:.2f}" for category in result.counts]
        left_out = (str(counts.get(name, "-")) for counts in (result.unscored, result.too_long))
        table.add_row(escape(name), *(["-"] * len(numbers) if name in result.silent else numbers), *left_out)
    return table


def _agreement_table(result: BenchResult) -> Table:
    names = list(result.agreement)
    table = Table("", *map(escape, names), title="Agreement (macro F1)")
    for name in names:
        values = (result.agreement[name][other] for other in names)
        table.add_row(escape(name), *("-" if math.isnan(value) else f"{value:.2f}" for value in values))
    return table

"""``laser probe``: measure, and print the table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from laser.cli.environment import prepare
from laser.cli.options import ConfigFile, Overrides
from laser.cli.terminal import make_console

if TYPE_CHECKING:
    from laser.commands.probe import ProbeResult


def probe(
    config: ConfigFile = None,
    overrides: Overrides = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="File of labeled pairs to measure on instead of the policy's answers.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show how good each reward model is, by category: accuracy, 95% interval, number of pairs, cost. Trains nothing.

    Example: laser probe run.toml, or laser probe run.toml --pairs pairs.jsonl --json
    """
    prepare()
    from laser.config import load_config

    parsed = load_config(config, overrides or [])
    console, notes = make_console(), make_console(stderr=True)
    notes.print("loading libraries, models and prompts")
    from laser.commands import probe as api

    result = api.probe(parsed, pairs=pairs.absolute() if pairs is not None else None)
    if as_json:
        import json

        from laser.core.files import to_json

        typer.echo(json.dumps(to_json(result.as_record()), indent=2, allow_nan=False))
    else:
        console.print(_accuracies(result))
        console.print(_costs(result))
    for line in [*result.findings.problems(), *(f"left out: {name}: {why}" for name, why in result.failed.items())]:
        notes.print(escape(line), soft_wrap=True)


def _accuracies(result: ProbeResult) -> Table:
    """Reward models by category, the best first."""
    interval = Column("95% interval", no_wrap=True)
    table = Table("category", "reward model", "accuracy", interval, "pairs", title="Accuracy by category")
    for category, found in result.findings.by_category().items():
        table.add_section()
        rows = [(one.reward_model, one.as_record()) for one in found]
        rows.sort(key=lambda row: -(row[1]["accuracy"] or 0.0))
        shown = [escape(category), f"  {found[0].means}", *[""] * len(rows)]
        if len(rows) == 1:
            shown[0] = "\n".join(shown[:2])
        for head, (name, row) in zip(shown, rows, strict=False):
            numbers = ["-", "-"]
            if row["pairs"]:
                numbers = ["{accuracy:.2f}".format(**row), "{low:.2f} to {high:.2f}".format(**row)]
            table.add_row(head, escape(name), *numbers, str(row["pairs"]))
    return table


def _costs(result: ProbeResult) -> Table:
    table = Table("reward model", "responses", "seconds", "ms a response", "tokens billed", title="Cost of the probe")
    if result.cost:
        table.add_column("cost")
    for name, count in result.responses.items():
        seconds = result.seconds[name]
        each = f"{1000 * seconds / count:.2f}" if count else "-"
        cost = [f"{result.cost[name]:g}"] if result.cost else []
        table.add_row(escape(name), str(count), f"{seconds:.2f}", each, str(result.tokens[name] or "-"), *cost)
    return table

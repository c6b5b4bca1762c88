"""``laser best-of-n``: run and print the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from laser.cli.environment import prepare
from laser.cli.options import ConfigFile, Overrides
from laser.cli.terminal import make_console
from laser.core.errors import ConfigError

if TYPE_CHECKING:
    from laser.commands.best_of_n import MethodResult
    from laser.commands.scored_samples import ScoreCounts

_NO_ROUTER = "classifier: give --router (laser train-classifier makes one)"


def best_of_n(
    config: ConfigFile = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of responses, scores and results.")] = Path("runs/best-of-n"),
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", help="A method, as the table names them. Repeatable; default: all of them."),
    ] = None,
    router: Annotated[
        Path | None,
        typer.Option(
            help="Folder that laser train-classifier wrote, for the method classifier; default: the selector's own.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Learn which reward model to rerank n responses with, the policy untouched, and compare with every baseline.

    Example: laser best-of-n run.toml --set split.test=100 --set generation.num_responses=8 --out runs/bon
    """
    prepare()
    from laser.config import load_config

    parsed = load_config(config, overrides or [])
    console = make_console()
    from laser.commands import best_of_n as api

    all_methods = api.standard_methods(parsed, router=router)
    unknown = [name for name in methods or [] if name not in all_methods]
    if unknown:
        hint = f"; {_NO_ROUTER}" if api.CLASSIFIER in unknown else ""
        known = ", ".join(map(repr, all_methods))
        raise ConfigError(f"there is no method {unknown[0]!r}; there are {known}{hint}")
    chosen = {name: all_methods[name] for name in methods} if methods else all_methods
    results = api.best_of_n(parsed, out, chosen, note=lambda message: console.print(escape(message), soft_wrap=True))
    for table in _tables(results, parsed.evaluation.metric):
        console.print(table)
    lines = _left_out(results)
    if not methods and api.CLASSIFIER not in all_methods:
        lines.append(_NO_ROUTER)
    for line in [*lines, f"written: {out / 'results.json'}"]:
        console.print(escape(line), soft_wrap=True)


def _tables(results: Mapping[str, MethodResult], metric: str) -> list[Table]:
    """Best first; names are what --method takes, so neither they nor numbers are ever broken."""
    best_first = sorted(results.items(), key=lambda item: -item[1].value)
    overall = Table(
        Column("method", no_wrap=True, min_width=max(map(len, results))),
        Column(metric, min_width=5),
        Column("95% interval", min_width=len("0.000 to 0.000")),
        "no choice",
        "scored",
    )
    categories = list(best_first[0][1].by_category)
    by_category = Table(
        Column("method", no_wrap=True, min_width=max(map(len, results))),
        *(Column(escape(category), min_width=5) for category in categories),
    )
    for method, result in best_first:
        low, high = result.interval
        counts = (str(result.without_choice), str(result.scored))
        overall.add_row(escape(method), f"{result.value:.3f}", f"{low:.3f} to {high:.3f}", *counts)
        by_category.add_row(escape(method), *(f"{result.by_category[category]:.3f}" for category in categories))
    return [overall, by_category] if len(categories) > 1 else [overall]


def _left_out(results: Mapping[str, MethodResult]) -> list[str]:
    """A line for every reward model with responses left out, and for every one that failed."""
    largest: dict[str, ScoreCounts] = {}
    for result in results.values():
        for name, asked in result.asked.items():
            if name not in largest or asked.responses > largest[name].responses:
                largest[name] = asked
    lines = []
    for name, asked in largest.items():
        said = [f"{asked.unscored} of {asked.responses} responses without a score"] * (asked.unscored > 0)
        said += [f"{asked.too_long} responses too long for its window"] * (asked.too_long > 0)
        lines += [f"left out: {name}: {', '.join(said)}"] if said else []
    failed = next(iter(results.values())).failed
    return [*lines, *(f"left out: {name}: {reason}" for name, reason in failed.items())]

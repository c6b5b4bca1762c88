"""``laser simulate``: simulate or replay, and print the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from laser.cli.terminal import make_console
from laser.core.errors import ConfigError

if TYPE_CHECKING:
    from laser.bandits.replay import Value


def simulate(
    environments: Annotated[
        list[str] | None,
        typer.Option(
            "--env", help="linear, stationary, abrupt, drift, digits, wine or breast_cancer. Repeatable; default: 5."
        ),
    ] = None,
    selectors: Annotated[
        list[str] | None,
        typer.Option("--selector", help="A selector. Repeatable; default: all but neural-ucb, the slowest."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds of every environment; default: 20.", show_default=False)
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=10, help="Rounds of every environment; default: 1500.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="New folder for regret.json and regret.png, by default under runs/; for replay.json, by default none.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--replay", help="Replay the logged choices of this run instead.", show_default=False),
    ] = None,
) -> None:
    """Run bandits alone, without a language model: regret in known environments, or replay of a run's choices.

    Example: laser simulate --env drift --selector linucb-1 --selector decay --seeds 5
    """
    if run is not None:
        _refuse_with_replay({"--env": environments, "--seeds": seeds, "--rounds": rounds})
        _replay(run, selectors or [], out)
    else:
        _simulate(environments or [], selectors or [], seeds or 20, rounds or 1500, out)


def _simulate(environments: list[str], selectors: list[str], seeds: int, rounds: int, out: Path | None) -> None:
    from laser.commands import simulate as api
    from laser.core.outputs import default_out

    out = out or default_out("simulate")
    simulated = api.simulate(environments, selectors, seeds, rounds, out)
    console = make_console()
    console.print(_regret_table(simulated.regret, seeds, rounds))
    console.print(f"written: {', '.join(map(str, simulated.files))}", markup=False, soft_wrap=True)


def _replay(run: Path, selectors: list[str], out: Path | None) -> None:
    from laser.commands.replay import replay_run

    replayed = replay_run(run, selectors, out)
    title = f"mean bandit reward on {replayed.num_rows} choices of {run}, with 95% bootstrap intervals"
    table = Table(title=title, title_justify="left")
    table.add_column("selector", no_wrap=True)
    for column in ("IPS", "SNIPS", "doubly robust", "matching", "rows that match"):
        table.add_column(column)
    unsupported = []
    for name, (matched, weighted) in replayed.selectors.items():
        estimates = [_shown(one) for one in (weighted.ips, weighted.snips, weighted.doubly_robust)]
        if weighted.ips is None:
            estimates = ["no support"] * 3
            unsupported.append(f"{name} ({1 - weighted.support:.0%})")
        table.add_row(name, *estimates, _shown(matched.value), str(matched.num_rows))
    table.add_section()
    logged = f"{replayed.mean:.3f}" + _interval(replayed.interval)
    table.add_row("as logged", logged, "", "", "", str(replayed.num_rows))
    console = make_console()
    console.print(table)
    if unsupported:
        console.print(
            "no support: the log gives probability 0 to arms that these selectors could choose, and says nothing about "
            f"their rewards; share of such rows: {', '.join(unsupported)}",
            soft_wrap=True,
        )
    if replayed.damage:
        first = f"the first: line {replayed.damage[0].line}, {replayed.damage[0].why}"
        console.print(f"{len(replayed.damage)} damaged lines of steps.jsonl were left out ({first})", markup=False)
    if out is not None:
        console.print(f"written: {out / 'replay.json'}", markup=False, soft_wrap=True)


def _refuse_with_replay(given: Mapping[str, object]) -> None:
    names = [name for name, value in given.items() if value]
    if names:
        raise ConfigError(f"{names[0]} does not apply to --replay, which replays the run's own batches; drop it")


def _regret_table(final: Mapping[str, Mapping[str, Mapping[str, float]]], seeds: int, rounds: int) -> Table:
    title = f"cumulative regret after {rounds} rounds, mean and 95% interval over {seeds} seeds"
    table = Table(title=title, title_justify="left")
    table.add_column("selector", no_wrap=True)
    for name in final:
        table.add_column(name, justify="right")
    for selector in next(iter(final.values())):
        cells = [f"{of[selector]['mean']:.0f} ± {of[selector]['interval']:.0f}" for of in final.values()]
        table.add_row(selector, *cells)
    return table


def _shown(value: Value | None) -> str:
    return "–" if value is None else f"{value.value:.3f}" + _interval(value.interval)


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"

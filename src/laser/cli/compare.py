"""``laser compare``: run the unfinished cells of a suite, then print and write its tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from laser.cli.environment import prepare
from laser.cli.options import Overrides
from laser.cli.terminal import make_console, say
from laser.core.errors import ConfigError

if TYPE_CHECKING:
    from laser.compare.cells import Cell
    from laser.compare.cost import Cost
    from laser.config.suite import SuiteConfig

_SHOWN_FAILURES = 20


def compare(
    suite: Annotated[Path, typer.Argument(help="TOML file of methods, tasks and seeds.", show_default=False)],
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of runs and results; default: runs/NAME.", show_default=False)
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Instead of the suite's: auto, cpu, or cuda:0,cuda:1.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Cells at a time on each device.", show_default=False)
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="method=M,task=T,seed=N", help="Only these cells and what they need. Repeatable."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List cells with state and cost; run nothing.")] = False,
    tables: Annotated[
        bool, typer.Option("--tables", help="Write the tables of the finished cells; run nothing.")
    ] = False,
) -> None:
    """Run methods x tasks x seeds where missing or interrupted, and compare them in one table with tests.

    Example: laser compare configs/lab/smoke.toml --out runs/smoke --devices cpu --workers 2
    """
    from laser.config.suite import load_suite

    given = [f"devices={_listed(devices)}"] if devices else []
    given += [f"workers={workers}"] if workers else []
    loaded = load_suite(suite, [*(overrides or []), *given])
    out = out or Path("runs") / loaded.name
    run_suite(loaded, out, only=only or [], dry_run=dry_run, tables=tables)


def run_suite(
    suite: SuiteConfig, out: Path, *, only: Sequence[str] = (), dry_run: bool = False, tables: bool = False
) -> None:
    """Run the unfinished cells of a suite, then print and write its tables.

    Raises:
        LaserError: The suite cannot be used.
        typer.Exit: A cell failed or was refused (code 1), or the user interrupted (130).
    """
    prepare()
    from laser.compare.cells import make_cells, with_needs
    from laser.compare.choices import load_oracle
    from laser.compare.schedule import check_devices, run_cells
    from laser.compare.state import check_owner, claim

    check_owner(suite, out)
    try:
        cells = make_cells(suite, out)
    except ConfigError as error:
        raise ConfigError(f"suite {suite.name}: {error}") from error
    chosen = with_needs(cells, select_cells(suite, cells, only))
    console = make_console()
    if dry_run:
        _print_plan(chosen, out, console)
        return
    if suite.oracle is not None:
        load_oracle(Path(suite.oracle))  # a missing one is refused before any cell runs
    if not tables:
        check_devices(suite.devices)
    claim(suite, out)
    if tables:
        _show(suite, cells, out, console)
        return
    try:
        outcome = run_cells(
            chosen,
            out,
            command=(sys.executable, "-m", "laser.cli.cell"),
            devices=suite.devices,
            workers=suite.workers,
            keep=suite.keep,
            note=lambda message: console.print(escape(message), soft_wrap=True),
        )
    except KeyboardInterrupt:
        say("laser: interrupted; run the same command to continue", error=True)
        raise typer.Exit(130) from None
    _show(suite, cells, out, console)
    failures = list(outcome.failures.items())
    for key, reason in failures[:_SHOWN_FAILURES]:
        say(f"laser: error: {key}: {reason}", error=True)
    if len(failures) > _SHOWN_FAILURES:
        say(f"laser: error: {len(failures) - _SHOWN_FAILURES} more are listed in {out / 'results.md'}", error=True)
    if failures:
        raise typer.Exit(1)


def select_cells(suite: SuiteConfig, cells: Iterable[Cell], only: Sequence[str]) -> list[Cell]:
    """Return the cells that every ``--only`` allows.

    Args:
        suite: The suite.
        cells: All cells.
        only: Strings such as ``method=laser,task=gsm8k,seed=0``; a key given twice allows either value.

    Raises:
        ConfigError: A key or name is unknown.
    """
    from laser.compare.cells import BEST_OF_N
    from laser.config.patch import nearest

    wanted: dict[str, set[str]] = {}
    known = {"method": [*suite.methods], "task": [*suite.all_columns], "seed": [str(seed) for seed in suite.seeds]}
    for part in (part.strip() for text in only for part in text.split(",")):
        key, _, name = part.partition("=")
        if key not in known or not name:
            raise ConfigError(f"--only {part!r} is not valid; write method=NAME, task=NAME or seed=N")
        if name not in known[key]:
            raise ConfigError(f"--only {part}: there is no {key} {name!r}; {nearest(name, known[key])}")
        if key == "method" and suite.mode == BEST_OF_N:
            raise ConfigError("a best-of-n suite runs all methods of a task and seed together; drop --only method")
        wanted.setdefault(key, set()).add(name)

    def allowed(cell: Cell) -> bool:
        names = {"method": cell.key.method, "task": cell.key.task, "seed": str(cell.key.seed)}
        return all(names[key] in values for key, values in wanted.items())

    return [cell for cell in cells if allowed(cell)]


def _show(suite: SuiteConfig, cells: Sequence[Cell], out: Path, console: Console) -> None:
    from laser.compare.results import collect
    from laser.compare.tables import legend, terminal, write_results

    results = collect(suite, cells, out)
    for table in terminal(results):
        console.print(table)
    console.print(escape(legend(results)))
    paths = write_results(results, out)
    console.print(f"written: {escape(', '.join(map(str, paths)))}", soft_wrap=True)


def _print_plan(cells: Sequence[Cell], out: Path, console: Console) -> None:
    from laser.compare.cells import BEST_OF_N
    from laser.compare.cost import Cost, estimate_best_of_n, estimate_cost, seconds_left
    from laser.compare.state import standing

    table = Table(title=escape(str(out)))
    for name in ("task", "method", "seed", "state", "batches", "responses", "RM calls", "time left"):
        table.add_column(name, overflow="fold")
    left = seconds_left(cells, out)
    costs = [estimate_best_of_n(c.config) if c.key.method == BEST_OF_N else estimate_cost(c.config) for c in cells]
    reasons = []
    for cell, cost in zip(cells, costs, strict=True):
        state = standing(cell, out)
        names = (cell.key.task, cell.key.method, str(cell.key.seed), state.state.value)
        table.add_row(*map(escape, names), *_cost(cost), _clock(left.get(cell.key)))
        if state.reason:
            reasons.append(f"{cell.key}: {state.reason}")
    console.print(table)
    known = [cost for cost in costs if cost is not None]
    total = Cost(*(sum(getattr(cost, name) for cost in known) for name in ("batches", "responses", "calls")))
    unknown = len(costs) - len(known)
    more = f"; the batches of {unknown} cells depend on their number of prompts" if unknown else ""
    console.print(
        f"{len(cells)} cells, at most {total.batches:,} batches, {total.responses:,} responses and {total.calls:,} "
        f"RM calls{more}. Times are from finished cells of the same task."
    )
    for reason in reasons:
        console.print(escape(reason), soft_wrap=True)


def _cost(cost: Cost | None) -> tuple[str, str, str]:
    return ("?", "?", "?") if cost is None else (f"{cost.batches:,}", f"{cost.responses:,}", f"{cost.calls:,}")


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _listed(devices: str) -> str:
    return "[" + ", ".join(f'"{name.strip()}"' for name in devices.split(",")) + "]"

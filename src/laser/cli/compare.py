"""``laser compare``: run what a suite lacks, then print and write its tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from laser.cli.environment import prepare
from laser.cli.terminal import make_console, say
from laser.compare.cells import BEST_OF_N, Cell, make_cells, with_needs
from laser.compare.cost import Cost, estimate_best_of_n, estimate_cost, seconds_left
from laser.compare.results import collect
from laser.compare.schedule import check_devices, run_cells
from laser.compare.state import check_owner, claim, standing
from laser.compare.tables import legend, terminal, write_results
from laser.config.patch import nearest
from laser.config.suite import SuiteConfig, load_suite
from laser.core.errors import ConfigError

_SHOWN_FAILURES = 20


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What the command line says beside the suite."""

    out: Path | None
    devices: str | None
    workers: int | None
    only: Sequence[str]
    dry_run: bool
    tables: bool


def run_compare(path: Path, overrides: list[str], options: CompareOptions) -> int:
    """Do what the command line asks and return the exit code: 1 if a cell failed or was refused.

    Raises:
        LaserError: The suite cannot be used.
    """
    prepare()
    given = [f"devices={_listed(options.devices)}"] if options.devices else []
    given += [f"workers={options.workers}"] if options.workers else []
    suite = load_suite(path, [*overrides, *given])
    out = options.out or Path("runs") / suite.name
    check_owner(suite, out)
    try:
        cells = make_cells(suite, out)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    chosen = with_needs(cells, select_cells(suite, cells, options.only))
    console = make_console()
    if options.dry_run:
        _print_plan(chosen, out, console)
        return 0
    if not options.tables:
        check_devices(suite.devices)
    claim(suite, out)
    if options.tables:
        _show(suite, cells, out, console)
        return 0
    try:
        outcome = run_cells(
            chosen,
            out,
            devices=suite.devices,
            workers=suite.workers,
            keep=suite.keep,
            note=lambda message: console.print(escape(message), soft_wrap=True),
        )
    except KeyboardInterrupt:
        say("laser: interrupted; the same command goes on where it stopped", error=True)
        return 130
    _show(suite, cells, out, console)
    failures = list(outcome.failures.items())
    for key, reason in failures[:_SHOWN_FAILURES]:
        say(f"laser: error: {key}: {reason}", error=True)
    if len(failures) > _SHOWN_FAILURES:
        say(f"laser: error: {len(failures) - _SHOWN_FAILURES} more in {out / 'results.md'}", error=True)
    return 1 if failures else 0


def select_cells(suite: SuiteConfig, cells: Iterable[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells that every ``--only`` allows.

    Args:
        suite: The suite.
        cells: All cells.
        only: Strings such as ``method=laser,task=gsm8k,seed=0``; the same key twice means either.

    Raises:
        ConfigError: A key or name is unknown.
    """
    wanted: dict[str, set[str]] = {}
    known = {"method": [*suite.methods], "task": [*suite.tasks], "seed": [str(seed) for seed in suite.seeds]}
    for part in (part.strip() for text in only for part in text.split(",")):
        key, _, name = part.partition("=")
        if key not in known or not name:
            raise ConfigError(f"--only {part!r} is not understood; write method=NAME, task=NAME or seed=N")
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
    results = collect(suite, cells, out)
    for table in terminal(results):
        console.print(table)
    console.print(escape(legend(results)))
    paths = write_results(results, out)
    console.print(f"written: {escape(', '.join(map(str, paths)))}", soft_wrap=True)


def _print_plan(cells: Sequence[Cell], out: Path, console: Console) -> None:
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
    more = (
        f"; {len(costs) - len(known)} cells take as many batches as they find prompts"
        if len(known) < len(costs)
        else ""
    )
    console.print(
        f"{len(cells)} cells, at most {total.batches:,} batches, {total.responses:,} responses and {total.calls:,} "
        f"questions to reward models{more}. Times are from finished cells of the same task."
    )
    for reason in reasons:
        console.print(escape(reason), soft_wrap=True)


def _cost(cost: Cost | None) -> tuple[str, str, str]:
    return ("?", "?", "?") if cost is None else (f"{cost.batches:,}", f"{cost.responses:,}", f"{cost.calls:,}")


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _listed(devices: str) -> str:
    return "[" + ", ".join(f'"{name.strip()}"' for name in devices.split(",")) + "]"

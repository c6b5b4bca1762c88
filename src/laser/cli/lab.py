"""``laser lab``: build the laboratory, run methods in it, print the tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from laser.cli.terminal import make_console
from laser.core.errors import ConfigError, TrainingError

app = typer.Typer(
    help="The paper in a box: small real language models, every method, error bars, on a CPU.", no_args_is_help=True
)
_FOLDER = Annotated[Path, typer.Option(help="The laboratory: models, questions, oracle.")]
_WORKERS = Annotated[int, typer.Option(min=1, help="Processes at a time, one thread each.")]


@app.command("build")
def build(folder: _FOLDER = Path("lab"), workers: _WORKERS = 2) -> None:
    """Train the policy and three pools of reward models from scratch, once; minutes on 2 cores.

    Example: laser lab build --folder lab
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    from laser.compare.lab.build import build_lab
    from laser.compare.lab.oracle import load_oracle, measure_oracle

    console = make_console()
    build_lab(folder, workers=workers, note=console.print)
    measure_oracle(folder, note=console.print)
    for pool, table in load_oracle(folder).items():
        console.print(f"\n{pool}: pairs of the policy's responses ordered rightly")
        for category, values in table.items():
            console.print(f"  {category:<11}" + "  ".join(f"{name} {value:.2f}" for name, value in values.items()))


@app.command("run")
def run(
    folder: _FOLDER = Path("lab"),
    out: Annotated[Path, typer.Option(help="Folder of the runs; finished ones stay.")] = Path("runs/lab"),
    pools: Annotated[
        list[str] | None, typer.Option("--pool", help="mixed, inconsistent or confident. Repeatable; default: all.")
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="A method. Repeatable; default: all of them.")
    ] = None,
    studies: Annotated[
        list[str] | None,
        typer.Option(
            "--study", help="noise-0.4, inverted, rms-8, loss-dpo, ...; none: plain. Repeatable; default: none."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per method.")] = 5,
    workers: _WORKERS = 2,
) -> None:
    """Run every method of the paper's tables, and its rivals, through the whole loop; print the tables.

    Example: laser lab run --pool mixed --method laser --method random --seeds 3
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    from laser.compare.lab.build import POOLS
    from laser.compare.lab.methods import LASER, PLAIN, STUDIES, method_names
    from laser.compare.lab.oracle import load_oracle
    from laser.compare.lab.report import averages, collect, table
    from laser.compare.lab.run import lab_cell, run_lab

    if not (folder / "oracle.json").is_file():
        raise ConfigError(f"{folder} holds no laboratory; build it with: laser lab build --folder {folder}")
    wanted_pools = pools or list(POOLS)
    for pool in wanted_pools:
        if pool not in POOLS:
            raise ConfigError(f"there is no pool {pool!r}; choose among {', '.join(POOLS)}")
    for method in methods or []:
        if not all(method in method_names(pool) for pool in wanted_pools):
            raise ConfigError(f"there is no method {method!r}; choose among {', '.join(method_names(wanted_pools[0]))}")
    for study in studies or []:
        if study not in (PLAIN, *STUDIES):
            raise ConfigError(f"there is no study {study!r}; choose among {', '.join((PLAIN, *STUDIES))}")
    console = make_console()
    conditions = ["" if study == PLAIN else study for study in studies or [PLAIN]]
    chosen = {pool: methods or list(method_names(pool)) for pool in wanted_pools}
    cells = [
        lab_cell(folder, out, pool, method, seed, study)
        for seed in range(seeds)
        for pool in wanted_pools
        for study in conditions
        for method in chosen[pool]
    ]
    needed = {key for cell in cells for key in cell.needs} - {cell.key for cell in cells}
    cells += [lab_cell(folder, out, key.task, key.method, key.seed) for key in sorted(needed)]
    outcome = run_lab(cells, out, workers=workers, note=lambda line: console.print(escape(line), soft_wrap=True))
    groups = {}
    for pool in wanted_pools:
        for study in conditions:
            group = f"{pool}+{study}" if study else pool
            groups[group] = collect(out, group, load_oracle(folder)[pool])
            console.print(f"\n{group}, {seeds} seeds\n")
            console.print(table(groups[group], reference=LASER), soft_wrap=True)
    if len(groups) > 1:
        console.print("\nall of these\n")
        console.print(averages(groups, reference=LASER), soft_wrap=True)
    if outcome.failures:
        sentences = "; ".join(f"{key}: {reason}" for key, reason in outcome.failures.items())
        raise TrainingError(f"{len(outcome.failures)} runs are not finished: {sentences}")

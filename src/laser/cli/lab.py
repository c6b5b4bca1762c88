"""``laser lab``: build the laboratory, run methods in it, print the tables."""

from __future__ import annotations

import os
from pathlib import Path

from rich.markup import escape

from laser.cli.terminal import make_console
from laser.core.errors import ConfigError, TrainingError


def build(folder: Path, workers: int) -> None:
    """Train the laboratory's models where they are missing."""
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


def run(
    folder: Path, out: Path, pools: list[str], methods: list[str], studies: list[str], seeds: int, workers: int
) -> None:
    """Run methods on pools and print the tables.

    Raises:
        ConfigError: The laboratory is not built, or a pool or method is unknown.
        TrainingError: Some runs failed; the tables are printed without them.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    from laser.compare.lab.build import POOLS
    from laser.compare.lab.methods import LASER, PLAIN, STUDIES, method_names
    from laser.compare.lab.oracle import load_oracle
    from laser.compare.lab.report import averages, collect, table
    from laser.compare.lab.run import lab_cell, run_lab

    if not (folder / "oracle.json").is_file():
        raise ConfigError(f"{folder} holds no laboratory; build it with: laser lab build --folder {folder}")
    pools = pools or list(POOLS)
    for pool in pools:
        if pool not in POOLS:
            raise ConfigError(f"there is no pool {pool!r}; choose among {', '.join(POOLS)}")
    for method in methods:
        if not all(method in method_names(pool) for pool in pools):
            raise ConfigError(f"there is no method {method!r}; choose among {', '.join(method_names(pools[0]))}")
    for study in studies:
        if study not in (PLAIN, *STUDIES):
            raise ConfigError(f"there is no study {study!r}; choose among {', '.join((PLAIN, *STUDIES))}")
    console = make_console()
    conditions = ["" if study == PLAIN else study for study in studies or [PLAIN]]
    chosen = {pool: methods or list(method_names(pool)) for pool in pools}
    cells = [
        lab_cell(folder, out, pool, method, seed, study)
        for seed in range(seeds)
        for pool in pools
        for study in conditions
        for method in chosen[pool]
    ]
    needed = {key for cell in cells for key in cell.needs} - {cell.key for cell in cells}
    cells += [lab_cell(folder, out, key.task, key.method, key.seed) for key in sorted(needed)]
    outcome = run_lab(cells, out, workers=workers, note=lambda line: console.print(escape(line), soft_wrap=True))
    groups = {}
    for pool in pools:
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

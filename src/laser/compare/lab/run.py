"""``laser lab run``: every method on a pool, over seeds; what is finished stays, what was interrupted goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from laser.compare.cells import Cell, Key
from laser.compare.lab.methods import COLD_START, LASER, method_config
from laser.compare.schedule import Outcome, run_cells
from laser.config import parse_config


def lab_cell(lab: Path, out: Path, pool: str, method: str, seed: int, study: str = "") -> Cell:
    """One run of the laboratory.

    Args:
        lab: The laboratory's folder.
        out: Folder of the runs.
        pool: One of `laser.compare.lab.build.POOLS`.
        method: One of `laser.compare.lab.methods.method_names`.
        seed: The seed.
        study: One of `laser.compare.lab.methods.STUDIES`, "" for none.
    """
    task = f"{pool}+{study}" if study else pool
    needs = (Key(pool, LASER, seed),) if method == COLD_START else ()
    config = parse_config(method_config(lab.resolve(), pool, method, seed, study, runs=out.resolve()))
    return Cell(Key(task, method, seed), config, needs)


def run_lab(cells: Iterable[Cell], out: Path, *, workers: int, note: Callable[[str], None]) -> Outcome:
    """Run what is not finished, one thread each; of finished runs the records stay, and the selector for cold starts.

    Args:
        cells: What to run.
        out: Folder of the runs.
        workers: Runs at a time.
        note: Told when a run is done.
    """
    return run_cells(list(cells), out, devices=("cpu",), workers=workers, keep="results", note=note)

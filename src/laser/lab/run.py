"""``laser lab run``: every method on a pool, over seeds, several runs at a time; what is finished stays."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from laser.lab.methods import COLD_START, method_config


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the laboratory.

    Attributes:
        pool: The pool.
        method: The method.
        seed: The seed.
        study: One of `laser.lab.methods.STUDIES`, "" for none.
    """

    pool: str
    method: str
    seed: int
    study: str = ""

    def folder(self, out: Path) -> Path:
        """Its run directory."""
        return out / (f"{self.pool}+{self.study}" if self.study else self.pool) / self.method / f"seed-{self.seed}"


def run_cells(
    lab: Path,
    out: Path,
    cells: Sequence[Cell],
    *,
    workers: int,
    note: Callable[[str], None] = lambda _: None,
) -> None:
    """Run what is not finished.

    Args:
        lab: The laboratory's folder.
        out: Folder of the runs.
        cells: What to run.
        workers: Runs at a time, one thread each.
        note: Told when a run is done.
    """
    missing = [cell for cell in cells if not (cell.folder(out) / "summary.json").is_file()]
    waves = ([cell for cell in missing if (cell.method == COLD_START) == last] for last in (False, True))
    done = 0
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as executor:
        for wave in waves:  # a cold start needs the run whose selector it takes
            running = {executor.submit(_run, lab, out, cell): cell for cell in wave}
            for future in as_completed(running):
                future.result()
                cell, done = running[future], done + 1
                note(f"{cell.pool} {cell.study} {cell.method} seed {cell.seed} ({done} of {len(missing)})")


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch

    torch.set_num_threads(1)


def _run(lab: Path, out: Path, cell: Cell) -> None:
    from laser.api import train

    folder = cell.folder(out)
    shutil.rmtree(folder, ignore_errors=True)  # an interrupted run of seconds starts again
    folder.parent.mkdir(parents=True, exist_ok=True)
    train(method_config(lab, cell.pool, cell.method, cell.seed, cell.study, runs=out), folder)
    for part in ("policy", "optimizer"):  # the selector stays, for cold starts
        for path in (folder / "checkpoints").glob(f"*/{part}.*"):
            path.unlink()
    shutil.rmtree(folder / "adapter", ignore_errors=True)

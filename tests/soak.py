"""A long run of a tiny model: does anything grow that should not?"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

import laser
from laser.training.progress import Progress
from runs import FUNCTIONS, make_table
from tiny import save_model


@dataclass(frozen=True)
class SoakReport:
    """What a long run left behind.

    Attributes:
        batches: Done.
        seconds: Of the whole run.
        memory: Resident bytes after each tenth of the run.
        slope: Growth of resident memory over the second half, in bytes per 1,000 batches.
        handles: Least and most open files after the first batches.
        threads: Fewest threads in the second and in the last tenth: the system counts one that ends a moment longer.
        ratio: Median seconds of a batch in the last fifth, over the second fifth.
        intact: Whether every line of steps.jsonl is a record, in order, without gap.
    """

    batches: int
    seconds: float
    memory: tuple[int, ...]
    slope: float
    handles: tuple[int, int]
    threads: tuple[int, int]
    ratio: float
    intact: bool


class Watcher(Progress):
    """Measures this process after every batch."""

    def __init__(self, batches):
        self._process = psutil.Process()
        self._next = 0
        self.rows = np.zeros((batches, 4))  # made beforehand, so that measuring does not grow

    def batch(self, record):
        process = self._process
        seconds = sum(record["seconds"].values())
        self.rows[self._next] = process.memory_info().rss, process.num_fds(), process.num_threads(), seconds
        self._next += 1


def soak(folder: Path, *, batches: int, per_iteration: int = 100) -> SoakReport:
    """Train a model of a few thousand parameters for many batches, with probe, dev checks and checkpoints."""
    save_model(folder / "base", scale=0.15, layers=1, hidden_size=16)
    (folder / "scores.py").write_text(FUNCTIONS)
    table = make_table(
        folder,
        "vowels",
        "short",
        generation={"num_responses": 3, "max_new_tokens": 4},
        split={"train": 2 * per_iteration, "dev": 2},
        training={
            "iterations": batches // per_iteration,
            "batches_per_iteration": per_iteration,
            "pairs_per_prompt": 2,
            "learning_rate": 1e-5,
        },
        checkpoint={"every": 25},
    )
    watcher, begun = Watcher(batches), time.monotonic()
    laser.train({**table, "preset": "recommended"}, folder / "run", progress=watcher)
    seconds = time.monotonic() - begun
    memory, handles, threads, spent = watcher.rows.T
    half, fifth, settled = len(memory) // 2, len(spent) // 5, slice(len(memory) // 10, None)
    tenths = np.array_split(threads, 10)
    return SoakReport(
        batches=len((folder / "run" / "steps.jsonl").read_text().splitlines()),
        seconds=seconds,
        memory=tuple(int(part[-1]) for part in np.array_split(memory, 10)),
        slope=1000 * float(np.polyfit(np.arange(len(memory) - half), memory[half:], 1)[0]),
        handles=(int(handles[settled].min()), int(handles[settled].max())),
        threads=(int(tenths[1].min()), int(tenths[-1].min())),
        ratio=float(np.median(spent[-fifth:]) / np.median(spent[fifth : 2 * fifth])),
        intact=_intact(folder / "run", per_iteration),
    )


def _intact(run, per_iteration):
    """Whether steps.jsonl has a whole record for every batch, in order."""
    records = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    places = [(record["iteration"], record["step"]) for record in records]
    return places == [divmod(number, per_iteration) for number in range(len(records))]

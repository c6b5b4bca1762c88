"""Following a run directory that another process writes: `Watch` reads only what is new."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from laser.analysis.records import Run, RunReader, is_run
from laser.analysis.shapes import StepRecord
from laser.analysis.shown import duration
from laser.analysis.suites import is_suite
from laser.core.errors import RunDirectoryError

_LATEST = 8  # batches that a table of the latest ones shows
_STILL = 120.0  # seconds without a record that are worth a word
_MOST = 10**9  # iterations, or batches of one; a larger number is damage
_PACE = 10  # batches whose time says how long the rest will take
_BEGUN = {".lock", "run.json"}  # what a run writes before its configuration


class State(StrEnum):
    """State of a run, as its files show it."""

    waiting = "waiting for the run to start"
    starting = "started, no batch finished yet"
    running = "running, or interrupted"
    finished = "finished"


@dataclass(frozen=True, slots=True)
class View:
    """A run at one moment.

    Attributes:
        path: Its directory.
        state: Its state.
        run: What can be read of it; None while waiting.
        problem: Why its configuration cannot be read; empty where it can.
        num_planned: Batches of the whole run; None where the files do not say.
        age: Seconds since a batch or a dev check was last recorded; None before.
        pace: Seconds per batch, of the latest ones; None before the first.
    """

    path: Path
    state: State
    run: Run | None = None
    problem: str = ""
    num_planned: int | None = None
    age: float | None = None
    pace: float | None = None

    @property
    def num_done(self) -> int:
        """Batches recorded."""
        return self.run.batches[-1] if self.run is not None and self.run.batches else 0

    @property
    def remaining(self) -> float | None:
        """Seconds left at the pace of the latest batches, without dev checks."""
        if self.num_planned is None or self.pace is None or self.state is State.finished:
            return None
        return max(0, self.num_planned - self.num_done) * self.pace


class Watch:
    """Follows one run directory.

    Args:
        path: The directory; it need not exist yet.

    Raises:
        RunDirectoryError: The path holds something else.
    """

    def __init__(self, path: Path) -> None:
        check_watchable(path)
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._reader: RunReader | None = None
        self._problem = ""

    def look(self) -> View:
        """Read what is new.

        Raises:
            RunDirectoryError: Files cannot be read.
        """
        self._look_at_config()
        if self._reader is None:
            return View(self.path, State.waiting, problem=self._problem)
        run = self._reader.read()
        state = State.finished if run.finished else State.running if run.steps else State.starting
        return View(self.path, state, run, "", num_planned(run), self._age(), pace(run.steps))

    def _look_at_config(self) -> None:
        """Begin, or begin again where the directory holds a different run than before."""
        try:
            status = (self.path / "config.json").stat()
            stamp = (status.st_ino, status.st_mtime_ns)
        except OSError:
            self._stamp, self._reader, self._problem = None, None, ""
            return
        if stamp == self._stamp:
            return
        try:
            self._reader = RunReader(self.path)
        except RunDirectoryError as error:
            self._reader, self._problem = None, str(error)
        else:
            self._stamp, self._problem = stamp, ""

    def _age(self) -> float | None:
        times = []
        for name in ("steps.jsonl", "evaluations.jsonl"):
            try:
                times.append((self.path / name).stat().st_mtime)
            except OSError:
                continue
        return max(0.0, time.time() - max(times)) if times else None


def check_watchable(path: Path) -> None:
    """Check that a run is at a path, or may still start there.

    Raises:
        RunDirectoryError: A file, a suite or something else is there.
    """
    if is_run(path) or not path.exists():
        return
    if not path.is_dir():
        raise RunDirectoryError(f"{path} is a file; give a directory that laser train writes")
    if is_suite(path):
        raise RunDirectoryError(f"{path} holds a suite; give one of its runs, such as {path}/TASK/METHOD/seed-0")
    if any(entry.name not in _BEGUN and not entry.name.endswith(".tmp") for entry in path.iterdir()):
        raise RunDirectoryError(
            f"{path} holds no run (config.json is missing); give a directory that laser train writes"
        )


def num_planned(run: Run) -> int | None:
    """Batches of the whole run: as configured, or estimated from its first iteration; None where neither is known."""
    iterations, batches = run.setting("training.iterations"), run.setting("training.batches_per_iteration")
    if batches is None and any(step["iteration"] > 0 for step in run.steps):
        batches = sum(step["iteration"] == 0 for step in run.steps)
    known = all(type(count) is int and 0 <= count <= _MOST for count in (iterations, batches))
    return iterations * batches if known else None


def pace(steps: Sequence[StepRecord]) -> float | None:
    """Mean seconds of the latest batches."""
    latest = [sum(step["seconds"].values()) for step in steps[-_PACE:]]
    return float(np.mean(latest)) if latest else None


LATEST_HEAD = ("batch", "category", "chosen", "pairs", "loss", "bandit reward", "seconds")


def latest(run: Run) -> list[tuple[str | int | float | None, ...]]:
    """The latest batches, newest first: one row each, with the columns of `LATEST_HEAD`."""
    rows: list[tuple[str | int | float | None, ...]] = []
    for batch, step in list(zip(run.batches, run.steps, strict=True))[: -_LATEST - 1 : -1]:
        rewards = [reward for reward in step["bandit_rewards"] if reward is not None]
        rows.append(
            (
                batch,
                step["category"],
                _who(run, step),
                step["pairs"],
                step["loss"],
                sum(rewards) / len(rewards) if rewards else None,
                f"{sum(step['seconds'].values()):.1f}",
            )
        )
    return rows


def standing(view: View) -> list[str]:
    """How far the run is, in short clauses."""
    clauses = [f"{view.num_done}{f' of {view.num_planned}' if view.num_planned else ''} batches"]
    if view.pace is not None:
        clauses.append(f"{view.pace:.1f} s per batch")
    if view.remaining is not None:
        clauses.append(f"about {duration(view.remaining)} left")
    if view.age is not None and view.age >= _STILL and view.state is not State.finished:
        clauses.append(f"nothing new for {view.age // 60:.0f} min")
    return clauses


def _who(run: Run, step: StepRecord) -> str:
    """The reward models chosen in a batch, with counts where its rows differ; a mixture of them is "several"."""
    names = [
        run.names[weights.index(max(weights))] if max(weights) == 1 else "several"
        for weights in step["selection"]["weights"]
    ]
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return names[0] if len(names) == 1 else ", ".join(f"{name} {count}" for name, count in counts.items())

"""Observers of a run, and the clock of its phases."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from laser.training.findings import Findings


class Progress:
    """Observer of a run. This one, the default of the Python API, does nothing; subclasses override what they show."""

    def started(self, *, iterations: int, batches_per_iteration: int, iteration: int, step: int) -> None:
        """The loop starts or resumes at (iteration, step)."""

    def phase(self, name: str, *, iteration: int, step: int) -> None:
        """A phase begins: probe, embed, select, sample, score, train, update, checkpoint or evaluate."""

    def tokens(self, count: int) -> None:
        """The policy sampled `count` more tokens."""

    def batch(self, record: Mapping[str, Any]) -> None:
        """A batch is done; `record` is its line of steps.jsonl."""

    def probe(self, findings: Findings) -> None:
        """A probe has tested the reward models, before they are trained with."""

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """The dev metric was measured; `record` is its line of evaluations.jsonl."""

    def note(self, message: str) -> None:
        """Something happened that the user should read."""

    def close(self) -> None:
        """Something else is about to be printed."""


class PhaseClock:
    """Measures the seconds of each phase of a batch, and tells a `Progress` when one begins."""

    def __init__(self, progress: Progress, *, iteration: int, step: int) -> None:
        self._progress = progress
        self._at = {"iteration": iteration, "step": step}
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time a block as part of `phase`; blocks of one phase add up."""
        self._progress.phase(phase, **self._at)
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - begin

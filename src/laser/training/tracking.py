"""Reports a run to experiment trackers: every batch and every dev check once, whatever is done again after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from laser.core.errors import RunDirectoryError
from laser.core.files import read_json, write_json
from laser.training.findings import Findings
from laser.training.progress import Progress

Record = Mapping[str, Any]


class Tracker(Protocol):
    """What is needed of a tracker; accelerate's `GeneralTracker` is one."""

    name: str

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        """Report numbers at a step."""

    def finish(self) -> None:
        """Send what is left and close."""


class Tracking(Progress):
    """A `Progress` that passes everything on to another and reports numbers to trackers.

    A batch's step is the number of batches done with it. The step is noted in the run directory before it is reported:
    a resumed run, which does the batches after its checkpoint again to the same numbers, reports none of them twice. A
    tracker that fails is left out with a note, and the run continues.

    Args:
        inner: Told everything.
        trackers: Told numbers.
        marks: JSON file of what has been reported; other keys in it are kept.
        names: The reward models.
    """

    def __init__(self, inner: Progress, trackers: Sequence[Tracker], marks: Path, names: Sequence[str]) -> None:
        self._inner, self._trackers, self._marks_path, self._names = inner, list(trackers), marks, tuple(names)
        self._marks = read_marks(marks)
        self._batches_per_iteration = 0

    def started(self, *, iterations: int, batches_per_iteration: int, iteration: int, step: int) -> None:
        """Learn the length of an iteration."""
        self._batches_per_iteration = batches_per_iteration
        self._inner.started(
            iterations=iterations, batches_per_iteration=batches_per_iteration, iteration=iteration, step=step
        )

    def phase(self, name: str, *, iteration: int, step: int) -> None:
        """Pass on."""
        self._inner.phase(name, iteration=iteration, step=step)

    def tokens(self, count: int) -> None:
        """Pass on."""
        self._inner.tokens(count)

    def batch(self, record: Record) -> None:
        """Report the numbers of a batch."""
        number = record["iteration"] * self._batches_per_iteration + record["step"] + 1
        self._report("batches", number, dict(batch_numbers(record, self._names)))
        self._inner.batch(record)

    def probe(self, findings: Findings) -> None:
        """Pass on."""
        self._inner.probe(findings)

    def evaluation(self, record: Record) -> None:
        """Report the dev metric."""
        self._report("evaluations", record["batches"], dict(evaluation_numbers(record)))
        self._inner.evaluation(record)

    def note(self, message: str) -> None:
        """Pass on."""
        self._inner.note(message)

    def finish(self) -> None:
        """Close all trackers."""
        for tracker in self._trackers:
            self._try(tracker, tracker.finish)

    def _report(self, kind: str, number: int, values: dict[str, float]) -> None:
        if not self._trackers or number <= self._marks.get(kind, -1):
            return
        self._marks[kind] = number
        write_json(self._marks_path, self._marks)
        self._trackers = [one for one in self._trackers if self._try(one, partial(one.log, values, step=number))]

    def _try(self, tracker: Tracker, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # of a library or its network, whatever it is; training is worth more
            self._inner.note(f"tracker {tracker.name} failed ({error}); the run continues without it")
            return False
        return True


def read_marks(path: Path) -> dict[str, Any]:
    """What has been reported to trackers, and the run's identities there; empty before anything was reported.

    Raises:
        RunDirectoryError: The file cannot be read or holds something else.
    """
    marks = read_json(path) if path.is_file() else {}
    ids, counts = marks.get("ids", {}), (marks.get(kind, 0) for kind in ("batches", "evaluations"))
    known = isinstance(ids, dict) and all(isinstance(one, str) for one in ids.values())
    if not known or not all(type(count) is int for count in counts):
        raise RunDirectoryError(f"{path} does not hold what was reported to trackers; delete it, then resume")
    return marks


def batch_numbers(record: Record, names: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Numbers of a batch by name; what is unknown or not finite is left out."""
    selection = record["selection"]
    numbers: dict[str, Any] = {
        "train/loss": record["loss"],
        **{f"train/loss_{name}": value for name, value in record["loss_parts"].items()},
        "train/grad_norm": record["grad_norm"],
        "train/pairs": record["pairs"],
        "train/score_margin": record["score_margin"],
        "bandit/reward": _mean(record["bandit_rewards"]),
        "bandit/loss": _mean(record["bandit_losses"]),
        "bandit/signal": _mean(record["bandit_signals"]),
        **_of_each("chosen", names, np.mean(selection["weights"], axis=0)),
        **_of_each("probability", names, np.mean(selection["probabilities"], axis=0)),
        **_rewards(record.get("distributions", {}).get("score_moments", {})),
        **{f"asked/{name}": count for name, count in record["scored"].items()},
        **{f"dropped/{name}": count for name, count in record["dropped"].items()},
        **{f"tokens/{name}": count for name, count in record["tokens"].items()},
        **{f"seconds/{name}": value for name, value in record["seconds"].items()},
    }
    return _finite(numbers)


def evaluation_numbers(record: Record) -> Iterator[tuple[str, float]]:
    """Numbers of a dev check by name; `record` is its line of evaluations.jsonl."""
    of_category = {f"dev/{name}": value for name, value in record["by_category"].items()}
    return _finite({"dev/metric": record["accuracy"], **of_category})


def _rewards(moments: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean and standard deviation of the scores of each reward model, under the names that TRL uses."""
    return {f"rewards/{name}/{key}": value for name, both in moments.items() for key, value in both.items()}


def _of_each(title: str, names: Sequence[str], values_K: Any) -> dict[str, float]:
    return {f"{title}/{name}": value for name, value in zip(names, values_K, strict=True)}


def _mean(values: Any) -> float | None:
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else None


def _finite(numbers: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    return ((name, float(value)) for name, value in numbers.items() if value is not None and math.isfinite(value))

"""What a suite came to: numbers of every cell, and of every method on every task with tests against the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from laser.analysis.records import read_summary
from laser.compare.cells import BEST_OF_N, Cell, Key
from laser.compare.state import State, standing
from laser.config.suite import MethodConfig, SuiteConfig
from laser.core.files import read_json
from laser.core.statistics import Estimate, Paired, estimate, holm, paired
from laser.evaluation.metrics import ONE_SAMPLE, ORACLE

AVERAGE = "average"
"""The macro average over tasks, which stands beside them where there are several."""

BySeed = Mapping[int, "Measured"]


@dataclass(frozen=True, slots=True)
class Measured:
    """Numbers of one method with one seed on one task, or of their mean.

    Attributes:
        value: The suite's metric, in [0, 1].
        before: The same before training; None where it was not measured.
        seconds: Time of all batches.
        calls: Responses that reward models were asked about, once per reward model.
        tokens: Tokens sampled and trained on.
    """

    value: float
    before: float | None = None
    seconds: float | None = None
    calls: float | None = None
    tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One method on one task.

    Attributes:
        method: The method.
        task: The task, or `AVERAGE`.
        wanted: Number of seeds the suite asks for; 0 where the method is not run on the task.
        by_seed: What there is.
        value: Mean, deviation and interval over seeds.
        against: The paired test against the reference; None for the reference itself.
        p_holm: Its p-value, adjusted for the number of methods tested on the task.
        seconds: Mean time.
        calls: Mean number of questions to reward models.
        tokens: Mean number of tokens.
        seconds_ratio: Time over the reference's, on shared seeds.
        calls_ratio: The same for questions.
    """

    method: str
    task: str
    wanted: int
    by_seed: BySeed
    value: Estimate
    against: Paired | None
    p_holm: float | None
    seconds: float | None
    calls: float | None
    tokens: float | None
    seconds_ratio: float | None
    calls_ratio: float | None


@dataclass(frozen=True, slots=True)
class CellRecord:
    """Where a cell stands."""

    key: Key
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Results:
    """A suite's table.

    Attributes:
        suite: The suite.
        tasks: Columns: the shown tasks, then `AVERAGE` where there are several.
        entries: By (method, task).
        cells: Every cell.
    """

    suite: SuiteConfig
    tasks: tuple[str, ...]
    entries: Mapping[tuple[str, str], Entry]
    cells: tuple[CellRecord, ...]

    @property
    def num_missing(self) -> int:
        """Cells that are not finished."""
        return sum(cell.state is not State.finished for cell in self.cells)


def collect(suite: SuiteConfig, cells: Sequence[Cell], out: Path) -> Results:
    """Read what is finished; what is not is counted.

    Args:
        suite: The suite.
        cells: All of its cells.
        out: Its directory.
    """
    records = []
    measured: dict[tuple[str, str], dict[int, Measured]] = {}
    for cell in cells:
        state = standing(cell, out)
        records.append(CellRecord(cell.key, state.state, state.reason))
        if state.state is State.finished:
            for method, numbers in _read(cell, out).items():
                measured.setdefault((method, cell.key.task), {})[cell.key.seed] = numbers
    columns = {
        task: {name: _of_method(suite, name, task, measured) for name in suite.methods} for task in suite.shown_tasks
    }
    if len(columns) > 1:
        columns[AVERAGE] = {name: _averaged([of[name] for of in columns.values()]) for name in suite.methods}
    entries = {(entry.method, task): entry for task, of in columns.items() for entry in _tested(suite, task, of)}
    return Results(suite, tuple(columns), entries, tuple(records))


def _read(cell: Cell, out: Path) -> dict[str, Measured]:
    """Numbers of a finished cell, by method."""
    folder = cell.key.folder(out)
    if cell.key.method == BEST_OF_N:
        results = read_json(folder / "results.json")
        return {
            name: Measured(one["value"], before=results[ONE_SAMPLE]["value"], calls=one["scored"])
            for name, one in results.items()
        }
    summary = read_summary(folder)
    value, before = summary["metric_after"], summary["metric_before"]
    if cell.measurement is not None:
        measured = read_json(folder / cell.measurement.file)
        value, before = measured["value"], measured["before"]
    if value is None:
        return {}  # an auxiliary task without gold answers
    return {
        cell.key.method: Measured(
            value=value,
            before=before,
            seconds=sum(summary["seconds"].values()),
            calls=sum(summary["scored"].values()),
            tokens=sum(summary["tokens"].values()),
        )
    }


def _of_method(
    suite: SuiteConfig, name: str, task: str, measured: Mapping[tuple[str, str], BySeed]
) -> dict[int, Measured]:
    method = suite.methods[name]
    if task not in suite.tasks_of(name):
        return {}
    if method.mean_of is not None:
        members = [measured.get((other, task), {}) for other in method.mean_of]
        shared = set.intersection(*(set(member) for member in members))
        return {seed: _mean([member[seed] for member in members]) for seed in sorted(shared)}
    return _special_row(method, task, measured) or dict(sorted(measured.get((name, task), {}).items()))


def _special_row(
    method: MethodConfig, task: str, measured: Mapping[tuple[str, str], BySeed]
) -> dict[int, Measured] | None:
    """A row made from what runs say beside their own result."""
    if method.row == "oracle":
        return {seed: Measured(one.value) for seed, one in measured.get((ORACLE, task), {}).items()}
    if method.row == "before":
        found: dict[int, Measured] = {}
        for (_, of_task), by_seed in measured.items():
            for seed, one in by_seed.items():
                if of_task == task and one.before is not None:
                    found.setdefault(seed, Measured(one.before))
        return dict(sorted(found.items()))
    return None


def _averaged(columns: Sequence[BySeed]) -> dict[int, Measured]:
    """Seed by seed the mean over tasks, for seeds that all of them have."""
    shared = set.intersection(*(set(column) for column in columns))
    return {seed: _mean([column[seed] for column in columns]) for seed in sorted(shared)}


def _mean(numbers: Sequence[Measured]) -> Measured:
    return Measured(
        value=fmean(one.value for one in numbers),
        before=_mean_of([one.before for one in numbers]),
        seconds=_mean_of([one.seconds for one in numbers]),
        calls=_mean_of([one.calls for one in numbers]),
        tokens=_mean_of([one.tokens for one in numbers]),
    )


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _tested(suite: SuiteConfig, task: str, of: Mapping[str, BySeed]) -> list[Entry]:
    """All methods on one task, tested against the reference and adjusted for their number."""
    reference = of[suite.compared_with]
    theirs = {seed: one.value for seed, one in reference.items()}
    values = {name: {seed: one.value for seed, one in of[name].items()} for name in suite.methods}
    tests = {name: paired(values[name], theirs) for name in suite.methods if name != suite.compared_with}
    adjusted = holm({name: test.p for name, test in tests.items()})
    entries = []
    for name in suite.methods:
        runs = of[name]
        on_task = task == AVERAGE or task in suite.tasks_of(name)
        entries.append(
            Entry(
                method=name,
                task=task,
                wanted=len(suite.seeds) if on_task else 0,
                by_seed=runs,
                value=estimate([*values[name].values()]),
                against=tests.get(name),
                p_holm=adjusted.get(name),
                seconds=_mean_of([one.seconds for one in runs.values()]),
                calls=_mean_of([one.calls for one in runs.values()]),
                tokens=_mean_of([one.tokens for one in runs.values()]),
                seconds_ratio=_ratio(runs, reference, lambda one: one.seconds),
                calls_ratio=_ratio(runs, reference, lambda one: one.calls),
            )
        )
    return entries


def _ratio(ours: BySeed, theirs: BySeed, read: Callable[[Measured], float | None]) -> float | None:
    shared = [seed for seed in ours if seed in theirs]
    mine, others = (_mean_of([read(side[seed]) for seed in shared]) for side in (ours, theirs))
    return mine / others if mine is not None and others else None


def count_states(cells: Sequence[CellRecord]) -> dict[str, int]:
    """How many cells are in which state."""
    return dict(Counter(cell.state.value for cell in cells))

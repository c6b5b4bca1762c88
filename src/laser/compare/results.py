"""The results of a suite: numbers of every cell, and of every method on every task with tests against the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from laser.analysis.records import read_summary
from laser.compare.cells import BEST_OF_N, Cell, Key
from laser.compare.choices import PairAccuracy, best_reward_model, load_oracle, read_choices
from laser.compare.state import State, standing
from laser.config.suite import MethodConfig, SuiteConfig
from laser.core.files import read_json
from laser.core.statistics import Estimate, Paired, estimate, holm, paired
from laser.evaluation.metrics import ONE_SAMPLE, ORACLE

AVERAGE = "average"
"""The macro average over tasks, a column added where there are several."""

BySeed = Mapping[int, "Measured"]


@dataclass(frozen=True, slots=True)
class Measured:
    """Numbers of one method with one seed on one task, or of their mean.

    Attributes:
        value: The suite's metric, in [0, 1].
        before: The same before training; None where it was not measured.
        seconds: Time of all batches.
        calls: Responses scored, once per reward model.
        tokens: Tokens sampled and trained on.
        by_category: The last dev metric of every category, in [0, 1]; empty where the suite has another metric.
        best_choice: Share of prompts for which the oracle's best reward model was chosen; None without an oracle.
        regret: Pair accuracy lost to the best choice, mean over prompts; None without an oracle.
    """

    value: float
    before: float | None = None
    seconds: float | None = None
    calls: float | None = None
    tokens: float | None = None
    by_category: Mapping[str, float] = field(default_factory=dict)
    best_choice: float | None = None
    regret: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One method on one task.

    Attributes:
        method: The method.
        task: The task, or `AVERAGE`.
        wanted: Number of seeds in the suite; 0 where the method has no value on the task.
        by_seed: The numbers of finished seeds.
        value: Mean, deviation and interval over seeds.
        against: The paired test against the reference; None for the reference itself.
        p_holm: Its p-value, adjusted for the number of methods tested on the task.
        seconds: Mean time.
        calls: Mean number of RM calls.
        tokens: Mean number of tokens.
        seconds_ratio: Time over the reference's, on shared seeds.
        calls_ratio: RM calls over the reference's, on shared seeds.
        by_category: Mean metric by category.
        best_choice: Mean share of prompts for which the oracle's best reward model was chosen.
        regret: Mean pair accuracy lost to the best choice.
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
    by_category: Mapping[str, float]
    best_choice: float | None
    regret: float | None


@dataclass(frozen=True, slots=True)
class CellRecord:
    """The state of a cell."""

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

    @property
    def measured(self) -> tuple[list[str], list[str]]:
        """Methods and tasks with a result; all of them before the first run has finished."""
        found = [key for key, entry in self.entries.items() if entry.value.num]
        methods = [name for name in self.suite.shown_methods if any(name == method for method, _ in found)]
        tasks = [name for name in self.tasks if any(name == task for _, task in found)]
        if not found:
            return list(self.suite.shown_methods), list(self.tasks)
        return methods, tasks


def collect(suite: SuiteConfig, cells: Sequence[Cell], out: Path) -> Results:
    """Read the numbers of finished cells and the state of all.

    Raises:
        ConfigError: The suite's oracle cannot be read.
    """
    oracle = load_oracle(Path(suite.oracle)) if suite.oracle is not None else {}
    records = []
    measured: dict[tuple[str, str], dict[int, Measured]] = {}
    for cell in cells:
        state = standing(cell, out)
        records.append(CellRecord(cell.key, state.state, state.reason))
        if state.state is State.finished:
            for method, numbers in _read(cell, out, oracle.get(suite.all_columns[cell.key.task].task)).items():
                measured.setdefault((method, cell.key.task), {})[cell.key.seed] = numbers
    columns: dict[str, dict[str, BySeed]] = {}
    for task in suite.shown_tasks:
        best = oracle.get(suite.all_columns[task].task)
        columns[task] = {name: _of_method(suite, name, task, measured, best) for name in suite.shown_methods}
    if len(columns) > 1:
        columns[AVERAGE] = {name: _averaged([of[name] for of in columns.values()]) for name in suite.shown_methods}
    entries = {(entry.method, task): entry for task, of in columns.items() for entry in _tested(suite, task, of)}
    return Results(suite, tuple(columns), entries, tuple(records))


def _read(cell: Cell, out: Path, oracle: PairAccuracy | None) -> dict[str, Measured]:
    """Return the numbers of a finished cell by method."""
    folder = cell.key.folder(out)
    if cell.key.method == BEST_OF_N:
        results = read_json(folder / "results.json")
        return {
            name: Measured(one["value"], before=results[ONE_SAMPLE]["value"], calls=one["scored"])
            for name, one in results.items()
        }
    summary = read_summary(folder)
    value, before = summary["metric_after"], summary["metric_before"]
    by_category = {name: values[1] for name, values in summary.get("metric_by_category", {}).items()}
    if cell.measurement is not None:
        measured = read_json(folder / cell.measurement.file)
        value, before, by_category = measured["value"], measured["before"], {}
    if value is None:
        return {}  # an auxiliary task without gold answers
    names = [model.name for model in cell.config.rewards.models]
    choices = read_choices(folder, names, oracle) if oracle else None
    return {
        cell.key.method: Measured(
            value=value,
            before=before,
            seconds=sum(summary["seconds"].values()),
            calls=sum(summary["scored"].values()),
            tokens=sum(summary["tokens"].values()),
            by_category=by_category,
            best_choice=choices.best if choices else None,
            regret=choices.regret if choices else None,
        )
    }


def _of_method(
    suite: SuiteConfig,
    name: str,
    task: str,
    measured: Mapping[tuple[str, str], BySeed],
    oracle: PairAccuracy | None,
) -> dict[int, Measured]:
    method = suite.methods[name]
    if task not in suite.tasks_of(name):
        return {}
    if method.row == "best_rm":
        best = best_reward_model(oracle) if oracle else None
        chosen = [fixed for fixed, arm in suite.fixed_arms.items() if arm == best]
        return dict(sorted(measured.get((chosen[0], task), {}).items())) if chosen else {}
    if method.mean_of is not None:
        members = [measured.get((other, task), {}) for other in method.mean_of]
        shared = set.intersection(*(set(member) for member in members))
        return {seed: _mean([member[seed] for member in members]) for seed in sorted(shared)}
    return _special_row(method, task, measured) or dict(sorted(measured.get((name, task), {}).items()))


def _special_row(
    method: MethodConfig, task: str, measured: Mapping[tuple[str, str], BySeed]
) -> dict[int, Measured] | None:
    """Return the row of `before` or `oracle`, which other methods' runs measure; None for other rows."""
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
    """Return the mean over tasks by seed, for seeds that all tasks have."""
    shared = set.intersection(*(set(column) for column in columns))
    return {seed: _mean([column[seed] for column in columns]) for seed in sorted(shared)}


def _mean(numbers: Sequence[Measured]) -> Measured:
    return Measured(
        value=fmean(one.value for one in numbers),
        before=_mean_of([one.before for one in numbers]),
        seconds=_mean_of([one.seconds for one in numbers]),
        calls=_mean_of([one.calls for one in numbers]),
        tokens=_mean_of([one.tokens for one in numbers]),
        by_category=_mean_by_category(numbers),
        best_choice=_mean_of([one.best_choice for one in numbers]),
        regret=_mean_of([one.regret for one in numbers]),
    )


def _mean_by_category(numbers: Iterable[Measured]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for one in numbers:
        for name, value in one.by_category.items():
            values.setdefault(name, []).append(value)
    return {name: fmean(of) for name, of in sorted(values.items())}


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _tested(suite: SuiteConfig, task: str, of: Mapping[str, BySeed]) -> list[Entry]:
    """Return the entries of one task, tested against the reference and adjusted for their number."""
    reference = of[suite.compared_with]
    theirs = {seed: one.value for seed, one in reference.items()}
    values = {name: {seed: one.value for seed, one in of[name].items()} for name in suite.shown_methods}
    tests = {name: paired(values[name], theirs) for name in suite.shown_methods if name != suite.compared_with}
    adjusted = holm({name: test.p for name, test in tests.items()})
    entries = []
    for name in suite.shown_methods:
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
                by_category=_mean_by_category(runs.values()),
                best_choice=_mean_of([one.best_choice for one in runs.values()]),
                regret=_mean_of([one.regret for one in runs.values()]),
            )
        )
    return entries


def _ratio(ours: BySeed, theirs: BySeed, read: Callable[[Measured], float | None]) -> float | None:
    shared = [seed for seed in ours if seed in theirs]
    mine, others = (_mean_of([read(side[seed]) for seed in shared]) for side in (ours, theirs))
    return mine / others if mine is not None and others else None


def count_states(cells: Sequence[CellRecord]) -> dict[str, int]:
    """Return the number of cells in each state."""
    return dict(Counter(cell.state.value for cell in cells))

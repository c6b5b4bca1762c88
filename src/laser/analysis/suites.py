"""Reading the directory of a suite: runs of methods x tasks x seeds, and the table that ``laser compare`` wrote."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NotRequired

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from laser.analysis.records import Damage, Run, read_run
from laser.analysis.shapes import Finite
from laser.core.errors import RunDirectoryError
from laser.core.files import read_bytes
from laser.core.statistics import estimate, holm, paired

_SEED = re.compile(r"seed-(\d+)")
_FIRST = ("laser", "linucb")  # the method others are compared with where nothing says which


class RowRecord(TypedDict):
    """One method on one task, as results.json has it; shares in [0, 1], None where unknown."""

    task: str
    method: str
    label: NotRequired[str]
    seeds: int
    seeds_wanted: int
    mean: Finite | None
    sd: Finite | None
    interval_low: Finite | None
    interval_high: Finite | None
    difference: Finite | None
    difference_low: Finite | None
    difference_high: Finite | None
    p: Finite | None
    p_holm: Finite | None
    seconds: Finite | None
    rm_calls: Finite | None
    tokens: Finite | None
    values: dict[Annotated[str, Field(pattern=r"^[0-9]{1,18}$")], Finite]  # by seed


class CellRecord(TypedDict):
    """State of one cell."""

    task: str
    method: str
    seed: int
    state: str
    reason: str


class ResultsRecord(TypedDict):
    """results.json of a suite, the part that reports read."""

    name: str
    title: str
    metric: str
    reference: str
    methods: dict[str, str]
    tasks: dict[str, str]
    rows: list[RowRecord]
    cells: list[CellRecord]


_RESULTS = TypeAdapter(ResultsRecord)


@dataclass(frozen=True, slots=True)
class Cell:
    """A run of a suite."""

    task: str
    method: str
    seed: int
    run: Run


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite, finished or not.

    Attributes:
        path: Its directory.
        results: Its table: as written by ``laser compare``, or made from the dev metric of the runs.
        cells: Runs that can be read.
        broken: Run directories that cannot be read, and why.
    """

    path: Path
    results: ResultsRecord
    cells: tuple[Cell, ...]
    broken: tuple[tuple[str, str], ...]

    @property
    def damage(self) -> tuple[Damage, ...]:
        """Damaged lines of all runs, with the run's folder in the file's name."""
        return tuple(
            dataclasses.replace(one, file=f"{cell.run.path.relative_to(self.path)}/{one.file}")
            for cell in self.cells
            for one in cell.run.damage
        )

    def of(self, task: str, method: str) -> list[Run]:
        """The runs of one method on one task that have finished a batch, by seed."""
        found = [cell for cell in self.cells if (cell.task, cell.method) == (task, method) and cell.run.steps]
        return [cell.run for cell in sorted(found, key=lambda cell: cell.seed)]

    def label(self, method: str) -> str:
        """A method's name in tables."""
        return self.results["methods"].get(method, method)

    def task(self, name: str) -> str:
        """A task's name in tables."""
        return self.results["tasks"].get(name, name)


def is_suite(path: Path) -> bool:
    """Whether there are runs of a suite below the folder."""
    return (path / "suite.json").is_file() or any(True for _ in _folders(path))


def read_suite(path: Path) -> Suite:
    """Read a suite.

    Raises:
        RunDirectoryError: It holds no run that can be read, or a damaged results.json.
    """
    cells, broken = [], []
    for folder in sorted(_folders(path), key=lambda folder: (folder.parts[:-1], _seed(folder))):
        try:
            run = read_run(folder)
        except RunDirectoryError as error:
            broken.append((str(folder.relative_to(path)), str(error)))
            continue
        cells.append(Cell(folder.parts[-3], folder.parts[-2], _seed(folder), run))
    results = _read_results(path / "results.json") or _made_results(path, cells)
    if not results["rows"] and not any(cell.run.steps for cell in cells):
        raise RunDirectoryError(f"no run of {path} has finished a batch yet; there is nothing to report")
    return Suite(path, results, tuple(cells), tuple(broken))


def together(runs: Sequence[Run]) -> Run:
    """Runs of one method on one task as if they were one, batch by batch, for pictures of all seeds.

    A reward model that only some of them have is left out of the pool, and so are the runs with another pool.
    """
    first = runs[0]
    alike = [run for run in runs if run.names == first.names]
    rows = sorted(
        ((step["iteration"], step["step"], batch, place) for place, run in enumerate(alike)
         for batch, step in zip(run.batches, run.steps, strict=True)),
    )  # fmt: skip
    at = [dict(zip(run.batches, run.steps, strict=True)) for run in alike]
    return dataclasses.replace(
        first,
        steps=tuple(at[place][batch] for _, _, batch, place in rows),
        batches=tuple(batch for _, _, batch, _ in rows),
        evaluations=(),
        damage=(),
    )


def _folders(path: Path) -> Iterable[Path]:
    return (config.parent for config in path.glob("*/*/seed-*/config.json") if _SEED.fullmatch(config.parent.name))


def _seed(folder: Path) -> int:
    found = _SEED.fullmatch(folder.name)
    assert found is not None
    return int(found[1])


def _read_results(path: Path) -> ResultsRecord | None:
    """The suite's table; None where it has not been written."""
    try:
        return _RESULTS.validate_python(json.loads(read_bytes(path)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path} ({error.strerror}); check its permissions") from error
    except (ValueError, ValidationError, RecursionError) as error:
        raise RunDirectoryError(
            f"{path} is not what laser compare writes; remove it, and laser compare --tables writes it again"
        ) from error


def _made_results(path: Path, cells: Sequence[Cell]) -> ResultsRecord:
    """The same table from the last dev metric of finished runs, where no suite wrote one."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    for cell in cells:
        if cell.run.finished and cell.run.evaluations:
            of = values.setdefault((cell.task, cell.method), {})
            of[cell.seed] = cell.run.evaluations[-1]["accuracy"]
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    methods = list(dict.fromkeys(cell.method for cell in cells))
    reference = next((name for name in _FIRST if name in methods), methods[0] if methods else "")
    rows = [row for task in tasks for row in _rows(task, methods, reference, values, cells)]
    return ResultsRecord(
        name=path.resolve().name,
        title="",
        metric="dev",
        reference=reference,
        methods={name: name for name in methods},
        tasks={name: name for name in tasks},
        rows=rows,
        cells=[
            CellRecord(
                task=cell.task,
                method=cell.method,
                seed=cell.seed,
                state="finished" if cell.run.finished else "interrupted",
                reason="",
            )
            for cell in cells
        ],
    )


def _rows(
    task: str,
    methods: Sequence[str],
    reference: str,
    values: Mapping[tuple[str, str], Mapping[int, float]],
    cells: Sequence[Cell],
) -> list[RowRecord]:
    there = [name for name in methods if (task, name) in values]
    theirs = values.get((task, reference), {})
    tests = {name: paired(values[task, name], theirs) for name in there if name != reference}
    adjusted = holm({name: test.p for name, test in tests.items()})
    rows = []
    for name in there:
        of = values[task, name]
        one, runs = (
            estimate(list(of.values())),
            [cell.run for cell in cells if (cell.task, cell.method) == (task, name)],
        )
        gap = tests[name].difference if name in tests else None
        rows.append(
            RowRecord(
                task=task,
                method=name,
                seeds=one.num,
                seeds_wanted=len(runs),
                mean=_known(one.mean),
                sd=_known(one.sd),
                interval_low=_known(one.mean - one.half),
                interval_high=_known(one.mean + one.half),
                difference=_known(gap.mean) if gap else None,
                difference_low=_known(gap.mean - gap.half) if gap else None,
                difference_high=_known(gap.mean + gap.half) if gap else None,
                p=tests[name].p if name in tests else None,
                p_holm=adjusted.get(name),
                seconds=_mean(sum(sum(step["seconds"].values()) for step in run.steps) for run in runs if run.finished),
                rm_calls=_mean(sum(sum(step["scored"].values()) for step in run.steps) for run in runs if run.finished),
                tokens=_mean(sum(sum(step["tokens"].values()) for step in run.steps) for run in runs if run.finished),
                values={str(seed): value for seed, value in of.items()},
            )
        )
    return rows


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None


def _known(number: float) -> float | None:
    return number if number == number else None

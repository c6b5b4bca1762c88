"""The cells of a suite: each is a run or a best-of-n comparison, with its configuration and the cells it needs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from laser.config import RunConfig, parse_config
from laser.config.patch import Table, merged, nearest
from laser.config.suite import SuiteConfig
from laser.core.errors import ConfigError

BEST_OF_N = "best-of-n"
"""The method in the key of a best-of-n cell, whose methods share responses and scores."""

_REFERENCE = re.compile(r"\{run:([^{}@]+)(?:@([^{}]+))?\}")
_SHARED = ("policy", "generation", "data", "split", "evaluation", "preset")  # by the methods of a best-of-n cell


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Identifies a cell."""

    task: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.task} {self.method} seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """Return its directory inside the suite's."""
        return out / self.task / self.method / f"seed-{self.seed}"


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement on test prompts after training.

    Attributes:
        config: The configuration that gives the test prompts and the sampling settings.
        base: Also measure the policy before training.
        judge: Judge that compares responses with the reference's (`laser.config.judge`); None: a metric on gold
            answers.
        length_controlled: Use the win rate at equal length.
        against: The run of the reference; None: this run is the reference.
    """

    config: RunConfig
    base: bool = False
    judge: Mapping[str, Any] | None = None
    length_controlled: bool = False
    against: Path | None = None

    def as_record(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "config": self.config.model_dump(mode="json"),
            "base": self.base,
            "judge": dict(self.judge) if self.judge is not None else None,
            "length_controlled": self.length_controlled,
            "against": str(self.against) if self.against is not None else None,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Measurement:
        """Read `as_record`."""
        against = record["against"]
        config = parse_config(record["config"], source="measurement")
        return cls(
            config, record["base"], record["judge"], record["length_controlled"], Path(against) if against else None
        )

    @property
    def answers(self) -> str:
        """Name of the file whose stem the files of responses share; the same for all methods of a task and seed."""
        return f"answers-{_digest(self._asked())}.json"

    @property
    def file(self) -> str:
        """Name of its file in the run directory; another measurement has another name."""
        against = self.against.parent.name if self.against is not None else None
        how = json.dumps([self.judge, self.length_controlled, against], sort_keys=True)
        return f"test-{_digest(self._asked() + how)}.json"

    def _asked(self) -> str:
        """Prompts and sampling settings, as text."""
        one = self.config
        sections = [one.data.model_dump_json(), one.split.model_dump_json(), one.evaluation.model_dump_json()]
        return json.dumps([*sections, one.seed, one.generation.max_new_tokens])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Cell:
    """The unit of work of a suite.

    Attributes:
        key: Task, method and seed.
        config: The configuration of `laser train`; for best-of-n, the settings that all methods share.
        needs: Cells that must be finished first.
        measurement: The measurement on test prompts after training, if any.
        methods: The configuration of each method of a best-of-n cell.
    """

    key: Key
    config: RunConfig
    needs: tuple[Key, ...] = ()
    measurement: Measurement | None = None
    methods: Mapping[str, RunConfig] = field(default_factory=dict)


def make_cells(suite: SuiteConfig, out: Path) -> list[Cell]:
    """Return all cells of a suite, seed by seed, so that tables fill evenly.

    Raises:
        ConfigError: A cell's configuration is impossible, two methods are the same, or cells need each other.
    """
    make = _best_of_n_cell if suite.mode == BEST_OF_N else _run_cell
    wanted = [key for seed in suite.seeds for task in suite.shown_tasks for key in _keys(suite, task, seed)]
    cells: dict[Key, Cell] = {}
    queue = list(dict.fromkeys(wanted))
    for key in queue:  # grows while it is read
        if key not in cells:
            cells[key] = make(suite, key, out.resolve())
            queue.extend(cells[key].needs)
    _check_order(cells)
    _check_distinct(cells.values())
    return list(cells.values())


def with_needs(cells: Iterable[Cell], chosen: Iterable[Cell]) -> list[Cell]:
    """Return the chosen cells and those they need, in the order of `cells`."""
    known = {cell.key: cell for cell in cells}
    queue = [cell.key for cell in chosen]
    wanted: set[Key] = set()
    for key in queue:
        if key not in wanted:
            wanted.add(key)
            queue.extend(known[key].needs)
    return [cell for key, cell in known.items() if key in wanted]


def _keys(suite: SuiteConfig, task: str, seed: int) -> list[Key]:
    if suite.mode == BEST_OF_N:
        return [Key(task, BEST_OF_N, seed)]
    return [Key(task, name, seed) for name in suite.methods_to_run if task in suite.tasks_of(name)]


def _run_cell(suite: SuiteConfig, key: Key, out: Path) -> Cell:
    table = _table(suite, key.task, key.method)
    needs: list[Key] = []
    table = _dereferenced(table, suite, key, out, needs)
    config = _parsed(suite, key, {**table, "seed": key.seed})
    if key.task not in suite.shown_tasks:
        return Cell(key, config, tuple(dict.fromkeys(needs)))
    if suite.metric == "dev":
        if config.split.dev == 0:
            raise ConfigError(f"{key}: metric = 'dev' needs dev prompts; set split.dev, or metric = 'test'")
        return Cell(key, config, tuple(dict.fromkeys(needs)))
    patch = merged(table, suite.all_columns[key.task].test, where=f"tasks.{key.task}.test")
    measurement = _measurement(suite, key, _parsed(suite, key, {**patch, "seed": key.seed}), out)
    if measurement.against is not None:
        needs.append(Key(key.task, suite.compared_with, key.seed))
    return Cell(key, config, tuple(dict.fromkeys(needs)), measurement)


def _measurement(suite: SuiteConfig, key: Key, config: RunConfig, out: Path) -> Measurement:
    if config.split.test == 0:
        raise ConfigError(f"{key}: metric = {suite.metric!r} needs test prompts; set split.test")
    has_before = any(suite.methods[name].row == "before" for name in suite.shown_methods)
    base = has_before and key.method == _first_run(suite, key.task)
    if suite.judge is None:
        return Measurement(config, base)
    if key.task not in suite.tasks_of(suite.compared_with):
        raise ConfigError(
            f"metric = {suite.metric!r} compares with {suite.compared_with!r}, which task {key.task} lacks"
        )
    is_reference = key.method == suite.compared_with
    against = None if is_reference else Key(key.task, suite.compared_with, key.seed).folder(out)
    return Measurement(config, base, suite.judge.model_dump(mode="json"), suite.metric == "lc_win_rate", against)


def _best_of_n_cell(suite: SuiteConfig, key: Key, out: Path) -> Cell:
    base = {**_table(suite, key.task, None), "seed": key.seed}
    config = _parsed(suite, key, base)
    methods: dict[str, RunConfig] = {}
    for name in suite.methods_to_run:
        if key.task in suite.tasks_of(name):
            table = {**_table(suite, key.task, name), "seed": key.seed}
            if _REFERENCE.search(json.dumps(table)):
                raise ConfigError(f"methods.{name} refers to a run, but mode = 'best-of-n' has none")
            methods[name] = _parsed(suite, Key(key.task, name, key.seed), table)
            for section in _SHARED:
                if getattr(methods[name], section) != getattr(config, section):
                    raise ConfigError(
                        f"methods.{name} changes {section!r}, but the methods of a best-of-n suite share responses; "
                        "move it to the base or a task"
                    )
    if config.split.test == 0:
        raise ConfigError(f"{key.task}: mode = 'best-of-n' needs test prompts; set split.test")
    return Cell(key, config, methods=methods)


def _table(suite: SuiteConfig, task: str, method: str | None) -> Table:
    """Merge base, task and method, and replace ``{task}`` by the name of the task, without its variant."""
    column = suite.all_columns[task]
    table = merged(suite.base, column.sections, where=f"tasks.{task}")
    if method is not None:
        table = merged(table, suite.methods[method].sections, where=f"methods.{method}")
    named: Table = _replaced(table, lambda text: text.replace("{task}", column.task))
    return named


def _parsed(suite: SuiteConfig, key: Key, table: Table) -> RunConfig:
    return parse_config(table, base_dir=suite.folder, source=f"method {key.method} on task {key.task}")


def _first_run(suite: SuiteConfig, task: str) -> str:
    return next(name for name in suite.methods_to_run if task in suite.tasks_of(name))


def _dereferenced(table: Table, suite: SuiteConfig, key: Key, out: Path, needs: list[Key]) -> Table:
    """Replace every ``{run:METHOD}`` and ``{run:METHOD@TASK}`` by the run's directory, and add the runs to `needs`."""

    def directory(match: re.Match[str]) -> str:
        method, task = match.group(1), match.group(2) or key.task
        runs = [name for name, one in suite.methods.items() if one.is_run]
        if method not in runs:
            raise ConfigError(
                f"methods.{key.method}: {match.group()} names no method with runs; {nearest(method, runs)}"
            )
        if task not in suite.all_columns:
            known = [*suite.all_columns]
            raise ConfigError(f"methods.{key.method}: {match.group()} names no task; {nearest(task, known)}")
        needs.append(Key(task, method, key.seed))
        return str(needs[-1].folder(out))

    result: Table = _replaced(table, lambda text: _REFERENCE.sub(directory, text))
    return result


def _replaced(value: Any, replace: Callable[[str], str]) -> Any:
    """Apply `replace` to every string of a nested value."""
    if isinstance(value, Mapping):
        return {name: _replaced(item, replace) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, replace) for item in value]
    return replace(value) if isinstance(value, str) else value


def _check_order(cells: Mapping[Key, Cell]) -> None:
    done: set[Key] = set()
    waiting = dict(cells)
    while waiting:
        ready = [key for key, cell in waiting.items() if done.issuperset(cell.needs)]
        if not ready:
            names = " and ".join(sorted({key.method for key in waiting}))
            raise ConfigError(f"methods {names} need each other's runs; remove one of the references")
        done.update(ready)
        waiting = {key: cell for key, cell in waiting.items() if key not in done}


def _check_distinct(cells: Iterable[Cell]) -> None:
    """Refuse two methods with the same configuration: the experiment would count twice."""
    seen: dict[tuple[str, int, str], str] = {}
    for cell in cells:
        for name, config in (cell.methods or {cell.key.method: cell.config}).items():
            identity = (cell.key.task, cell.key.seed, config.model_dump_json())
            if identity in seen:
                raise ConfigError(
                    f"methods {seen[identity]!r} and {name!r} are the same configuration on {cell.key.task!r}; drop one"
                )
            seen[identity] = name

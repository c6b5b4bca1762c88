"""A suite: methods x tasks x seeds from one file, for ``laser compare``.

Methods, tasks and variants of tasks are patches on one base configuration, merged by `laser.config.patch`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from laser.config.judge import JudgeConfig
from laser.config.load import Overrides, apply_override, explain, override_strings, read_toml
from laser.config.patch import Table, merged, nearest
from laser.config.paths import absolute_paths
from laser.config.schema import RunConfig
from laser.config.section import LocalPath, PositiveInt, Section
from laser.core.errors import ConfigError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+\-]*$")]


def _device(name: str) -> str:
    if re.fullmatch(r"auto|cpu|mps|cuda:\d+", name) is None:
        raise ValueError(f"{name!r} is not a device; choose auto, cpu, mps or cuda:N")
    return name


SuiteDevice = Annotated[str, AfterValidator(_device)]

ONE_TASK = "all"


class Patch(Section):
    """A patch on the base configuration: every key that is a section of a run's configuration goes to `sections`."""

    label: str | None = Field(None, description="Name in tables; None: the key.")
    sections: dict[str, Any] = Field(default_factory=dict, description="The patch on the base configuration.")

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        fields = {key: item for key, item in value.items() if key in cls.model_fields}
        sections = {key: item for key, item in value.items() if key not in fields}
        for key in sections:
            if key == "seed":
                raise ValueError("'seed' is set by the suite's seeds; drop it")
            if key not in RunConfig.model_fields:
                known = [*(name for name in cls.model_fields if name != "sections"), *RunConfig.model_fields]
                raise ValueError(f"unknown key {key!r}; {nearest(key, known)}")
        return {**fields, "sections": {**fields.get("sections", {}), **sections}}


class MethodConfig(Patch):
    """A row of the table: a patch on the base, or a summary of other rows' runs."""

    tasks: tuple[str, ...] | None = Field(
        None, min_length=1, description="Tasks, with all their variants, or single columns to run it on; None: all."
    )
    mean_of: tuple[str, ...] | None = Field(
        None, min_length=1, description="Not run: the mean of these methods, seed by seed (Avg. RM)."
    )
    row: Literal["run", "before", "oracle", "best_rm"] = Field(
        "run",
        description="run: train it. Not run: before, the metric before training (best-of-n: of one random response); "
        "oracle, the metric of the best response (best-of-n only); best_rm, the method with a fixed selector whose "
        "reward model has the highest mean pair accuracy in `oracle`.",
    )

    @property
    def is_run(self) -> bool:
        """Whether its cells are runs."""
        return self.row == "run" and self.mean_of is None


class TaskConfig(Patch):
    """A column of the table."""

    auxiliary: bool = Field(False, description="Run only where another cell needs it; not in tables or averages.")
    test: dict[str, Any] = Field(
        default_factory=dict, description="Patch under which the trained policy is measured (metric = 'test')."
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A task, or one of its variants.

    Attributes:
        name: TASK or TASK+VARIANT.
        task: The task.
        label: Name in tables.
        sections: The patch on the base configuration.
        test: The patch under which the trained policy is measured.
        auxiliary: Run only where another cell needs it.
    """

    name: str
    task: str
    label: str
    sections: Mapping[str, Any]
    test: Mapping[str, Any]
    auxiliary: bool


class SuiteConfig(Section):
    """A whole suite."""

    name: Name = Field(description="Name of the suite; the file's by default.")
    title: str = Field("", description="Caption of the tables.")
    folder: str = Field(".", description="Folder at which relative paths start: the file's.")
    mode: Literal["train", "best-of-n"] = Field("train", description="What a cell does: laser train, or best-of-n.")
    metric: Literal["dev", "test", "win_rate", "lc_win_rate"] = Field(
        "dev",
        description="What is compared: the last dev metric; or on the test prompts, after training, the metric, or how "
        "often `judge` prefers responses to those of the reference's run (lc: at equal length).",
    )
    judge: JudgeConfig | None = Field(None, description="Who judges win rates: a section, or its TOML file.")
    reference: str | None = Field(None, description="Method the others are tested against; None: the first.")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(description="Seeds of every cell; a number n means 0..n-1.")
    devices: tuple[SuiteDevice, ...] = Field(
        ("auto",), min_length=1, description="auto, cpu, mps or cuda:N; the cells are distributed over them."
    )
    workers: PositiveInt = Field(1, description="Cells at a time on each device; on cpu each has one thread.")
    keep: Literal["all", "results"] = Field(
        "all", description="results: delete adapters and optimizer states of finished cells to save space."
    )
    base: dict[str, Any] = Field(description="The configuration that all cells share, or `file`, its TOML file.")
    methods: dict[Name, MethodConfig] = Field(min_length=1, description="Rows: patches on the base.")
    tasks: dict[Name, TaskConfig] = Field(
        default_factory=lambda: {ONE_TASK: TaskConfig()}, min_length=1, description="Columns: patches on the base."
    )
    variants: dict[Name, Patch] = Field(
        default_factory=dict, description="Patches on every task; each makes a further column TASK+VARIANT."
    )
    rows: tuple[str, ...] | None = Field(
        None, min_length=1, description="Methods to run and show, in this order; None: all."
    )
    columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="Tasks and TASK+VARIANT to run and show, in this order; None: all."
    )
    oracle: LocalPath | None = Field(
        None,
        description="JSON file with the pair accuracy of every reward model by task and category; tables then say how "
        "often a method chose the best one.",
    )

    @field_validator("seeds", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        return tuple(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _possible(self) -> SuiteConfig:
        if not self.seeds:
            raise ValueError("seeds is empty; give at least one, as in seeds = 5 or seeds = [0, 1]")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)} names one twice; their cells would collide")
        _check_folders("methods", self.methods)
        _check_folders("tasks", [*self.tasks, *self._variant_names()])
        if (self.judge is None) == self.metric.endswith("win_rate"):
            raise ValueError(
                f"metric = {self.metric!r} and `judge` do not fit; give a judge for win rates, and only then"
            )
        if self.mode == "best-of-n" and self.metric != "dev":
            raise ValueError("mode = 'best-of-n' measures evaluation.metric on its test prompts; drop `metric`")
        if "seed" in self.base:
            raise ValueError("base.seed is set by the suite's seeds; drop it")
        self._check_methods()
        self._check_shown()
        return self

    def _variant_names(self) -> list[str]:
        return [f"{task}+{variant}" for task in self.tasks for variant in self.variants]

    def _check_methods(self) -> None:
        for name, method in self.methods.items():
            for task in method.tasks or ():
                _check_known(f"methods.{name}.tasks", "task", task, self.all_columns)
            for other in method.mean_of or ():
                if other not in self.methods or not self.methods[other].is_run:
                    runs = [key for key, value in self.methods.items() if value.is_run]
                    raise ValueError(f"methods.{name}.mean_of: {other!r} has no runs; {nearest(other, runs)}")
            if not method.is_run and method.sections:
                section = next(iter(method.sections))
                raise ValueError(f"methods.{name} is not run, so {section!r} has no effect; drop it")
            if method.row == "oracle" and self.mode != "best-of-n":
                raise ValueError(f"methods.{name}.row = 'oracle' needs mode = 'best-of-n'")
            if method.row == "best_rm" and (self.oracle is None or not self.fixed_arms):
                raise ValueError(
                    f"methods.{name}.row = 'best_rm' needs `oracle` and methods with selector.type = 'fixed'; add them"
                )

    def _check_shown(self) -> None:
        for key, kind, chosen, known in (
            ("rows", "method", self.rows or (), self.methods),
            ("columns", "task", self.columns or (), self.all_columns),
        ):
            for name in chosen:
                _check_known(key, kind, name, known)
                if chosen.count(name) > 1:
                    raise ValueError(f"{key} names {name!r} twice; drop one")
        if self.reference is not None:
            _check_known("reference", "method", self.reference, self.methods)
            if self.reference not in self.shown_methods:
                raise ValueError(f"reference = {self.reference!r} is not among `rows`; add it, or change `reference`")

    @cached_property
    def all_columns(self) -> dict[str, Column]:
        """Every task and every variant of it, by name."""
        columns = {}
        for name, task in self.tasks.items():
            label = task.label or name
            columns[name] = Column(name, name, label, task.sections, task.test, task.auxiliary)
            for key, variant in self.variants.items():
                sections = merged(task.sections, variant.sections, where=f"variants.{key}")
                both = f"{label}, {variant.label or key}" if variant.label or task.label else f"{name}+{key}"
                columns[f"{name}+{key}"] = Column(f"{name}+{key}", name, both, sections, task.test, task.auxiliary)
        return columns

    @property
    def compared_with(self) -> str:
        """The method that the others are tested against."""
        return self.reference or self.shown_methods[0]

    @property
    def shown_methods(self) -> tuple[str, ...]:
        """Methods that are rows of the table."""
        return self.rows or tuple(self.methods)

    @property
    def shown_tasks(self) -> tuple[str, ...]:
        """Names of the columns of the table."""
        return self.columns or tuple(name for name, column in self.all_columns.items() if not column.auxiliary)

    @property
    def fixed_arms(self) -> dict[str, str]:
        """The reward model of every method whose selector is fixed."""
        selectors = {name: method.sections.get("selector") for name, method in self.methods.items()}
        return {
            name: one["arm"]
            for name, one in selectors.items()
            if isinstance(one, Mapping) and one.get("type") == "fixed" and "arm" in one
        }

    @property
    def methods_to_run(self) -> tuple[str, ...]:
        """Methods whose runs the shown rows are made of."""
        wanted = set(self.shown_methods)
        for name in self.shown_methods:
            wanted.update(self.methods[name].mean_of or ())
            wanted.update(self.fixed_arms if self.methods[name].row == "best_rm" else ())
        return tuple(name for name, method in self.methods.items() if method.is_run and name in wanted)

    def tasks_of(self, method: str) -> tuple[str, ...]:
        """Columns that a method has a value in; auxiliary ones only if it names them."""
        named = self.methods[method].tasks
        if named is None:
            return self.shown_tasks
        return tuple(name for name, column in self.all_columns.items() if {name, column.task} & set(named))


def _check_folders(kind: str, names: Iterable[str]) -> None:
    folded: dict[str, str] = {}
    for name in names:
        if name.casefold() in folded:
            other = folded[name.casefold()]
            raise ValueError(f"{kind} {other} and {name} would share a folder; rename one")
        folded[name.casefold()] = name


def _check_known(key: str, kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ValueError(f"{key}: there is no {kind} {name!r}; {nearest(name, [*known])}")


def load_suite(path: str | Path, overrides: Overrides = ()) -> SuiteConfig:
    """Read a suite.

    Args:
        path: A TOML file. ``extends = "other.toml"`` merges it over another suite; ``base = "run.toml"`` or
            ``[base] file = "run.toml"`` starts from a run's configuration without its seed. Relative paths start at the
            folder of the file that contains them.
        overrides: Strings ``key.path=value``, such as ``seeds=2`` or ``base.training.iterations=1``.

    Raises:
        ConfigError: A file is missing or malformed, a key is unknown, or values are impossible together.
    """
    path = Path(path)
    folder = path.parent.resolve()
    table = _read(path, ())
    if "methods" not in table and {"policy", "rewards"} & table.keys():
        raise ConfigError(
            f"{path} is a configuration of laser train, not a suite; write one with seeds, methods and "
            f"base = {path.name!r} (docs/compare.md)"
        )
    for override in override_strings(overrides):
        apply_override(table, override)
        if not isinstance(table.get("base", {}), dict) and override.partition("=")[0].strip() == "base":
            raise ConfigError(
                f"--set {override!r}: the base is a section, and its file is named in the suite; write "
                "--set base.FIELD=VALUE"
            )
    try:
        table = absolute_paths(table, folder, SuiteConfig)
        return SuiteConfig.model_validate({"name": path.stem, **table, "folder": str(folder)})
    except ValidationError as error:
        problems = "; ".join(_problem(item) for item in error.errors(include_url=False))
        raise ConfigError(f"{path}: {problems}") from error


def _problem(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) if item["type"] == "value_error" else ""
    return f"{where}: {explain(item, SuiteConfig)}" if where else explain(item, SuiteConfig)


def _read(path: Path, seen: tuple[Path, ...]) -> Table:
    if path.resolve() in seen:
        raise ConfigError(f"{path} extends itself; drop one `extends`")
    table = read_toml(path)
    folder = path.parent.resolve()
    extended = table.pop("extends", None)
    below = _read(folder / str(extended), (*seen, path.resolve())) if extended is not None else {}
    if isinstance(table.get("base"), str):
        table["base"] = {"file": table["base"]}
    base, run = table.get("base", {}), below.get("base", {})
    if isinstance(base, dict) and isinstance(run, dict):
        table["base"] = _based(base, folder, run)
        run = merged(run, table["base"], where=f"{path}.base")
    for kind in ("methods", "tasks", "variants"):
        if isinstance(table.get(kind), dict):
            table[kind] = {name: _resolved(patch, folder, run) for name, patch in table[kind].items()}
    if isinstance(table.get("judge"), str):
        file = folder / Path(table["judge"]).expanduser()
        table["judge"] = absolute_paths(read_toml(file), file.parent.resolve(), JudgeConfig)
    table = absolute_paths(table, folder, SuiteConfig)
    return merged({key: value for key, value in below.items() if key != "name"}, table, where=str(path))


def _based(base: Table, folder: Path, below: Table) -> Table:
    run: Table = {}
    if "file" in base:
        file = folder / str(base["file"])
        run = {key: value for key, value in read_toml(file).items() if key != "seed"}
        run = _resolved(run, file.parent.resolve(), {})
    patch = {key: value for key, value in _resolved(base, folder, {**below, **run}).items() if key != "file"}
    return merged(run, patch, where="base")


def _resolved(patch: Any, folder: Path, below: Table) -> Any:
    """A patch with absolute paths, also in its `test`."""
    if not isinstance(patch, dict):
        return patch
    result = absolute_paths(patch, folder, RunConfig, below)
    if "test" in result:
        result["test"] = _resolved(result["test"], folder, {**below, **result})
    return result

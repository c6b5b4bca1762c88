"""A suite: methods x tasks x seeds from one file, for ``laser compare``.

Methods and tasks are patches on one base configuration; the rules of patching are those of `laser.config.patch`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from laser.config.judge import JudgeConfig
from laser.config.load import Overrides, absolute_paths, apply_override, explain, override_strings, read_toml
from laser.config.patch import Table, merged, nearest
from laser.config.schema import RunConfig
from laser.config.section import PositiveInt, Section
from laser.core.errors import ConfigError

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+\-]*$")]


def _device(name: str) -> str:
    if re.fullmatch(r"auto|cpu|mps|cuda:\d+", name) is None:
        raise ValueError(f"{name!r} is no device; choose auto, cpu, mps or cuda:N")
    return name


SuiteDevice = Annotated[str, AfterValidator(_device)]

ONE_TASK = "all"


class Patch(Section):
    """What methods and tasks have in common.

    `sections` gathers every key that is a section of a run's configuration.
    """

    label: str | None = Field(None, description="Name in tables; None: the key.")
    sections: dict[str, Any] = Field(default_factory=dict, description="The patch on the base configuration.")

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        own = {key: item for key, item in value.items() if key in cls.model_fields}
        sections = {key: item for key, item in value.items() if key not in own}
        for key in sections:
            if key == "seed":
                raise ValueError("'seed' is set by the suite's seeds; drop it")
            if key not in RunConfig.model_fields:
                known = [*(name for name in cls.model_fields if name != "sections"), *RunConfig.model_fields]
                raise ValueError(f"unknown key {key!r}; {nearest(key, known)}")
        return {**own, "sections": {**own.get("sections", {}), **sections}}


class MethodConfig(Patch):
    """A row of the table: a patch on the base, or something made of other rows' runs."""

    tasks: tuple[str, ...] | None = Field(None, min_length=1, description="Tasks it is run on; None: all.")
    mean_of: tuple[str, ...] | None = Field(
        None, min_length=1, description="No run of its own: the mean of these methods, seed by seed (Avg. RM)."
    )
    row: Literal["run", "before", "oracle"] = Field(
        "run",
        description="run: train it; before: no run of its own, the metric before training (best-of-n: of one response "
        "at random); oracle: of the best response of all (best-of-n only).",
    )

    @property
    def is_run(self) -> bool:
        """Whether it has runs of its own."""
        return self.row == "run" and self.mean_of is None


class TaskConfig(Patch):
    """A column of the table."""

    auxiliary: bool = Field(
        False, description="Run only where another cell needs it, and leave it out of tables and averages."
    )
    test: dict[str, Any] = Field(
        default_factory=dict, description="Patch under which the trained policy is measured (metric = 'test')."
    )


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
        ("auto",), min_length=1, description="auto, cpu, mps or cuda:N; each runs cells of its own."
    )
    workers: PositiveInt = Field(1, description="Cells at a time on each device; on cpu each has one thread.")
    keep: Literal["all", "results"] = Field(
        "all", description="results: drop adapters and optimizer states of finished cells, to save space."
    )
    base: dict[str, Any] = Field(description="The configuration that all cells share, or `file`, its TOML file.")
    methods: dict[Name, MethodConfig] = Field(min_length=1, description="Rows: patches on the base.")
    tasks: dict[Name, TaskConfig] = Field(
        default_factory=lambda: {ONE_TASK: TaskConfig()}, min_length=1, description="Columns: patches on the base."
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
        for kind, names in (("methods", self.methods), ("tasks", self.tasks)):
            folded = [name.casefold() for name in names]
            twice = [name for name in names if folded.count(name.casefold()) > 1]
            if twice:
                raise ValueError(f"{kind} {' and '.join(twice)} differ in case alone; their folders would collide")
        if (self.judge is None) == self.metric.endswith("win_rate"):
            raise ValueError(f"metric = {self.metric!r} and `judge` do not fit; win rates, and only they, need a judge")
        if self.mode == "best-of-n" and self.metric != "dev":
            raise ValueError("mode = 'best-of-n' measures evaluation.metric on its test prompts; drop `metric`")
        if "seed" in self.base:
            raise ValueError("base.seed is set by the suite's seeds; drop it")
        self._check_methods()
        self._check_reference()
        return self

    def _check_methods(self) -> None:
        for name, method in self.methods.items():
            for task in method.tasks or ():
                if task not in self.tasks:
                    raise ValueError(f"methods.{name}.tasks: there is no task {task!r}; {nearest(task, [*self.tasks])}")
            for other in method.mean_of or ():
                if other not in self.methods or not self.methods[other].is_run:
                    runs = [key for key, value in self.methods.items() if value.is_run]
                    raise ValueError(f"methods.{name}.mean_of: {other!r} has no runs; {nearest(other, runs)}")
            if not method.is_run and method.sections:
                section = next(iter(method.sections))
                raise ValueError(f"methods.{name} has no run of its own, so {section!r} has no effect")
            if method.row == "oracle" and self.mode != "best-of-n":
                raise ValueError(f"methods.{name}.row = 'oracle' needs mode = 'best-of-n'")

    def _check_reference(self) -> None:
        if self.reference is not None and self.reference not in self.methods:
            raise ValueError(
                f"reference: there is no method {self.reference!r}; {nearest(self.reference, [*self.methods])}"
            )

    @property
    def compared_with(self) -> str:
        """The method that the others are tested against."""
        return self.reference or next(iter(self.methods))

    @property
    def shown_tasks(self) -> tuple[str, ...]:
        """Tasks that are columns of the table."""
        return tuple(name for name, task in self.tasks.items() if not task.auxiliary)

    def tasks_of(self, method: str) -> tuple[str, ...]:
        """Tasks that a method is wanted on; auxiliary ones only where it names them or all are."""
        return self.methods[method].tasks or self.shown_tasks


def load_suite(path: str | Path, overrides: Overrides = ()) -> SuiteConfig:
    """Read a suite.

    Args:
        path: A TOML file. ``extends = "other.toml"`` lays it over another suite, ``base = "run.toml"`` or
            ``[base] file = "run.toml"`` starts from a run's configuration, its seed apart. Relative paths start at the
            folder of the file that they are in.
        overrides: Strings ``key.path=value``, such as ``seeds=2`` or ``base.training.iterations=1``.

    Raises:
        ConfigError: A file is missing or malformed, a key is unknown, or values are impossible together.
    """
    path = Path(path)
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
        return SuiteConfig.model_validate({"name": path.stem, **table, "folder": str(path.parent.resolve())})
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
    if isinstance(table.get("base"), str):
        table["base"] = {"file": table["base"]}
    base = table.get("base", {})
    if isinstance(base, dict):
        table["base"] = _based(base, folder)
    for kind in ("methods", "tasks"):
        if isinstance(table.get(kind), dict):
            table[kind] = {name: _resolved(patch, folder) for name, patch in table[kind].items()}
    if isinstance(table.get("judge"), str):
        table["judge"] = read_toml(folder / table["judge"])
    extended = table.pop("extends", None)
    if extended is None:
        return table
    below = _read(folder / str(extended), (*seen, path.resolve()))
    return merged({key: value for key, value in below.items() if key != "name"}, table, where=str(path))


def _based(base: Table, folder: Path) -> Table:
    patch = {key: value for key, value in _resolved(base, folder).items() if key != "file"}
    if "file" not in base:
        return patch
    file = folder / str(base["file"])
    run = {key: value for key, value in read_toml(file).items() if key != "seed"}
    return merged(_resolved(run, file.parent.resolve()), patch, where="base")


def _resolved(patch: Any, folder: Path) -> Any:
    """A patch with absolute paths; its `test` too."""
    if not isinstance(patch, dict):
        return patch
    result = dict(patch)
    absolute_paths(result, folder)
    if isinstance(result.get("test"), dict):
        result["test"] = _resolved(result["test"], folder)
    return result

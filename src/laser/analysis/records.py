"""Reading a run directory: every line is checked, and one that is damaged is left out, named and counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from laser.analysis.shapes import EvaluationRecord, ProbeRecord, StepRecord, SummaryRecord
from laser.core.errors import RunDirectoryError
from laser.core.files import open_regular, read_json

Row = TypeVar("Row")

_STEP = TypeAdapter(StepRecord)
_EVALUATION = TypeAdapter(EvaluationRecord)
_SUMMARY = TypeAdapter(SummaryRecord)
_REMEMBERED = 256  # bytes before the place reached, to notice a file that was cut back and written again


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that could not be used.

    Attributes:
        file: Name of the file.
        line: Number of the line, from 1.
        why: What is wrong with it.
    """

    file: str
    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Run:
    """The readable content of a run directory.

    Attributes:
        path: The folder.
        config: The resolved configuration.
        names: Names of the reward models by arm.
        steps: Valid lines of steps.jsonl.
        batches: The number of each step in the run, from 1; a damaged line leaves a gap.
        evaluations: Valid lines of evaluations.jsonl.
        damage: Lines that were left out.
        finished: Whether the run has written its summary.
        summary: The summary; None where it is missing or damaged.
    """

    path: Path
    config: Mapping[str, Any]
    names: tuple[str, ...]
    steps: tuple[StepRecord, ...]
    batches: tuple[int, ...]
    evaluations: tuple[EvaluationRecord, ...]
    damage: tuple[Damage, ...]
    finished: bool
    summary: SummaryRecord | None

    @property
    def probe(self) -> ProbeRecord | None:
        """From the summary, what a probe found; None where there is none."""
        return self.summary.get("probe") if self.summary is not None else None

    def setting(self, key: str, default: Any = None) -> Any:
        """A value of the configuration by its dotted key; the default where an older run has none."""
        value: Any = self.config
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value


class RunReader:
    """Reads a run directory, whatever state it is in, and after the first time only what is new.

    Raises:
        RunDirectoryError: There is no run, or its configuration cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._config = path, read_config(path)
        self._names = names = reward_model_names(path, self._config)
        self._steps = Lines(path / "steps.jsonl", lambda line: parse_step(line, names))
        self._evaluations = Lines(path / "evaluations.jsonl", parse_evaluation)
        self._run: Run | None = None

    def read(self) -> Run:
        """The run at this moment; the same object as before where nothing has changed.

        Raises:
            RunDirectoryError: A file cannot be read.
        """
        changed = [lines.poll() for lines in (self._steps, self._evaluations)]
        finished = is_finished(self._path)
        if self._run is None or any(changed) or finished != self._run.finished:
            self._run = Run(
                path=self._path,
                config=self._config,
                names=self._names,
                steps=tuple(step for _, step in self._steps.rows),
                batches=tuple(number for number, _ in self._steps.rows),
                evaluations=tuple(row for _, row in self._evaluations.rows),
                damage=(*self._steps.damage, *self._evaluations.damage),
                finished=finished,
                summary=_summary(self._path),
            )
        return self._run


def read_run(path: Path) -> Run:
    """A run directory, whatever state it is in.

    Raises:
        RunDirectoryError: There is no run, or its configuration cannot be read.
    """
    return RunReader(path).read()


def is_run(path: Path) -> bool:
    """Whether the folder is a run directory."""
    return (path / "config.json").is_file()


def is_finished(path: Path) -> bool:
    """Whether the run in the folder has written its summary."""
    return (path / "summary.json").is_file()


def read_config(path: Path) -> dict[str, Any]:
    """The resolved configuration of a run.

    Raises:
        RunDirectoryError: There is none, or it is damaged.
    """
    if not is_run(path):
        raise RunDirectoryError(
            f"{path} holds no run (config.json is missing); give a directory that laser train wrote"
        )
    return read_json(path / "config.json")


def read_summary(path: Path) -> SummaryRecord:
    """The summary of a finished run.

    Raises:
        RunDirectoryError: There is none, or it is damaged.
    """
    content = read_json(path / "summary.json")
    try:
        return _SUMMARY.validate_python(content, strict=True)
    except ValidationError as error:
        raise RunDirectoryError(
            f"{path / 'summary.json'} is damaged ({_first(error)}); remove it and resume the run, which writes it again"
        ) from error


def reward_model_names(path: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the pool's reward models, by arm.

    Raises:
        RunDirectoryError: The configuration lists none.
    """
    try:
        names = tuple(str(model["name"]) for model in config["rewards"]["models"])
    except (KeyError, TypeError):
        names = ()
    if not names:
        raise RunDirectoryError(f"{path / 'config.json'} lists no reward models; restore it, or start a new run")
    return names


def parse_step(line: bytes, names: Sequence[str]) -> StepRecord:
    """One line of steps.jsonl; raises ValueError with a clause that says what is wrong."""
    step = _checked(_STEP, line)
    selection = step["selection"]
    if any(len(row) != len(names) for row in selection["weights"]):
        raise ValueError(f"selection.weights does not have {len(names)} reward models")
    if len(selection["weights"]) != len(selection["categories"]):
        raise ValueError("selection.weights and selection.categories differ in length")
    if len(selection["charged"]) != len(step["bandit_rewards"]):
        raise ValueError("selection.charged and bandit_rewards differ in length")
    for name in (*selection["charged"], *step["scored"], *step.get("quarantined", {})):
        if name not in names:
            raise ValueError(f"{name!r} is not a reward model of config.json")
    return step


def parse_evaluation(line: bytes) -> EvaluationRecord:
    """One line of evaluations.jsonl; raises ValueError with a clause that says what is wrong."""
    return _checked(_EVALUATION, line)


class Lines(Generic[Row]):
    """The valid lines of a file that grows; begins again where the file was replaced or cut back.

    A last line without an end is still being written, and waits for the next poll.

    Args:
        path: A JSON Lines file; it need not exist yet.
        parse: Turns a line into a row; raises ValueError with a clause that says what is wrong.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], Row]) -> None:
        self._path, self._parse = path, parse
        self._forget()

    def poll(self) -> bool:
        """Read what is new; returns whether anything has changed."""
        try:
            with open_regular(self._path) as file:
                begun_again = not self._continues(file)
                if begun_again:
                    self._forget()
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            changed = self._offset > 0
            self._forget()
            return changed
        except OSError as error:
            raise RunDirectoryError(f"cannot read {self._path} ({error.strerror}); restore the file") from error
        *complete, _being_written = content.split(b"\n")
        for line in complete:
            self._take(line)
        return begun_again or bool(complete)

    def _forget(self) -> None:
        self._offset, self._number, self._tail = 0, 0, b""
        self.rows: list[tuple[int, Row]] = []
        self.damage: list[Damage] = []

    def _continues(self, file: BinaryIO) -> bool:
        """Whether the file still holds what was read last, where it was read."""
        file.seek(self._offset - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _take(self, line: bytes) -> None:
        self._offset += len(line) + 1
        self._number += 1
        self._tail = (self._tail + line + b"\n")[-_REMEMBERED:]
        try:
            self.rows.append((self._number, self._parse(line)))
        except ValueError as error:
            self.damage.append(Damage(self._path.name, self._number, str(error)))


def _summary(path: Path) -> SummaryRecord | None:
    """The summary; None where it is missing or damaged."""
    try:
        return read_summary(path) if is_finished(path) else None
    except RunDirectoryError:
        return None


def _checked(adapter: TypeAdapter[Row], line: bytes) -> Row:
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise ValueError(_first(error)) from error


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, in a clause."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = str(first["msg"])
    return f"{where}: {message[0].lower()}{message[1:]}" if where else message.lower()

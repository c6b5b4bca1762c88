"""Reading a run directory: every line is checked, and one that is damaged is left out, named and counted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from laser.core.errors import RunDirectoryError

Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Row = TypeVar("Row")

_ANY_OTHER = ConfigDict(extra="allow")


class SelectionRecord(TypedDict):
    """Who was chosen; one entry of `weights` and `categories` per row of the selection."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    weights: Annotated[list[list[Share]], Field(min_length=1)]
    categories: list[dict[str, Count]]
    charged: list[str]


class DecilesRecord(TypedDict):
    """A distribution: how many values, and their minimum, nine deciles and maximum."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    count: Count
    deciles: Annotated[list[Finite | None], Field(min_length=11, max_length=11)]
    reward_model: NotRequired[str | None]


class DistributionsRecord(TypedDict):
    """Distributions of one batch."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    scores: list[DecilesRecord]
    margins: list[DecilesRecord]
    logp_margins: DecilesRecord | None


class AgreementRecord(TypedDict):
    """Pairs that two reward models order alike, of those that both order."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    first: str
    second: str
    alike: Count
    judged: Count


class DisagreementRecord(TypedDict):
    """Two responses that two reward models order oppositely."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    prompt: str
    responses: Annotated[list[str], Field(min_length=2, max_length=2)]
    scores: dict[str, Annotated[list[Finite], Field(min_length=2, max_length=2)]]
    strength: Finite


class ExampleRecord(TypedDict):
    """A pair as it was trained on."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    prompt: str
    chosen: str
    rejected: str
    scores: Annotated[list[Finite], Field(min_length=2, max_length=2)]
    reward_model: str


class StepRecord(TypedDict):
    """A line of steps.jsonl, as far as reports read it."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    iteration: Count
    step: Count
    category: str
    selection: SelectionRecord
    bandit_rewards: list[Finite | None]
    loss: Finite | None
    pairs: Count
    dropped: dict[str, Count]
    scored: dict[str, Count]
    tokens: dict[str, Count]
    seconds: dict[str, Seconds]
    score_margin: NotRequired[Finite | None]
    unfinished_responses: NotRequired[Count]
    example: NotRequired[ExampleRecord | None]
    quarantined: NotRequired[dict[str, str]]
    distributions: NotRequired[DistributionsRecord]
    agreement: NotRequired[list[AgreementRecord]]
    disagreement: NotRequired[DisagreementRecord | None]


class EvaluationRecord(TypedDict):
    """A line of evaluations.jsonl, as far as reports read it."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    batches: Count
    accuracy: Share
    by_category: dict[str, Share]
    num_prompts: Count
    interval: Annotated[list[Share], Field(min_length=2, max_length=2)]


_STEP = TypeAdapter(StepRecord)
_EVALUATION = TypeAdapter(EvaluationRecord)


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
    """What a run directory holds, as far as it can be read.

    Attributes:
        path: The folder.
        config: The resolved configuration.
        names: Names of the reward models by arm.
        steps: Usable lines of steps.jsonl.
        batches: For each of them its number in the run, from 1; a damaged line leaves a gap.
        evaluations: Usable lines of evaluations.jsonl.
        damage: Lines that were left out.
        finished: Whether the run has written its summary.
        usage: From the summary, what each reward model was used for; empty where there is none.
    """

    path: Path
    config: Mapping[str, Any]
    names: tuple[str, ...]
    steps: tuple[StepRecord, ...]
    batches: tuple[int, ...]
    evaluations: tuple[EvaluationRecord, ...]
    damage: tuple[Damage, ...]
    finished: bool
    usage: Mapping[str, Mapping[str, int]]

    def setting(self, key: str, default: Any = None) -> Any:
        """A value of the configuration by its dotted key; the default where an older run has none."""
        value: Any = self.config
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = value[part]
        return value


def read_run(path: Path) -> Run:
    """Read a run directory, whatever state it is in.

    Raises:
        RunDirectoryError: There is no run, or its configuration cannot be read.
    """
    config = read_config(path)
    names = reward_model_names(path, config)
    steps, step_damage = _parsed(path / "steps.jsonl", lambda line: parse_step(line, names))
    evaluations, evaluation_damage = _parsed(path / "evaluations.jsonl", parse_evaluation)
    return Run(
        path=path,
        config=config,
        names=names,
        steps=tuple(step for _, step in steps),
        batches=tuple(number for number, _ in steps),
        evaluations=tuple(row for _, row in evaluations),
        damage=(*step_damage, *evaluation_damage),
        finished=(path / "summary.json").is_file(),
        usage=_usage(path / "summary.json"),
    )


def is_run(path: Path) -> bool:
    """Whether the folder is a run directory."""
    return (path / "config.json").is_file()


def read_config(path: Path) -> Mapping[str, Any]:
    """The resolved configuration of a run.

    Raises:
        RunDirectoryError: There is none, or it is damaged.
    """
    if not is_run(path):
        raise RunDirectoryError(
            f"{path} holds no run (config.json is missing); give a directory that laser train wrote"
        )
    config = _loaded(path / "config.json")
    if not isinstance(config, Mapping):
        raise RunDirectoryError(f"{path / 'config.json'} holds no JSON object; restore it, or start a new run")
    return config


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
            raise ValueError(f"{name!r} is no reward model of config.json")
    return step


def parse_evaluation(line: bytes) -> EvaluationRecord:
    """One line of evaluations.jsonl; raises ValueError with a clause that says what is wrong."""
    return _checked(_EVALUATION, line)


def _usage(path: Path) -> Mapping[str, Mapping[str, int]]:
    """What the summary says about reward models; nothing where it is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
        return TypeAdapter(dict[str, dict[str, Count]]).validate_python(value["reward_models"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _checked(adapter: TypeAdapter[Row], line: bytes) -> Row:
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg'].lower()}" if where else str(first["msg"]).lower()) from error


def _parsed(path: Path, parse: Any) -> tuple[list[tuple[int, Any]], list[Damage]]:
    """Complete lines with their numbers, and what is wrong with the others; a line without end is being written."""
    rows, damage = [], []
    for number, line in enumerate(_lines(path), 1):
        try:
            rows.append((number, parse(line)))
        except ValueError as error:
            damage.append(Damage(path.name, number, str(error)))
    return rows, damage


def _lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path} ({error.strerror}); check its permissions") from error
    return content.split(b"\n")[:-1]


def _loaded(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path} ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path} is not valid JSON; restore it, or start a new run") from error

"""Experiment trackers from configuration, through accelerate."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, TrackioTracker, WandBTracker

from laser.config import schema
from laser.config.tracking import TrackerName
from laser.core.errors import ConfigError
from laser.core.files import is_folder, write_json
from laser.training.progress import Progress
from laser.training.run_directory import RunDirectory
from laser.training.tracking import Tracking, read_marks

_MARKS = "tracking.json"


def check_tracking(config: schema.RunConfig) -> None:
    """Check that the trackers' libraries are installed, before minutes of loading.

    Raises:
        ConfigError: One is missing.
    """
    for name in config.tracking.to:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"tracking.to names {name!r}, which is not installed; pip install {name}, or drop it")


def build_tracking(config: schema.RunConfig, run: RunDirectory, progress: Progress) -> Tracking:
    """Start the trackers, or continue those of an interrupted run, and wrap `progress` with them.

    Only the process that writes the run directory reports.

    Args:
        config: The resolved configuration.
        run: The open run directory; it remembers the runs' identities in the trackers.
        progress: Observes the run.

    Raises:
        ConfigError: A tracker does not start.
    """
    names = [model.name for model in config.rewards.models]
    if not config.tracking.to or not run.writes:
        return Tracking(progress, [], run.path / _MARKS, names)
    PartialState(cpu=True)  # accelerate's trackers read their process from it; it must not choose a device
    marks = read_marks(run.path / _MARKS)
    ids: dict[str, str] = marks.get("ids", {})
    trackers = []
    for name in config.tracking.to:
        tracker = _make(name, config, run.path, ids.get(name))
        try:
            is_folder(run.path / name)  # some write there, and would follow a link
            tracker.start()
            if name not in ids:
                _describe(tracker, config)
        except Exception as error:  # any error of the library or the network
            raise ConfigError(
                f"tracker {name} does not start ({error}); set it up and resume, or start a run without it"
            ) from error
        ids[name] = _identity(tracker)
        trackers.append(tracker)
    write_json(run.path / _MARKS, {**marks, "ids": ids})
    return Tracking(progress, trackers, run.path / _MARKS, names)


def _make(name: TrackerName, config: schema.RunConfig, path: Path, known: str | None) -> GeneralTracker:
    """A tracker, not yet started; `known` is its identity in the interrupted run."""
    section = config.tracking
    title = section.name or path.resolve().name
    match name:
        case "tensorboard":
            return TensorBoardTracker("tensorboard", path)
        case "wandb":
            return WandBTracker(
                section.project, name=title, id=known or secrets.token_hex(4), resume="allow", dir=str(path)
            )
        case "mlflow":
            return MLflowTracker(section.project, run_id=known, run_name=title)
        case "trackio":
            return TrackioTracker(
                section.project, name=known or f"{title}-{secrets.token_hex(4)}", resume="allow", embed=False
            )


def _identity(tracker: GeneralTracker) -> str:
    """The identity by which an interrupted run continues in the tracker."""
    match tracker:
        case MLflowTracker():
            return str(tracker.tracker.info.run_id)
        case WandBTracker():
            return str(tracker.tracker.id)
        case TrackioTracker():
            return str(tracker.tracker.name)
        case _:
            return "here"


def _describe(tracker: GeneralTracker, config: schema.RunConfig) -> None:
    """Report the configuration, without the names of environment variables that hold keys."""
    flat = dict(flatten(config.model_dump(mode="json", exclude={"tracking"})))
    if isinstance(tracker, TensorBoardTracker):
        tracker.log({"config": "\n".join(f"    {key} = {value}" for key, value in flat.items())}, step=0)
    else:
        tracker.store_init_configuration(flat)


def flatten(value: Any, prefix: str = "") -> Mapping[str, str | float | int | bool]:
    """Leaves of a nested configuration by dotted path; entries of a list by their name or number."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items() if not str(key).endswith("_env")]
    elif isinstance(value, list):
        items = [
            (str(item.get("name", i)) if isinstance(item, Mapping) else str(i), item) for i, item in enumerate(value)
        ]
    else:
        return {} if value is None else {prefix: value}
    flat: dict[str, str | float | int | bool] = {}
    for key, item in items:
        flat.update(flatten(item, f"{prefix}.{key}" if prefix else key))
    return flat

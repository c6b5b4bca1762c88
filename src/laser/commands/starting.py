"""Start and reopen run directories: what `laser train` and `laser sft` share."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from laser.config import RunConfig, load_config, parse_config
from laser.config.compare import first_difference
from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.version import version
from laser.parallel.ranks import Ranks
from laser.training.run_directory import RunDirectory
from laser.training.signature import is_ours, powers, sign
from laser.wiring.identity import check_sources

T = TypeVar("T")

_LIBRARIES = ("torch", "transformers", "peft", "datasets", "numpy")


def resolved(config: RunConfig | Mapping[str, Any] | str | Path) -> RunConfig:
    """The configuration that a caller gives as an object, a file or a dict. Raises ConfigError for anything else."""
    if isinstance(config, RunConfig):
        return config
    if isinstance(config, str | Path):
        return load_config(config)
    if isinstance(config, Mapping):
        return parse_config(dict(config))
    raise ConfigError(
        f"config is of type {type(config).__name__}; give a RunConfig, the path of a TOML file, or a dict"
    )


def on_main(ranks: Ranks, work: Callable[[], T]) -> T | None:
    """Do work in the main process; all processes raise its error. Returns None elsewhere."""
    result: list[T] = []

    def do(part: slice) -> list[None]:
        if part.start == 0:
            result.append(work())
        return [None] * (part.stop - part.start)

    ranks.together(do, ranks.size)
    return result[0] if result else None


def provenance_of(config: RunConfig, **more: Any) -> dict[str, Any]:
    """The content of run.json: versions, what the command adds, and a signature of both and the configuration."""
    provenance: dict[str, Any] = {
        "laser": version(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        **more,
    }
    return provenance | {"signature": sign(config.model_dump(mode="json"), provenance)}


@contextmanager
def reopened(
    path: str | Path, command: str, config: RunConfig | None, trust: bool, ranks: Ranks
) -> Iterator[tuple[RunDirectory, RunConfig]]:
    """Open an interrupted run of a command in every process; it is closed again if the body raises.

    Raises:
        RunDirectoryError: There is no run, another process works on it, another command or user started it.
        ConfigError: `config` is given and differs from the run's.
    """
    run = on_main(ranks, lambda: _reopen(path, command)) or RunDirectory.follow(path)
    try:
        stored = _stored_config(run, config)
        if config is None and not trust:
            on_main(ranks, lambda: _check_ours(run, command))
        yield run, stored
    except BaseException:
        run.close()
        raise


def check_run(run: RunDirectory, sources: Mapping[str, Any]) -> None:
    """Make sure that a run finds what it was started with; raises ConfigError with the names of what has changed."""
    kept = run.provenance.get("sources")
    if isinstance(kept, dict):
        known = {name: identity for name, identity in sources.items() if name in kept}  # all, but for older runs
        check_sources(kept, known, f"{run.path} was started")


def _reopen(path: str | Path, command: str) -> RunDirectory:
    run = RunDirectory.reopen(path)
    try:
        started_by = run.provenance.get("command", "train")
        if started_by != command:
            raise RunDirectoryError(
                f"{path} was started by laser {started_by}; continue it with: laser {started_by} --resume {path}"
            )
    except BaseException:
        run.close()
        raise
    return run


def _stored_config(run: RunDirectory, config: RunConfig | None) -> RunConfig:
    """The configuration of a run; raises ConfigError if `config` is given and differs."""
    stored = parse_config(dict(run.config), source=str(run.path / "config.json"))
    difference = first_difference(stored, config) if config is not None else None
    if difference is not None:
        raise ConfigError(f"{difference}; resume without a configuration, or start a new run with --out")
    return stored


def _check_ours(run: RunDirectory, command: str) -> None:
    """Refuse to act on a folder that another user's laser wrote; see `laser.training.signature`."""
    if is_ours(run.config, run.provenance):
        return
    does = "; ".join(powers(run.config)) or "only compute"
    raise RunDirectoryError(
        f"{run.path} was not started by your laser here, or its config.json has changed since; resuming it would: "
        f"{does}. Give the configuration of the run (laser {command} CONFIG.toml --resume {run.path}), or read "
        f"{run.path / 'config.json'} and add --trust"
    )

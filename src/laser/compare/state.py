"""The state of a suite's cells, and the suite's directory."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from laser.analysis.records import is_finished, is_run, read_config
from laser.compare.cells import BEST_OF_N, Cell, Key, Measurement
from laser.config import parse_config
from laser.config.compare import first_difference
from laser.config.suite import SuiteConfig
from laser.core import outputs
from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.files import atomic_write, open_regular, read_json

SUITE, METHODS = "suite.json", "methods.json"


class State(StrEnum):
    """The state of a cell."""

    finished = "finished"
    interrupted = "interrupted"
    missing = "missing"
    running = "running"
    failed = "failed"
    different = "different"


@dataclass(frozen=True, slots=True)
class Standing:
    """A cell's state, with the reason if it failed or its run differs."""

    state: State
    reason: str = ""


def standing(cell: Cell, out: Path) -> Standing:
    """Return the state of a cell from its directory; changes nothing."""
    folder = cell.key.folder(out)
    if not is_run(folder):
        return _unfinished(cell.key, out, State.missing)
    try:
        stored = parse_config(read_config(folder), source=str(folder / "config.json"))
    except (ConfigError, RunDirectoryError) as error:
        return Standing(State.different, str(error))
    difference = first_difference(stored, cell.config)
    if difference is not None:
        cure = "remove its folder or choose another --out"
        return Standing(State.different, f"{difference}; {cure}")
    if _is_locked(folder):
        return Standing(State.running)
    return Standing(State.finished) if _is_finished(cell, folder) else _unfinished(cell.key, out, State.interrupted)


def _is_finished(cell: Cell, folder: Path) -> bool:
    if cell.key.method == BEST_OF_N:
        return (folder / METHODS).is_file() and read_json(folder / METHODS) == methods_record(cell)
    trained = is_finished(folder)
    return trained and (cell.measurement is None or is_measured(folder, cell.measurement))


def changed_sources(cell: Cell, out: Path) -> str:
    """Which files of a finished run have changed since it was started, with the cure; "" if none has."""
    from laser.wiring.identity import run_sources  # loads torch, which tables do without
    from laser.wiring.rewards import changed_names, reward_fingerprints

    folder = cell.key.folder(out)
    kept = read_json(folder / "run.json")
    if cell.key.method == BEST_OF_N or not isinstance(kept.get("sources"), dict):
        return ""
    now = {**run_sources(cell.config), **reward_fingerprints(cell.config)}
    changed = changed_names({**kept["sources"], **kept.get("reward_models", {})}, now)
    return f"{', '.join(changed)} changed since it was run; restore them, or remove {folder}" if changed else ""


def is_measured(folder: Path, measurement: Measurement) -> bool:
    """Whether a run directory has a measurement."""
    path = folder / measurement.file
    record = read_json(path) if path.is_file() else {}
    return "value" in record and (not measurement.base or record.get("before") is not None)


def methods_record(cell: Cell) -> dict[str, Any]:
    """Return the record that identifies the methods of a best-of-n cell."""
    return {name: config.model_dump(mode="json") for name, config in cell.methods.items()}


def _unfinished(key: Key, out: Path, otherwise: State) -> Standing:
    note = failure_note(key, out)
    return Standing(State.failed, note.read_text(encoding="utf-8").strip()) if note.is_file() else Standing(otherwise)


def failure_note(key: Key, out: Path) -> Path:
    """Return the file with the reason of a cell's last failure."""
    folder = key.folder(out)
    return folder.with_name(f"{folder.name}.failed")


def log_file(key: Key, out: Path) -> Path:
    """Return the file with the output of a cell's process."""
    folder = key.folder(out)
    return folder.with_name(f"{folder.name}.log")


def write_failure(key: Key, out: Path, reason: str) -> None:
    """Write the reason of a cell's failure, for later tables."""
    atomic_write(failure_note(key, out), f"{reason}\n".encode())


def claim(suite: SuiteConfig, out: Path) -> None:
    """Create or check the suite's directory, and write the suite into it.

    Raises:
        RunDirectoryError: The directory belongs to another suite, has other files, or cannot be written.
    """
    check_owner(suite, out)
    outputs.claim(out, SUITE, suite.model_dump(mode="json"))


def check_owner(suite: SuiteConfig, out: Path) -> None:
    """Check that a directory is free or belongs to the suite; changes nothing.

    Raises:
        RunDirectoryError: It is not.
    """
    stored = outputs.claimed_by(out, SUITE)
    for name, given in (("name", suite.name), ("mode", suite.mode)):
        if stored is not None and stored.get(name) != given:
            raise RunDirectoryError(
                f"{out} holds the suite with {name} = {stored.get(name)!r}, not {given!r}; choose another --out"
            )


def _is_locked(folder: Path) -> bool:
    """Whether a process works on a run directory."""
    try:
        with open_regular(folder / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False

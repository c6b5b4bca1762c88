"""Checkpoints that hold everything and are whole or absent.

A checkpoint is written under a temporary name, synced, and renamed; its manifest has the SHA-256 of every file. Nothing
is pickled: tensors are safetensors, the rest is JSON. Random streams need no state, since they are addressed by
(iteration, step).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from laser.errors import RunDirectoryError
from laser.statefiles import load_state, save_state
from laser.training.run_directory import read_json, write_json
from laser.types import StateDict

FORMAT = 1


class Stateful(Protocol):
    """Anything a checkpoint can hold."""

    def state_dict(self) -> StateDict:
        """Everything needed to continue identically."""
        ...

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        ...


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a run stands: the next batch to do, and what is already recorded.

    Attributes:
        iteration: Iteration of the next batch.
        step: Number of the next batch within its iteration.
        num_records: Lines of steps.jsonl that belong to the state.
        num_evaluations: Lines of evaluations.jsonl that belong to the state.
        metric: The last dev metric in [0, 1], or None.
        num_stalled: Checks in a row that moved the dev metric by less than the convergence threshold.
        finished: Whether the loop has ended.
    """

    iteration: int = 0
    step: int = 0
    num_records: int = 0
    num_evaluations: int = 0
    metric: float | None = None
    num_stalled: int = 0
    finished: bool = False

    def after_batch(self) -> Cursor:
        """The cursor once one more batch is recorded."""
        return replace(self, step=self.step + 1, num_records=self.num_records + 1)

    def after_iteration(self) -> Cursor:
        """The cursor at the start of the next iteration."""
        return replace(self, iteration=self.iteration + 1, step=0)


def save_checkpoint(folder: Path, cursor: Cursor, parts: Mapping[str, Stateful], *, keep: int) -> Path:
    """Write one checkpoint and remove all but the newest.

    Args:
        folder: The run's ``checkpoints`` folder.
        cursor: Where the run stands.
        parts: Named objects whose state is saved.
        keep: How many checkpoints to keep, at least 1.

    Returns:
        The folder of the new checkpoint.

    Raises:
        RunDirectoryError: It cannot be written; the previous checkpoints are untouched.
    """
    name = f"{cursor.iteration:05d}-{cursor.step:06d}{'-end' if cursor.finished else ''}"
    target, temporary = folder / name, folder / f".{name}.tmp"
    try:
        folder.mkdir(exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for part_name, part in parts.items():
            save_state(temporary / part_name, part.state_dict())
        digests = {path.name: _digest(path) for path in sorted(temporary.iterdir())}
        for path in temporary.iterdir():
            _sync(path)
        write_json(temporary / "manifest.json", {"format": FORMAT, "cursor": asdict(cursor), "sha256": digests})
        shutil.rmtree(target, ignore_errors=True)  # a damaged or repeated checkpoint of the same moment
        temporary.rename(target)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunDirectoryError(
            f"cannot write a checkpoint to {folder} ({error.strerror}); free space or mend permissions, then continue "
            f"with --resume {folder.parent}"
        ) from error
    for old in _complete(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(folder: Path, parts: Mapping[str, Stateful]) -> Cursor | None:
    """Restore the newest intact checkpoint into `parts`.

    Args:
        folder: The run's ``checkpoints`` folder.
        parts: The same names as were saved.

    Returns:
        Its cursor, or None where there is no checkpoint yet.

    Raises:
        RunDirectoryError: Checkpoints exist but none is intact, or one belongs to another format or selector.
    """
    candidates = _complete(folder)
    for path in reversed(candidates):
        manifest = read_json(path / "manifest.json")
        if manifest.get("format") != FORMAT:
            raise RunDirectoryError(
                f"{path} has checkpoint format {manifest.get('format')}, this version reads {FORMAT}"
            )
        if _intact(path, manifest["sha256"], parts):
            _restore(path, parts)
            return Cursor(**manifest["cursor"])
    if candidates:
        raise RunDirectoryError(f"every checkpoint in {folder} is damaged (checksums differ); start a new run")
    return None


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a run's ``checkpoints`` folder, or None."""
    complete = _complete(folder)
    return complete[-1] if complete else None


def _complete(folder: Path) -> list[Path]:
    """Checkpoints whose rename happened, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and (path / "manifest.json").is_file()
    )


def _intact(path: Path, digests: Mapping[str, str], parts: Mapping[str, Stateful]) -> bool:
    have_all = all(any(name.startswith(f"{part}.") for name in digests) for part in parts)
    return have_all and all(
        (path / name).is_file() and _digest(path / name) == digest for name, digest in digests.items()
    )


def _restore(path: Path, parts: Mapping[str, Stateful]) -> None:
    for name, part in parts.items():
        try:
            part.load_state_dict(load_state(path / name))
        except (ValueError, KeyError) as error:
            raise RunDirectoryError(f"the {name} state in {path} does not fit this run: {error}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

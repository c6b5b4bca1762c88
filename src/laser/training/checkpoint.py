"""Checkpoints that hold everything and are whole or absent.

A checkpoint is written under a temporary name, synced, and renamed; its manifest has the SHA-256 of every file, of the
records that belong to it, and of itself. A damaged one is passed over for the one before it, and the work in between
done again. Nothing is pickled: tensors are safetensors, the rest is JSON. Random streams need no state, since they are
addressed by (iteration, step).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter

from laser.core.errors import RunDirectoryError
from laser.core.files import file_digest, is_folder, make_folder, read_json, replacing_folder, write_json, writing
from laser.core.state import load_state, save_state
from laser.core.types import StateDict

FORMAT = 2
_OWN = "manifest_sha256"


class Stateful(Protocol):
    """Anything a checkpoint can hold."""

    def state_dict(self) -> StateDict:
        """Everything needed to continue identically."""

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""


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
        record_digests: SHA-256 of the lines counted above, by the name of their file.
    """

    iteration: int = 0
    step: int = 0
    num_records: int = 0
    num_evaluations: int = 0
    metric: float | None = None
    num_stalled: int = 0
    finished: bool = False
    record_digests: Mapping[str, str] = field(default_factory=dict)

    def after_batch(self) -> Cursor:
        """The cursor once one more batch is recorded."""
        return replace(self, step=self.step + 1, num_records=self.num_records + 1)

    def after_iteration(self) -> Cursor:
        """The cursor at the start of the next iteration."""
        return replace(self, iteration=self.iteration + 1, step=0)


def save_checkpoint(folder: Path, cursor: Cursor, parts: Mapping[str, Stateful], *, keep: int) -> Path:
    """Write one checkpoint and remove all but the newest.

    Returns:
        The folder of the new checkpoint.

    Raises:
        RunDirectoryError: It cannot be written; the previous checkpoints are untouched.
    """
    name = f"{cursor.iteration:05d}-{cursor.step:06d}{'-end' if cursor.finished else ''}"
    target = folder / name
    # a damaged or repeated checkpoint of the same moment may be there
    with writing(folder, folder.parent), replacing_folder(make_folder(folder) / name) as temporary:
        for part_name, part in parts.items():
            save_state(temporary / part_name, part.state_dict())
        digests = {path.name: _digest(path) for path in sorted(temporary.iterdir())}
        manifest = {"format": FORMAT, "cursor": asdict(cursor), "sha256": digests}
        write_json(temporary / "manifest.json", {**manifest, _OWN: _own_digest(manifest)})
    _remove_superseded(folder, target, keep)
    return target


def load_checkpoint(
    folder: Path, parts: Mapping[str, Stateful], note: Callable[[str], None] = lambda message: None
) -> Cursor | None:
    """Restore the newest intact checkpoint into `parts`.

    Args:
        folder: The run's ``checkpoints`` folder.
        parts: The same names as were saved.
        note: Told which checkpoints are damaged and passed over.

    Returns:
        Its cursor, or None where there is no checkpoint yet.

    Raises:
        RunDirectoryError: Checkpoints exist but none is intact, or one belongs to another format or selector.
    """
    candidates = _complete(folder)
    for path in reversed(candidates):
        manifest = _intact_manifest(path, parts)
        if manifest is not None:
            _restore(path, parts)
            return _cursor(path, manifest)
        note(f"checkpoint {path.name} is damaged (checksums differ) and passed over")
    if candidates:
        raise RunDirectoryError(f"every checkpoint in {folder} is damaged (checksums differ); start a new run")
    return None


def newest_checkpoint(folder: Path, parts: Iterable[str] = ()) -> Path | None:
    """The newest checkpoint in a run's ``checkpoints`` folder whose files of some parts are intact, or None.

    Raises:
        RunDirectoryError: One belongs to another format.
    """
    names = tuple(parts)
    return next((path for path in reversed(_complete(folder)) if _intact_manifest(path, names, all_files=False)), None)


def _complete(folder: Path) -> list[Path]:
    """Checkpoints whose rename happened, oldest first."""
    try:
        if not is_folder(folder):
            return []
        named = [path for path in folder.iterdir() if not path.name.startswith(".")]
        return sorted(path for path in named if is_folder(path) and (path / "manifest.json").is_file())
    except OSError as error:
        raise RunDirectoryError(
            f"cannot read {error.filename or folder} ({error.strerror}); restore it or remove it"
        ) from error


def _remove_superseded(folder: Path, newest: Path, keep: int) -> None:
    """Keep the newest ones; what bears a later name than the newest is damaged and was passed over."""
    complete = _complete(folder)
    done = [path for path in complete if path.name <= newest.name]
    for old in [*done[:-keep], *complete[len(done) :]]:
        shutil.rmtree(old, ignore_errors=True)


def _intact_manifest(path: Path, parts: Iterable[str], *, all_files: bool = True) -> dict[str, Any] | None:
    """The manifest if its checksums fit, all of them or those of the parts; None if the checkpoint is damaged."""
    try:
        manifest = read_json(path / "manifest.json")
    except RunDirectoryError:
        return None
    own = manifest.pop(_OWN, None)
    whole = own == _own_digest(manifest)
    if manifest.get("format") != FORMAT and (whole or own is None):
        raise RunDirectoryError(
            f"{path} has checkpoint format {manifest.get('format')}, this version reads {FORMAT}; continue the run "
            "with the version that began it (run.json names it)"
        )
    digests = manifest.get("sha256")
    if not isinstance(digests, dict) or any("/" in name for name in digests):
        return None
    return manifest if whole and _files_fit(path, digests, tuple(parts), all_files) else None


def _files_fit(path: Path, digests: Mapping[str, str], parts: Sequence[str], all_files: bool) -> bool:
    mine = {part: [name for name in digests if name.startswith(f"{part}.")] for part in parts}
    names = list(digests) if all_files else [name for of_part in mine.values() for name in of_part]
    return all(mine.values()) and all(_digest(path / name) == digests[name] for name in names)


def _cursor(path: Path, manifest: Mapping[str, Any]) -> Cursor:
    cursor = manifest.get("cursor")
    try:
        Cursor(**cursor)  # type: ignore[arg-type]  # an unknown name is a TypeError, as is anything but an object
        return TypeAdapter(Cursor).validate_json(json.dumps(cursor), strict=True)
    except (TypeError, ValueError) as error:  # of which ValidationError is one
        raise RunDirectoryError(f"the cursor in {path / 'manifest.json'} is invalid; start a new run") from error


def _restore(path: Path, parts: Mapping[str, Stateful]) -> None:
    for name, part in parts.items():
        try:
            part.load_state_dict(load_state(path / name))
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise RunDirectoryError(f"the {name} state in {path} does not fit this run: {error}") from error


def _own_digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    """SHA-256 of a file; empty where there is none that may be read."""
    try:
        return file_digest(path)
    except OSError:
        return ""

"""A run directory: everything a run leaves behind, written so that a kill at any instant loses nothing before the
last checkpoint.

``config.json`` resolved configuration · ``run.json`` versions and reward-model fingerprints · ``steps.jsonl`` one
record a batch · ``evaluations.jsonl`` one record a dev check · ``checkpoints/`` · ``responses/`` pending responses of
an iteration sampled at its start · ``adapter/`` the trained PEFT adapter · ``summary.json`` written at the end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from laser.core import outputs
from laser.core.errors import RunDirectoryError
from laser.core.files import (
    atomic_write,
    in_words,
    is_leftover,
    lock,
    open_regular,
    read_bytes,
    read_json,
    remove,
    to_json,
    write_json,
    writing,
)

if TYPE_CHECKING:
    from hashlib import _Hash

Record = Mapping[str, Any]

_STARTING = {".lock", "run.json"}  # what a kill before config.json leaves behind


class RunDirectory:
    """An open, locked run directory. Make one with `create` or `reopen`, or `follow` one that another process holds.

    Attributes:
        path: The folder.
        writes: False in the processes of a run that leave writing to the main one: there nothing is written.
    """

    def __init__(self, path: Path, lock: BinaryIO | None) -> None:
        self.path = path.absolute()  # code of users may change the working directory
        self.writes = lock is not None
        self._lock = lock
        self._hashes: dict[str, _Hash] = {}

    @classmethod
    def create(cls, path: str | Path, *, config: Record, provenance: Record) -> RunDirectory:
        """Start a new run directory.

        Args:
            path: A folder that does not exist yet, or is empty.
            config: The resolved configuration, JSON-able.
            provenance: Versions and fingerprints, JSON-able.

        Raises:
            RunDirectoryError: The folder holds a run or other files, or cannot be written.
        """
        path = Path(path)
        check_free(path)
        with in_words("write to", path, "choose another --out"):
            path.mkdir(parents=True, exist_ok=True)
            run = cls(path, _lock(path))
            write_json(path / "run.json", provenance)
            write_json(path / "config.json", config)  # last: a folder with config.json is a complete new run
        return run

    @classmethod
    def reopen(cls, path: str | Path) -> RunDirectory:
        """Open an existing run to continue it.

        Raises:
            RunDirectoryError: There is no run, or another process works on it.
        """
        path = Path(path)
        with in_words("read", path, "check the path given to --resume"):
            there = (path / "config.json").is_file()
        if not there:
            raise RunDirectoryError(f"{path} holds no run (config.json is missing); check the path given to --resume")
        try:
            return cls(path, _lock(path))
        except OSError as error:
            raise RunDirectoryError(
                f"cannot use {error.filename or path} ({error.strerror}); fix or remove it"
            ) from error

    @classmethod
    def follow(cls, path: str | Path) -> RunDirectory:
        """Read along in a run directory that the main process of the run has open."""
        return cls(Path(path), None)

    @property
    def config(self) -> Record:
        """The configuration the run was started with."""
        return read_json(self.path / "config.json")

    @property
    def provenance(self) -> Record:
        """Versions and fingerprints recorded when the run was started."""
        return read_json(self.path / "run.json")

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def responses(self) -> Path:
        """Folder of pending responses."""
        return self.path / "responses"

    @property
    def adapter(self) -> Path:
        """Folder of the final adapter."""
        return self.path / "adapter"

    def append(self, name: str, record: Record) -> None:
        """Append one record to ``name.jsonl`` and flush it to the operating system.

        Raises:
            RunDirectoryError: It cannot be written.
        """
        if not self.writes:
            return
        line = (json.dumps(to_json(record), allow_nan=False) + "\n").encode()
        path = self.path / f"{name}.jsonl"
        with writing(path, self.path), open_regular(path, "ab") as file:
            file.write(line)
        self._hash(name).update(line)

    def truncate(self, name: str, num_records: int, digest: str | None = None) -> None:
        """Keep the first records of ``name.jsonl``: the run repeats what follows the checkpoint.

        Args:
            name: Which file.
            num_records: How many records stay.
            digest: SHA-256 of their lines; None: not known.

        Raises:
            RunDirectoryError: The file holds fewer complete records than the checkpoint counts, or others.
        """
        if not self.writes:
            return
        path = self.path / f"{name}.jsonl"
        lines = self._content(name).splitlines(keepends=True)
        complete = [line for line in lines if line.endswith(b"\n")]
        if len(complete) < num_records:
            raise RunDirectoryError(
                f"{path} holds {len(complete)} records but the checkpoint counts {num_records}; "
                "the run is damaged, restore the file or start a new run"
            )
        kept = b"".join(complete[:num_records])
        self._hashes[name] = hashlib.sha256(kept)
        if digest is not None and self.digest(name) != digest:
            raise RunDirectoryError(
                f"{path} has changed since the checkpoint (checksums differ); restore the file or start a new run"
            )
        if lines != complete[:num_records]:
            with writing(path, self.path):
                atomic_write(path, kept)

    def digest(self, name: str) -> str:
        """SHA-256 of the records of ``name.jsonl`` that this process kept or wrote."""
        return self._hash(name).hexdigest()

    def _hash(self, name: str) -> _Hash:
        return self._hashes.setdefault(name, hashlib.sha256())

    def records(self, name: str) -> list[dict[str, Any]]:
        """All records of ``name.jsonl``. Raises RunDirectoryError if one is damaged."""
        try:
            return [json.loads(line) for line in self._content(name).splitlines()]
        except (ValueError, RecursionError) as error:
            path = self.path / f"{name}.jsonl"
            raise RunDirectoryError(f"{path} is damaged ({error}); restore it or start a new run") from error

    def _content(self, name: str) -> bytes:
        path = self.path / f"{name}.jsonl"
        try:
            return read_bytes(path)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise RunDirectoryError(f"cannot read {path} ({error.strerror}); restore it or start a new run") from error

    def write_summary(self, summary: Record) -> None:
        """Write ``summary.json``, the mark of a finished run. Raises RunDirectoryError if it cannot."""
        if self.writes:
            with writing(self.path, self.path):
                write_json(self.path / "summary.json", summary)

    def amend(self, provenance: Record) -> None:
        """Replace what was recorded when the run was started. Raises RunDirectoryError if it cannot be written."""
        if self.writes:
            with writing(self.path, self.path):
                write_json(self.path / "run.json", provenance)

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()


def check_free(path: Path) -> None:
    """Make sure that a run can start at `path`; changes nothing.

    Raises:
        RunDirectoryError: A file, a run or other files are there, or no folder can be made there.
    """
    with in_words("use", path, "choose another --out"):  # too long a name, or in a folder that may not be entered
        begun = (path / "config.json").exists()
    if begun:
        raise RunDirectoryError(
            f"{path} already holds a run; continue it with --resume {path}, or choose another --out"
        )
    outputs.check_free(path, besides=_STARTING)


def _lock(path: Path) -> BinaryIO:
    """Hold the directory for this process until it closes the file or dies; remove what a killed one left."""
    file = lock(path / ".lock", path)
    for entry in path.iterdir():
        if is_leftover(entry.name):
            remove(entry)
    return file

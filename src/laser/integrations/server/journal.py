"""What the reward server keeps on disk, so that a kill at any instant loses nothing that it has answered.

A folder holds ``server.json`` (the pool it belongs to), a snapshot (``snapshot-N/``, written completely or not at all)
and the journal of what has happened since (``journal-N.jsonl``, one event a line, append-only). Events are on disk
before the answers that depend on them leave. A snapshot N makes earlier ones and their journals superfluous.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from laser.core.errors import RunDirectoryError
from laser.core.files import (
    is_folder,
    is_leftover,
    json_object,
    open_regular,
    read_json,
    remove,
    replacing_folder,
    write_json,
)
from laser.core.state import load_state, save_state
from laser.core.types import StateDict

Event = Mapping[str, Any]

_IDENTITY = "server.json"
_SNAPSHOT = re.compile(r"snapshot-(\d{6,})")
_JOURNAL = re.compile(r"journal-(\d{6,})\.jsonl")


@dataclass(frozen=True, slots=True)
class Saved:
    """A snapshot.

    Attributes:
        router: State of the router.
        groups: State of the groups, JSON-able.
    """

    router: StateDict
    groups: dict[str, Any]


class Journal:
    """An open, locked folder. Read `saved` and `events` first, then `append` and `commit`.

    Args:
        folder: The folder; it is made where it is missing.
        identity: What the state belongs to, JSON-able; written where there is none.

    Attributes:
        identity: What the state belongs to.
        saved: The newest snapshot; None where there is none.
        events: What has happened since.
        size: Bytes of the journal since the snapshot.

    Raises:
        RunDirectoryError: The folder holds something else, is damaged or cannot be used, or another server uses it.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder.absolute()
        try:
            self._lock = _claim(self._folder, identity)
            self.identity = read_json(self._folder / _IDENTITY)
            self._number = max(self._numbers(_SNAPSHOT), default=0)
            self.saved = self._load()
            self._file = open_regular(self._journal, "r+b")
            self.events, self.size = _read(self._file, self._journal)
            self._remove_older()
        except OSError as error:
            raise self._unusable(error) from error
        self._buffer: list[bytes] = []

    def identify(self, identity: Mapping[str, Any]) -> None:
        """Write what the state belongs to from now on; raises RunDirectoryError."""
        try:
            write_json(self._folder / _IDENTITY, identity)
        except OSError as error:
            raise self._unusable(error) from error

    def append(self, event: Event) -> None:
        """Add an event; `commit` writes it."""
        self._buffer.append((json.dumps(event, allow_nan=False, separators=(",", ":")) + "\n").encode())

    def commit(self) -> None:
        """Bring all events to the disk; after an error they stay for the next commit.

        Raises:
            RunDirectoryError: They cannot be written.
        """
        if not self._buffer:
            return
        content = b"".join(self._buffer)
        try:
            self._file.seek(self.size)
            self._file.write(content)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file = self._reopened()
            raise self._unusable(error) from error
        self.size += len(content)
        self._buffer.clear()

    def snapshot(self, router: StateDict, groups: Mapping[str, Any]) -> None:
        """Replace the journal by a snapshot that contains all its events, committed or not.

        Raises:
            RunDirectoryError: It cannot be written; the old snapshot and journal are then unchanged.
        """
        number = self._number + 1
        try:
            with replacing_folder(self._folder / f"snapshot-{number:06}") as temporary:
                save_state(temporary / "router", router)
                write_json(temporary / "groups.json", groups)
            self._number = number
            self._file.close()
            self._file = open_regular(self._journal, "r+b")
            self._remove_older()
        except (OSError, SafetensorError) as error:
            raise self._unusable(error) from error
        self.size = 0
        self._buffer.clear()

    def close(self) -> None:
        """Release the folder."""
        self._file.close()
        self._lock.close()

    @property
    def _journal(self) -> Path:
        return self._folder / f"journal-{self._number:06}.jsonl"

    def _load(self) -> Saved | None:
        folder = self._folder / f"snapshot-{self._number:06}"
        if not is_folder(folder):
            return None
        return Saved(load_state(folder / "router"), read_json(folder / "groups.json"))

    def _numbers(self, pattern: re.Pattern[str]) -> list[int]:
        matches = (pattern.fullmatch(entry.name) for entry in self._folder.iterdir())
        return [int(match[1]) for match in matches if match is not None]

    def _remove_older(self) -> None:
        """Remove what the newest snapshot has replaced, and what a killed server was writing."""
        for entry in self._folder.iterdir():
            match = _SNAPSHOT.fullmatch(entry.name) or _JOURNAL.fullmatch(entry.name)
            if is_leftover(entry.name) or (match is not None and int(match[1]) < self._number):
                remove(entry)

    def _reopened(self) -> BinaryIO:
        """The journal after a failed write, without what that may have left behind."""
        file = open_regular(self._journal, "r+b")
        file.truncate(self.size)
        return file

    def _unusable(self, error: Exception) -> RunDirectoryError:
        reason = getattr(error, "strerror", None) or str(error)
        return RunDirectoryError(f"cannot use {self._folder} ({reason}); free space, or choose another --state")


def _claim(folder: Path, identity: Mapping[str, Any]) -> BinaryIO:
    """Make the folder this server's and hold its lock."""
    record = folder / _IDENTITY
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not record.is_file() and any(one.name != ".lock" and not is_leftover(one.name) for one in folder.iterdir()):
        raise RunDirectoryError(f"{folder} holds other files; choose another --state")
    lock = open_regular(folder / ".lock", "r+b")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise RunDirectoryError(f"another server uses {folder}; stop it, or choose another --state") from error
    if not record.is_file():
        write_json(record, identity)
    return lock


def _read(file: BinaryIO, path: Path) -> tuple[list[Event], int]:
    """The events of a journal; a last line that a kill cut off is removed.

    Raises:
        RunDirectoryError: A complete line is damaged.
    """
    content = file.read()
    size = content.rfind(b"\n") + 1
    if size < len(content):
        file.truncate(size)
    lines = content[:size].splitlines()
    return [_parsed(line, f"{path} line {number}") for number, line in enumerate(lines, start=1)], size


def _parsed(line: bytes, where: str) -> Event:
    try:
        return json_object(line)
    except ValueError as error:
        raise RunDirectoryError(f"{where} is damaged ({error}); restore it or choose another --state") from error

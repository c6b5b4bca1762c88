"""Replies of a server kept on disk under the content of the request, so that no reply is paid for twice."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from laser.core.errors import ServerError
from laser.core.files import check_regular
from laser.serving.endpoint import Endpoint, Outcome

_LOCKED = 60.0  # seconds to wait for another process that writes
_SCHEMA = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)"


class CachedEndpoint:
    """Sends a server only those requests whose replies are not in a file.

    The key of a reply is the SHA-256 of the server's address (of several servers the first, whichever answers), the
    path and the whole payload; the API key is not part of it. The file is an SQLite database, so that several processes
    can share it and a kill loses at most the replies under way. Nothing in it is trusted: a reply that cannot be read
    is requested again. If the file itself fails (a full disk), requests continue without it, with a warning.

    Args:
        endpoint: The server.
        path: The file; None: request everything.

    Raises:
        ServerError: The file cannot be written, or is not such a cache.
    """

    def __init__(self, endpoint: Endpoint, path: Path | None) -> None:
        self._endpoint = endpoint
        self._path = path
        self._lock = threading.Lock()
        self._database = _opened(path) if path is not None else None
        self._warned: set[str] = set()

    @property
    def concurrency(self) -> int:
        """Requests under way at once."""
        return self._endpoint.concurrency

    def post_each(
        self,
        path: str,
        payloads: Sequence[Mapping[str, Any]],
        *,
        max_failures: int,
        keep: Callable[[Any], bool] = lambda reply: True,
    ) -> list[Outcome]:
        """`Endpoint.post_each` with replies from the file where it has them; each distinct payload is sent once.

        A reply is kept as soon as it arrives, so that a rerun pays only for what is missing.

        Args:
            path: Path on the server.
            payloads: Requests.
            max_failures: Failures in a row after which the rest is not sent.
            keep: Whether a reply is worth keeping; one that is not is requested again next time, also if it is in the
                file.
        """
        keys = [self._key(path, payload) for payload in payloads]
        known = {key: reply for key, reply in self._read(keys).items() if keep(reply)}
        missing = {key: payload for key, payload in zip(keys, payloads, strict=True) if key not in known}
        order = list(missing)

        def write(index: int, reply: Any) -> None:
            if keep(reply):
                self._write(order[index], reply)

        outcomes = self._endpoint.post_each(path, list(missing.values()), max_failures=max_failures, on_reply=write)
        fresh = dict(zip(order, outcomes, strict=True))
        results = []
        for key in keys:
            outcome = Outcome(known[key], cached=True) if key in known else fresh[key]
            if outcome.error is None:
                known[key] = outcome.reply  # the same request again in this call costs nothing
            results.append(outcome)
        return results

    def close(self) -> None:
        """Close the file and the connections."""
        if self._database is not None:
            self._database.close()
        self._endpoint.close()

    def _key(self, path: str, payload: Mapping[str, Any]) -> str:
        content = json.dumps([self._endpoint.url, path, payload], sort_keys=True)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()

    def _read(self, keys: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in dict.fromkeys(keys):
            rows = self._execute("SELECT reply FROM replies WHERE key = ?", key)
            if rows:
                try:
                    found[key] = json.loads(rows[0][0])
                except (TypeError, ValueError, RecursionError) as error:
                    self._warn(f"has a damaged reply ({type(error).__name__}); it is requested again")
        return found

    def _write(self, key: str, reply: Any) -> None:
        self._execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", key, json.dumps(reply))

    def _execute(self, statement: str, *values: str) -> list[Any]:
        """Rows that a statement gives, in one transaction; none where the file fails."""
        with self._lock:
            if self._database is None:
                return []
            try:
                with self._database as database:
                    return database.execute(statement, values).fetchall()
            except sqlite3.OperationalError as error:  # of the file as a whole: a full disk, a lock, a lost table
                self._database = None
                self._warn(f"fails ({error}); requests continue without it and will be paid for again next time")
            except sqlite3.DatabaseError as error:  # a damaged page; others may be sound
                self._warn(f"is damaged ({error}); replies in that place are requested again; delete it to repair it")
        return []

    def _warn(self, problem: str) -> None:
        """Say each thing that is wrong with the file once."""
        if problem not in self._warned:
            self._warned.add(problem)
            warnings.warn(f"the cache of replies {self._path} {problem}", RuntimeWarning, stacklevel=2)


def _opened(path: Path) -> sqlite3.Connection:
    """The database in a file, which is made if it is missing; raises ServerError."""
    try:
        if path.exists() and not path.is_file():
            raise ServerError(f"{path} is not a regular file; name another file for the cache of replies")
        path.parent.mkdir(parents=True, exist_ok=True)
        for sibling in (Path(f"{path.resolve()}{end}") for end in ("-journal", "-wal", "-shm")):
            if os.path.lexists(sibling):  # of a process that was killed; SQLite would write to whatever it is
                check_regular(sibling, writes=True)
        database = sqlite3.connect(path, timeout=_LOCKED, check_same_thread=False)
        database.text_factory = bytes  # text that is not UTF-8 is a damaged reply, not a failure of the file
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and b"replies" not in tables:
            raise ServerError(f"{path} is the database of another program; name another file for the cache of replies")
        database.execute(_SCHEMA)
        columns = {name for _, name, *_ in database.execute("PRAGMA table_info(replies)")}
        if columns != {b"key", b"reply"}:
            raise ServerError(f"{path} has other columns than a cache of replies; name another file")
    except (sqlite3.Error, OSError) as error:
        raise ServerError(
            f"the cache of replies {path} cannot be used ({error}); delete it or name another file"
        ) from error
    return database

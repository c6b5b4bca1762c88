"""Replies of a server kept on disk by the content of the request, so that nothing is paid for twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from laser.core.errors import ServerError
from laser.serving.endpoint import Endpoint
from laser.serving.many import Outcome, post_each


class CachedEndpoint:
    """Asks a server only what it has not been asked before.

    The key is the SHA-256 of address, path and payload; the API key is no part of it. SQLite, so that several
    processes may share a file and a kill loses at most the replies under way. Where the file fails later on (a full
    disk), it goes on without it, and says so.

    Args:
        endpoint: The server.
        path: File of the cache; None: ask every time.

    Raises:
        ServerError: The file cannot be written, or is no such cache.
    """

    def __init__(self, endpoint: Endpoint, path: Path | None) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._database = sqlite3.connect(path, timeout=60, check_same_thread=False)
                self._database.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
            except (sqlite3.Error, OSError) as error:
                raise ServerError(f"cannot keep replies in {path} ({error}); name another file for them") from error

    @property
    def concurrency(self) -> int:
        """Requests under way at once."""
        return self._endpoint.concurrency

    def post_each(
        self,
        path: str,
        payloads: Sequence[Mapping[str, Any]],
        *,
        patience: int,
        keep: Callable[[Any], bool] = lambda reply: True,
    ) -> list[Outcome]:
        """`laser.serving.many.post_each`, known replies from the cache; each distinct payload is asked once.

        A reply is kept as soon as it arrives, so that a rerun pays only for what is missing.

        Args:
            path: Path on the server.
            payloads: What to ask.
            patience: Failures in a row after which the rest is not asked.
            keep: Whether a reply is worth keeping; another is asked for again next time.
        """
        keys = [self._key(path, payload) for payload in payloads]
        known = self._read(keys)
        asked = {key: payload for key, payload in zip(keys, payloads, strict=True) if key not in known}
        order = list(asked)

        def write(index: int, reply: Any) -> None:
            if keep(reply):
                self._write({order[index]: reply})

        outcomes = post_each(self._endpoint, path, list(asked.values()), patience=patience, on_reply=write)
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
        with self._in_file() as database:
            if database is not None:
                for key in dict.fromkeys(keys):
                    row = database.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
                    if row is not None:
                        found[key] = json.loads(row[0])
        return found

    def _write(self, replies: Mapping[str, Any]) -> None:
        with self._in_file() as database:
            if database is not None:
                rows = [(key, json.dumps(reply)) for key, reply in replies.items()]
                database.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", rows)

    @contextmanager
    def _in_file(self) -> Iterator[sqlite3.Connection | None]:
        """A transaction, one at a time; a file that fails in it is given up."""
        with self._lock:
            database = self._database
            try:
                if database is None:
                    yield None
                else:
                    with database:
                        yield database
            except sqlite3.Error as error:
                self._database = None
                warnings.warn(
                    f"the file of the server's replies fails ({error}); going on without it, so that what is asked "
                    "from now on is asked again another time",
                    RuntimeWarning,
                    stacklevel=2,
                )

"""Limits of requests and tokens per minute, kept over all threads that ask one server."""

from __future__ import annotations

import threading
import time


class Pace:
    """Spaces requests evenly, so that a server with a quota per minute need not refuse any.

    A request starts 60 / `requests_per_minute` seconds after the one before at the earliest. Tokens are counted when
    they are billed: each adds 60 / `tokens_per_minute` seconds before the next start. Requests that start before the
    first bill arrives, at most as many as run at once, can exceed the limit once.

    Args:
        requests_per_minute: None: no limit.
        tokens_per_minute: None: no limit.
    """

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self._per_request = 60.0 / requests_per_minute if requests_per_minute is not None else 0.0
        self._per_token = 60.0 / tokens_per_minute if tokens_per_minute is not None else 0.0
        self._lock = threading.Lock()
        self._next_request = self._next_token = 0.0  # earliest start, in seconds of `time.monotonic`

    def wait(self, stop: threading.Event) -> None:
        """Wait until a request may start, or until `stop` is set."""
        while True:
            with self._lock:
                now = time.monotonic()
                seconds = max(self._next_request, self._next_token) - now
                if seconds <= 0:
                    self._next_request = now + self._per_request
                    return
            if stop.wait(seconds):
                return

    def spent(self, num_tokens: int) -> None:
        """Count tokens that the server billed."""
        with self._lock:
            self._next_token = max(self._next_token, time.monotonic()) + num_tokens * self._per_token

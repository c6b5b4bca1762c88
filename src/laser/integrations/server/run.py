"""The reward server as a process: HTTP in a thread, the router in the main thread, where reward functions expect it."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import uvicorn

from laser.core.errors import ServerError
from laser.integrations.server.access import App
from laser.integrations.server.worker import Worker

_BACKLOG = 4096  # connections that wait to be accepted
_GRACE = 60  # seconds that requests under way have after SIGTERM


@dataclass(frozen=True, slots=True)
class Http:
    """The HTTP side while it runs.

    Attributes:
        server: Stops when its `should_exit` is set.
        thread: Ends once it has stopped.
        url: The address.
    """

    server: uvicorn.Server
    thread: threading.Thread
    url: str


def start_http(worker: Worker, app: App, host: str, port: int) -> Http:
    """Listen in a thread; the worker is stopped once the last request is answered.

    Raises:
        ServerError: The address cannot be used.
    """
    listening = _listen(host, port)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    server = uvicorn.Server(config)

    def run() -> None:
        try:
            server.run(sockets=[listening])
        finally:
            worker.stop()

    thread = threading.Thread(target=run, name="http", daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    return Http(server, thread, f"http://{shown}:{listening.getsockname()[1]}")


def serve(worker: Worker, app: App, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C: requests under way are answered, then the state is saved.

    Raises:
        ServerError: The address cannot be used.
    """
    http = start_http(worker, app, host, port)
    with _stopping(http.server):
        on_ready(http.url)
        worker.run()
        http.thread.join()
        worker.ledger.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = error.strerror or error
        raise ServerError(f"cannot listen on {host}:{port} ({reason}); choose another --port or --host") from error


@contextmanager
def _stopping(server: uvicorn.Server) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM stop the server gracefully, and the second at once."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        if server.should_exit:
            raise KeyboardInterrupt
        server.should_exit = True

    kinds = [kind for kind in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(kind) is not signal.SIG_IGN]
    before = {kind: signal.signal(kind, stop) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)

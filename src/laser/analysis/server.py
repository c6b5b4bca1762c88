"""The server of ``laser watch --web``: the report of a run that is still training, for browsers of this machine only.

It listens on 127.0.0.1. A page of another site may still make the browser ask it (DNS rebinding, cross-site
requests), so the Host header must name this server, and Origin and Sec-Fetch-Site must not name another site. It only
ever reads.
"""

from __future__ import annotations

import hashlib
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from laser.analysis.follow import State, View, Watch
from laser.analysis.report.blocks import Page
from laser.analysis.report.render import body, live_document, live_policy
from laser.analysis.report.run import run_page
from laser.core.errors import LaserError, ServerError

HOST = "127.0.0.1"
_SHARE = 0.1  # of a processor that drawing may take while a run trains
_TIMEOUT = 10.0  # seconds a connection may stay silent

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class LiveServer(ThreadingHTTPServer):
    """Serves one run directory. Use as a context manager; `serve_forever` answers until `shutdown`.

    Args:
        watch: The run.
        port: Port on 127.0.0.1; 0 takes a free one.

    Raises:
        ServerError: The port cannot be had.
    """

    daemon_threads = True

    def __init__(self, watch: Watch, port: int = 0) -> None:
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ServerError(f"cannot listen on {HOST}:{port} ({error}); choose another --port") from error
        self._watch = watch
        self._lock = threading.Lock()
        self._report, self._reported = "", View(watch.path, State.waiting, problem="not looked at yet")
        self._rest_until = 0.0
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}
        if self.server_port == 80:
            self.hosts |= {HOST, "localhost"}

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.server_port}/"

    def page(self) -> str:
        """The page at this moment; its report is rendered again only as often as a tenth of a processor allows.

        Raises:
            LaserError: Files of the run cannot be read.
        """
        with self._lock:  # one reader of the files at a time, and matplotlib draws one picture at a time
            view = self._watch.look()
            changed = view.run is not self._reported.run or view.problem != self._reported.problem
            if changed and time.monotonic() >= self._rest_until:
                begin = time.thread_time()
                self._report, self._reported = body(_report(view)), view
                spent = time.thread_time() - begin
                self._rest_until = time.monotonic() + spent * (1 / _SHARE - 1)
            return live_document(view, self._report)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore browsers that hang up."""


def _report(view: View) -> Page:
    """The report of a run; before its first batch, a sentence that says so."""
    if view.run is not None and view.run.steps:
        return run_page(view.run)
    said = "No batch is finished yet." if view.run is not None else f"There is no run at {view.path} yet."
    return Page(
        view.path.resolve().name, (view.problem or f"{said} This page shows the report as soon as there is one.",), ()
    )


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    server_version = "laser"
    sys_version = ""
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        if not self._is_from_here():
            self._reply(HTTPStatus.FORBIDDEN, "This page is for browsers of this machine, under its own address.\n")
            return
        if self.path != "/":
            self._reply(HTTPStatus.NOT_FOUND, "There is one page here: /\n")
            return
        try:
            page = self.server.page()
        except LaserError as error:
            self._reply(HTTPStatus.INTERNAL_SERVER_ERROR, f"{error}\n")
            return
        tag = f'"{hashlib.sha256(page.encode()).hexdigest()[:32]}"'
        if self.headers.get("If-None-Match") == tag:
            self._reply(HTTPStatus.NOT_MODIFIED, "", tag=tag)
        else:
            self._reply(HTTPStatus.OK, page, "text/html", tag=tag)

    def _refuse(self) -> None:
        self._reply(HTTPStatus.METHOD_NOT_ALLOWED, "This server only shows a page.\n")

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""

    def _is_from_here(self) -> bool:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            return False
        origins = {f"http://{host}" for host in self.server.hosts}
        if any(origin not in origins for origin in self.headers.get_all("Origin", [])):
            return False
        return all(site in ("same-origin", "none") for site in self.headers.get_all("Sec-Fetch-Site", []))

    def _reply(self, status: HTTPStatus, text: str, kind: str = "text/plain", *, tag: str | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", live_policy())
        if tag is not None:
            self.send_header("ETag", tag)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
            self.close_connection = True
        if status is not HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

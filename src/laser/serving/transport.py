"""HTTP requests that end at one deadline, whatever the server does.

httpx limits each operation on a socket by itself, so a server that sends a byte now and then holds a request without
end. Here the timeouts of a request are points of time: each operation, from the lookup of the name to the last byte of
the reply, gets only the seconds that are left.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2

from laser.core.errors import ServerError

_LARGEST = 2**26  # bytes of a reply; thirty responses of 4096 tokens with log-probs take an eighth of it
_PIECE = 2**14  # bytes written between two looks at the clock
_IDLE = 3.0  # seconds; common servers close idle connections after 5


class LateError(Exception):
    """There was no whole reply at the deadline."""


class BrokenError(Exception):
    """The connection failed, or what came over it is not HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    Attributes:
        status: HTTP status.
        body: Its bytes, decompressed.
        retry_after: The header `Retry-After`.
    """

    status: int
    body: bytes
    retry_after: str | None


class Transport:
    """Connections to one server, without the cookies, redirects and `~/.netrc` of a whole `httpx2.Client`.

    Args:
        url: Address of the server, which decides about TLS and the proxy.
        connections: Open connections at most.
    """

    def __init__(self, url: str, connections: int) -> None:
        self._pool = httpcore2.ConnectionPool(
            ssl_context=httpx2.create_ssl_context() if url.startswith("https:") else None,
            proxy=proxy_of(url),
            max_connections=connections,
            keepalive_expiry=_IDLE,
            network_backend=_Backend(),
        )

    def exchange(self, method: str, url: str, content: bytes | None, key: str | None, seconds: float) -> Answer:
        """Send a request and read the whole reply.

        Raises:
            LateError: It takes longer.
            BrokenError: The connection fails.
            ServerError: The reply is too large, or compressed more than once.
        """
        deadline = time.monotonic() + seconds
        headers = {"Accept-Encoding": "gzip, deflate", "Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        limits = {"connect": deadline, "read": deadline, "write": deadline, "pool": seconds}
        request = httpx2.Request(method, url, content=content, headers=headers)
        sent = httpcore2.Request(
            method, _plain(request.url), headers=request.headers.raw, content=content, extensions={"timeout": limits}
        )
        try:
            given = self._pool.handle_request(sent)
            try:
                reply = httpx2.Response(given.status, headers=given.headers, content=given.iter_stream())
                return Answer(given.status, _read(reply, url, deadline), reply.headers.get("Retry-After"))
            finally:
                given.close()
        except httpcore2.TimeoutException as error:
            raise LateError from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError, httpx2.DecodingError) as error:
            raise BrokenError(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


def _read(reply: httpx2.Response, url: str, deadline: float) -> bytes:
    """The decompressed body, of bounded size."""
    if "," in reply.headers.get("Content-Encoding", ""):
        raise ServerError(f"{url} compresses its reply more than once; let it send plain JSON")
    body = bytearray()
    for chunk in reply.iter_bytes():
        body += chunk
        if len(body) > _LARGEST:
            raise ServerError(f"{url} answered more than {_LARGEST >> 20} MiB; check that it is the right server")
        if time.monotonic() > deadline:
            raise LateError
    return bytes(body)


def proxy_of(url: str) -> httpcore2.Proxy | None:
    """The proxy that the environment names for a server; None without one, and for this machine whatever it names."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    proxies = urllib.request.getproxies()
    address = proxies.get(parts.scheme) or proxies.get("all")
    if not address or is_local(host) or urllib.request.proxy_bypass(host) or _is_excepted(host, proxies.get("no", "")):
        return None
    proxy = httpx2.Proxy(address if "://" in address else f"http://{address}")
    context = httpx2.create_ssl_context() if proxy.url.scheme == "https" else None
    return httpcore2.Proxy(_plain(proxy.url), auth=proxy.raw_auth, ssl_context=context)


def _plain(url: httpx2.URL) -> httpcore2.URL:
    return httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def is_local(host: str) -> bool:
    """Whether a host is this machine by its very name: localhost or a loopback address."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    address = _address(host)
    inner = getattr(address, "ipv4_mapped", None) or address
    return inner is not None and (inner.is_loopback or inner.is_unspecified)


def _is_excepted(host: str, no_proxy: str) -> bool:
    """Whether NO_PROXY has a network with the host in it, such as 10.0.0.0/8, which the standard library ignores."""
    address = _address(host)
    return address is not None and any(address in network for network in _networks(no_proxy))


def _networks(no_proxy: str) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for entry in no_proxy.split(","):
        try:
            yield ipaddress.ip_network(entry.strip(), strict=False)
        except ValueError:  # a name, which `proxy_bypass` compares
            continue


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class _Stream(httpcore2.NetworkStream):
    """A connection whose timeouts are points of time."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for begin in range(0, len(buffer), _PIECE):
            self._stream.write(buffer[begin : begin + _PIECE], _left(timeout, httpcore2.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = _left(timeout, httpcore2.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


class _Backend(httpcore2.NetworkBackend):
    """Opens connections within what is left until a point of time."""

    def __init__(self) -> None:
        self._sockets = httpcore2.SyncBackend()
        self._names = _Names()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        addresses = self._names.look_up(host, port, timeout)
        for tried, address in enumerate(addresses, 1):
            share = _left(timeout, httpcore2.ConnectTimeout) / (len(addresses) - tried + 1)
            try:
                return _Stream(self._sockets.connect_tcp(address, port, share, local_address, socket_options))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if tried == len(addresses):
                    raise
        raise httpcore2.ConnectError(f"{host} has no address")


class _Names:
    """Looks names up in threads, because a lookup cannot be interrupted; one that hangs holds one thread per name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, int], list[queue.SimpleQueue[list[str] | OSError]]] = {}

    def look_up(self, host: str, port: int, deadline: float | None) -> list[str]:
        """Addresses of a host; raises httpcore2.ConnectError or httpcore2.ConnectTimeout."""
        if _address(host) is not None:
            return [host]
        answer: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()
        with self._lock:
            others = self._waiting.setdefault((host, port), [])
            others.append(answer)
            if len(others) == 1:
                threading.Thread(target=self._resolve, args=(host, port), daemon=True).start()
        try:
            found = answer.get(timeout=_left(deadline, httpcore2.ConnectTimeout))
        except queue.Empty:
            raise httpcore2.ConnectTimeout(f"the name {host} was not found in time") from None
        if isinstance(found, OSError):
            raise httpcore2.ConnectError(str(found))
        return found

    def _resolve(self, host: str, port: int) -> None:
        found: list[str] | OSError
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except (OSError, UnicodeError) as error:  # a name with a part that is too long is a UnicodeError
            found = error if isinstance(error, OSError) else OSError(str(error))
        with self._lock:
            waiting = self._waiting.pop((host, port))
        for answer in waiting:
            answer.put(found)


def _left(deadline: float | None, late: type[httpcore2.TimeoutException]) -> float:
    """Seconds that are left; raises `late` where there are none."""
    assert deadline is not None, "a request without a deadline"
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise late("the deadline has passed")
    return seconds

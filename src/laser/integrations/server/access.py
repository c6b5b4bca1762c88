"""Who may use the reward server: this machine, or who has the token."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from laser.core.errors import ConfigError
from laser.core.files import read_bytes

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SHORTEST = 16  # characters of a token


def read_token(host: str, variable: str | None, file: Path | None) -> str | None:
    """The token that requests must carry; None: none, on an address that only this machine reaches.

    Raises:
        ConfigError: There is none and the address needs one, or it cannot be one; the message does not show it.
    """
    if variable is not None and file is not None:
        raise ConfigError("--token-env and --token-file are both given; give one of them")
    if variable is None and file is None:
        if not is_loopback(host):
            raise ConfigError(
                f"other machines reach {host}; give a token with --token-env or --token-file, or listen on 127.0.0.1"
            )
        return None
    source = f"the environment variable {variable}" if file is None else str(file)
    try:
        value = os.environ.get(variable or "", "") if file is None else read_bytes(file, follow=True).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII text"
        raise ConfigError(f"cannot read a token from {source} ({reason}); write one line of ASCII into it") from error
    token = value.strip()
    if len(token) < _SHORTEST or not all("!" <= character <= "~" for character in token):
        raise ConfigError(
            f"{source} holds no token of at least {_SHORTEST} visible ASCII characters; make one with: "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuses what is not from here or has no token, before anything of it is read.

    Without a token the Host header must name this machine and no other site may have sent the request: a page in a
    browser of this machine could otherwise reach the server (DNS rebinding, cross-site requests).

    Args:
        app: What to protect.
        token: What requests must carry, as ``Authorization: Bearer TOKEN`` or as the password of Basic.
        free: Paths without a token.
    """

    def __init__(self, app: App, token: str | None, free: frozenset[str] = frozenset({"/healthz"})) -> None:
        self._app = app
        self._token = token.encode() if token is not None else None
        self._free = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal."""
        if scope["type"] == "http":
            refused = self._refusal(scope)
            if refused is not None:
                await _refuse(send, *refused)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, bytes] | None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if b"origin" in headers or headers.get(b"sec-fetch-site", b"none") != b"none":
            return 403, b'{"error": "this server is not for browsers; send requests from a trainer"}'
        if self._token is None:
            if not _names_this_machine(headers.get(b"host", b"")):
                return 403, b'{"error": "the Host header names another machine; use 127.0.0.1"}'
        elif scope["path"] not in self._free and not self._has_token(headers.get(b"authorization", b"")):
            return 401, b'{"error": "the token is missing or wrong; send it as Authorization: Bearer TOKEN"}'
        return None

    def _has_token(self, header: bytes) -> bool:
        kind, _, value = header.partition(b" ")
        if kind.lower() == b"basic":
            try:
                value = base64.b64decode(value, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif kind.lower() != b"bearer":
            return False
        return hmac.compare_digest(value.strip(), self._token or b"")


def _names_this_machine(host: bytes) -> bool:
    try:
        name = urlsplit(f"//{host.decode('ascii')}").hostname
    except (ValueError, UnicodeDecodeError):
        return False
    return name is not None and is_loopback(name)


async def _refuse(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})

"""An HTTP server that answers JSON: retries with backoff, a timeout, a bounded number of requests at once."""

from __future__ import annotations

import json
import os
import reprlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.response import BaseHTTPResponse
from urllib3.util.retry import Retry

from laser.core.addresses import check_address
from laser.core.errors import ServerError

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading a reply raises that is valid JSON and not what was agreed on."""

_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_SHOWN = 300  # characters of a server's complaint that a message repeats
_LARGEST = 2**26  # bytes of a reply; thirty responses of 4096 tokens with log-probs take an eighth of it
_CHUNK = 2**16
_LONGEST_WAIT = 60.0  # seconds of a Retry-After that are obeyed; a spent quota may ask for hours


class _Backoff(Retry):
    """Retries that wait as long as the server asks for, up to a minute."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """Seconds to wait before the next try, where the server says so."""
        wanted = super().get_retry_after(response)
        return None if wanted is None else min(wanted, _LONGEST_WAIT)


class Endpoint:
    """A server's address and how patiently it is asked.

    Connections that fail, time out, or end in 408, 425, 429 or 5xx are tried again with exponential backoff; a
    `Retry-After` header is obeyed up to a minute. Redirects are refused. The key travels in the Authorization header
    only; it appears in no message, and a reply that repeats it is given out without it.

    Args:
        url: Base address, such as ``http://127.0.0.1:8000``; a trailing ``/v1`` is dropped.
        api_key_env: Environment variable with the key; None: no key.
        timeout: Seconds without a sign of the server before a try counts as failed, and seconds that a reply may take
            from its first byte to its last.
        retries: Further tries after the first.
        concurrency: Requests under way at once.

    Attributes:
        url: Without the trailing ``/v1``.
        concurrency: As given.

    Raises:
        ServerError: The address is not one or carries a secret, or the environment variable is empty.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key_env: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        concurrency: int = 8,
    ) -> None:
        try:
            self.url = check_address(url).rstrip("/").removesuffix("/v1")
        except ValueError as error:
            raise ServerError(str(error)) from error
        self._timeout = timeout
        self._retries = retries
        self.concurrency = concurrency
        self._key = read_key(api_key_env, url)
        self._session = requests.Session()
        backoff = _Backoff(
            total=retries,
            backoff_factor=0.25,
            backoff_max=30,
            status_forcelist=_RETRIED,
            allowed_methods=None,
            raise_on_status=False,
        )
        adapter = HTTPAdapter(max_retries=backoff, pool_maxsize=concurrency)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._session.auth = self._authorize  # as an object of ours, so that ~/.netrc is not consulted

    def get(self, path: str) -> Any:
        """GET and parse; raises ServerError."""
        return self._ask("GET", path, None)

    def post(self, path: str, payload: Mapping[str, Any]) -> Any:
        """POST JSON and parse the reply.

        Raises:
            ServerError: No answer after all tries, a refusal, or a reply that is no JSON.
        """
        return self._ask("POST", path, payload)

    def post_text(self, path: str, payload: Mapping[str, Any]) -> str:
        """POST JSON to a path that answers in words; raises ServerError."""
        return self._send("POST", path, payload).decode("utf-8", "replace")

    def post_all(self, path: str, payloads: Sequence[Mapping[str, Any]]) -> list[Any]:
        """POST every payload, a bounded number at a time; replies in order. The first failure ends the call."""
        if not payloads:
            return []
        with ThreadPoolExecutor(min(self.concurrency, len(payloads))) as executor:
            futures = [executor.submit(self.post, path, payload) for payload in payloads]
            try:
                return [future.result() for future in futures]
            except BaseException:
                for future in futures:
                    future.cancel()
                raise

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _ask(self, method: str, path: str, payload: Mapping[str, Any] | None) -> Any:
        body = self._send(method, path, payload)
        try:
            reply = json.loads(body)
            return without(self._key, reply) if self._key and self._key.encode() in body else reply
        except (ValueError, RecursionError) as error:
            text = body[: 4 * _SHOWN].decode("utf-8", "replace")
            raise ServerError(
                f"{self.url}{path} answered something that is not JSON: {self._hidden(text)!r}; check the url, and "
                "that nothing stands between that answers itself (a proxy, a login page)"
            ) from error

    def _send(self, method: str, path: str, payload: Mapping[str, Any] | None) -> bytes:
        """The body of a successful reply."""
        where = f"{self.url}{path}"
        try:
            reply = self._session.request(
                method, where, json=payload, timeout=self._timeout, stream=True, allow_redirects=False
            )
            with reply:
                body = self._read(reply, where)
        except requests.exceptions.RetryError as error:
            raise ServerError(f"{where} failed {self._retries + 1} times; see the server's log") from error
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            cause, tries = _cause(error), self._retries + 1
            if "Timeout" in cause:
                raise ServerError(
                    f"{where} did not answer within {self._timeout:g} s, {tries} times; raise the timeout or lower the "
                    "concurrency"
                ) from error
            raise ServerError(
                f"{where} cannot be reached after {tries} tries ({self._hidden(cause)}); is the server running?"
            ) from error
        if reply.is_redirect:
            raise ServerError(f"{where} redirects to another address; put the server's own address into the url")
        if not reply.ok:
            raise ServerError(f"{where} refused with status {reply.status_code}: {self._hidden(_complaint(body))}")
        return body

    def _read(self, reply: requests.Response, where: str) -> bytes:
        """A body of bounded size, in bounded time however slowly it drips."""
        body, begun = bytearray(), time.monotonic()
        while chunk := reply.raw.read1(_CHUNK, decode_content=True):
            body += chunk
            if len(body) > _LARGEST:
                raise ServerError(f"{where} answered more than {_LARGEST >> 20} MiB; is it the right server?")
            if time.monotonic() - begun > self._timeout:
                raise ServerError(f"the reply of {where} took longer than {self._timeout:g} s; raise the timeout")
        return bytes(body)

    def _hidden(self, text: str) -> str:
        """Shortened, and without the key should the server repeat it."""
        return (text.replace(self._key, "***") if self._key else text)[:_SHOWN]


def read_key(api_key_env: str | None, url: str) -> str | None:
    """The key in an environment variable; None if none is named.

    Raises:
        ServerError: The variable is not set.
    """
    if api_key_env is None:
        return None
    key = os.environ.get(api_key_env, "").strip()
    if not key:
        raise ServerError(f"the environment variable {api_key_env} is not set; put the key for {url} into it")
    return key


def shown(value: Any) -> str:
    """The beginning of a reply for a message, however large or deep it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)[:_SHOWN]


def without(secret: str, value: Any) -> Any:
    """A JSON value with a secret blotted out of its texts; numbers stay as they are."""
    match value:
        case str():
            return value.replace(secret, "***")
        case list():
            return [without(secret, item) for item in value]
        case dict():
            return {without(secret, key): without(secret, item) for key, item in value.items()}
        case _:
            return value


def _complaint(body: bytes) -> str:
    text = body[:_CHUNK].decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return text
    error = said.get("error", said) if isinstance(said, dict) else said
    message = error.get("message", error) if isinstance(error, dict) else error
    return message if isinstance(message, str) else shown(message)


def _cause(error: Exception) -> str:
    reason = getattr(error.args[0], "reason", error) if error.args else error
    return type(reason).__name__

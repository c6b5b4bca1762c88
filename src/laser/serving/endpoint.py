"""An HTTP server that answers JSON: retries with backoff, a timeout, a bounded number of requests at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from laser.errors import ServerError

_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_SHOWN = 300  # characters of a server's complaint that a message repeats


class Endpoint:
    """A server's address and how patiently it is asked.

    Connections that fail, time out, or end in 408, 425, 429 or 5xx are tried again with exponential backoff; a
    `Retry-After` header is obeyed. The key travels in the Authorization header only and appears in no message.

    Args:
        url: Base address, such as ``http://127.0.0.1:8000``; a trailing ``/v1`` is dropped.
        api_key_env: Environment variable with the key; None: no key.
        timeout: Seconds without a sign of the server before a try counts as failed.
        retries: Further tries after the first.
        concurrency: Requests under way at once.

    Raises:
        ServerError: The address is not one, or the environment variable is empty.
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
        if not url.startswith(("http://", "https://")):
            raise ServerError(f"{url!r} is no address of a server; write http://host:port")
        self.url = url.rstrip("/").removesuffix("/v1")
        self._timeout = timeout
        self._retries = retries
        self._concurrency = concurrency
        self._key = read_key(api_key_env, url)
        self._session = requests.Session()
        backoff = Retry(
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
        if self._key:
            self._session.headers["Authorization"] = f"Bearer {self._key}"

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
        return str(self._send("POST", path, payload).text)

    def post_all(self, path: str, payloads: Sequence[Mapping[str, Any]]) -> list[Any]:
        """POST every payload, a bounded number at a time; replies in order. The first failure ends the call."""
        if not payloads:
            return []
        with ThreadPoolExecutor(min(self._concurrency, len(payloads))) as executor:
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

    def _ask(self, method: str, path: str, payload: Mapping[str, Any] | None) -> Any:
        reply = self._send(method, path, payload)
        try:
            return reply.json()
        except ValueError as error:
            raise ServerError(
                f"{self.url}{path} answered something that is not JSON: {self._hidden(reply.text)!r}"
            ) from error

    def _send(self, method: str, path: str, payload: Mapping[str, Any] | None) -> requests.Response:
        where = f"{self.url}{path}"
        try:
            reply = self._session.request(method, where, json=payload, timeout=self._timeout)
        except requests.exceptions.RetryError as error:
            raise ServerError(f"{where} failed {self._retries + 1} times; see the server's log") from error
        except requests.exceptions.Timeout as error:
            raise ServerError(
                f"{where} did not answer within {self._timeout:g} s, {self._retries + 1} times; raise the timeout "
                "or lower the concurrency"
            ) from error
        except requests.exceptions.RequestException as error:
            raise ServerError(
                f"{where} cannot be reached after {self._retries + 1} tries ({self._hidden(_cause(error))}); is the "
                "server running?"
            ) from error
        if not reply.ok:
            raise ServerError(f"{where} refused with status {reply.status_code}: {self._hidden(_complaint(reply))}")
        return reply

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


def _complaint(reply: requests.Response) -> str:
    try:
        said = reply.json()
    except ValueError:
        return str(reply.text)
    error = said.get("error", said) if isinstance(said, dict) else said
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def _cause(error: Exception) -> str:
    reason = getattr(error.args[0], "reason", error) if error.args else error
    return type(reason).__name__

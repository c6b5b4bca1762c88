"""An HTTP server that answers JSON: retries with backoff, one deadline per try, bounded concurrency."""

from __future__ import annotations

import email.utils
import json
import math
import reprlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from laser.core.addresses import check_address
from laser.core.errors import ServerError
from laser.serving.pace import Pace
from laser.serving.secrets import Secret, read_key
from laser.serving.transport import Answer, BrokenError, LateError, Transport

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""Exceptions from reading a reply that is valid JSON but breaks the contract."""

_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_ACCOUNT = (401, 402, 403)  # the key or the quota is refused, so that every further request will be
_SHOWN = 300  # characters of a server's complaint that a message repeats
_COMPLAINT = 2**16  # bytes of a complaint that are read
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 30.0  # seconds between tries
_LONGEST_ASKED = 60.0  # seconds of a Retry-After header that are obeyed; a spent quota may ask for hours


class RefusedError(ServerError):
    """The server answered with a status other than success.

    Attributes:
        status: HTTP status.
        complaint: The beginning of what the server said, without the key.
    """

    def __init__(self, where: str, status: int, complaint: str) -> None:
        super().__init__(f"{where} refused with status {status}: {complaint}")
        self.status = status
        self.complaint = complaint


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one of many requests.

    Attributes:
        reply: The parsed reply; None if there is none.
        error: Why there is none.
        cached: Whether the reply came from the cache.
        asked: False if the server had failed too often before its turn came.
    """

    reply: Any = None
    error: ServerError | None = None
    cached: bool = False
    asked: bool = True

    @property
    def ends(self) -> bool:
        """Whether further requests are of no use: the server failed too often, or it refuses the key or the quota."""
        return not self.asked or (isinstance(self.error, RefusedError) and self.error.status in _ACCOUNT)


class Endpoint:
    """A server.

    Connections that fail, time out, or end in status 408, 425, 429, 500, 502, 503 or 504 are tried again with
    exponential backoff; a `Retry-After` header is obeyed up to a minute. Redirects are refused. The key travels in the
    Authorization header only; messages and replies are given out without it.

    Args:
        url: Base address, such as ``http://127.0.0.1:8000``; a trailing ``/v1`` is dropped.
        api_key_env: Environment variable with the key; None: no key.
        timeout: Seconds that one try may take, from the lookup of the name to the last byte of the reply.
        retries: Further tries after the first.
        concurrency: Requests under way at once.
        pace: Limits per minute; None: no limit.

    Attributes:
        url: Without the trailing ``/v1``.
        concurrency: As given.

    Raises:
        ServerError: The address is invalid or carries a secret, or the environment variable holds no usable key.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key_env: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        concurrency: int = 8,
        pace: Pace | None = None,
    ) -> None:
        try:
            self.url = check_address(url).rstrip("/").removesuffix("/v1")
        except ValueError as error:
            raise ServerError(str(error)) from error
        self.concurrency = concurrency
        self._timeout = timeout
        self._retries = retries
        self._pace = pace or Pace()
        self._key = read_key(api_key_env, url)
        self._secret = Secret(self._key)
        self._transport = Transport(self.url, concurrency)

    def get(self, path: str) -> Any:
        """GET and parse; raises ServerError."""
        return self._parsed("GET", path, None)

    def post(self, path: str, payload: Mapping[str, Any]) -> Any:
        """POST JSON and parse the reply.

        Raises:
            ServerError: No answer after all tries, a refusal, or a reply that is not JSON.
        """
        return self._parsed("POST", path, payload)

    def post_text(self, path: str, payload: Mapping[str, Any]) -> str:
        """POST JSON to a path that answers in plain text; raises ServerError."""
        return self._secret.removed(self._send("POST", path, payload).decode("utf-8", "replace"))

    def post_all(self, path: str, payloads: Sequence[Mapping[str, Any]]) -> list[Any]:
        """POST every payload, a bounded number at a time; replies in order. The first failure ends the call."""
        outcomes = self.post_each(path, payloads, max_failures=1)
        for outcome in outcomes:
            if outcome.error is not None and outcome.asked:
                raise outcome.error
        return [outcome.reply for outcome in outcomes]

    def post_each(
        self,
        path: str,
        payloads: Sequence[Mapping[str, Any]],
        *,
        max_failures: int,
        on_reply: Callable[[int, Any], None] = lambda index, reply: None,
    ) -> list[Outcome]:
        """POST every payload, a bounded number at a time; a failure is the outcome of its payload alone.

        Args:
            path: Path on the server.
            payloads: Requests.
            max_failures: Failures in a row, in the order of arrival, after which the rest is not sent.
            on_reply: Called with the number and reply of each payload as it arrives, in the thread that sent it.

        Returns:
            Outcomes in the order of the payloads.
        """
        given_up = ServerError(f"{self.url}{path} failed {max_failures} times in a row; the rest was not sent")
        outcomes = [Outcome(error=given_up, asked=False) for _ in payloads]
        stop = threading.Event()

        def ask(index: int) -> Any:
            reply = self._parsed("POST", path, payloads[index], stop)
            on_reply(index, reply)
            return reply

        failures = 0
        with ThreadPoolExecutor(max(1, min(self.concurrency, len(payloads)))) as executor:
            futures = {executor.submit(ask, index): index for index in range(len(payloads))}
            try:
                for future in as_completed(futures):
                    if future.cancelled():
                        continue
                    outcome = outcomes[futures[future]] = _outcome(future)
                    failures = 0 if outcome.error is None else failures + 1
                    if failures >= max_failures:
                        _cancel(futures)
            except BaseException:
                stop.set()  # those under way try no more
                _cancel(futures)
                raise
        return outcomes

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _parsed(
        self, method: str, path: str, payload: Mapping[str, Any] | None, stop: threading.Event | None = None
    ) -> Any:
        body = self._send(method, path, payload, stop)
        try:
            reply = json.loads(body)
            self._pace.spent(billed(reply))
            return self._secret.removed_from(reply)
        except (ValueError, RecursionError):
            said = self._shortened(body[:_COMPLAINT].decode("utf-8", "replace"))
        raise ServerError(
            f"{self.url}{path} answered something that is not JSON: {said!r}; check the url, and that no proxy or "
            "login page answers in its place"
        )

    def _send(
        self, method: str, path: str, payload: Mapping[str, Any] | None, stop: threading.Event | None = None
    ) -> bytes:
        """The body of a successful reply, after as many tries as it takes; none follows once `stop` is set."""
        where, stop = f"{self.url}{path}", stop or threading.Event()
        content = None if payload is None else json.dumps(payload).encode()
        for number in range(self._retries + 1):
            wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2**number)
            self._pace.wait(stop)
            try:
                answer = self._transport.exchange(method, where, content, self._key, self._timeout)
            except LateError:
                failure = ServerError(
                    f"{where} did not answer within {self._timeout:g} s, {_times(number + 1)}; raise the timeout or "
                    "lower the concurrency"
                )
            except BrokenError as error:
                failure = ServerError(
                    f"{where} cannot be reached, tried {_times(number + 1)} ({self._shortened(str(error))}); check "
                    "that the server runs"
                )
            else:
                if 200 <= answer.status < 300:
                    return answer.body
                failure = self._refusal(where, answer)
                if answer.status not in _RETRIED:
                    raise failure
                wait = _asked_wait(answer.retry_after) or wait
            if number == self._retries or stop.wait(wait):
                break
        raise failure

    def _refusal(self, where: str, answer: Answer) -> ServerError:
        if 300 <= answer.status < 400:
            return ServerError(f"{where} redirects to another address; set the url to the server's own address")
        text = answer.body[:_COMPLAINT].decode("utf-8", "replace")
        try:
            said = self._secret.removed_from(json.loads(text))  # before it is shortened, which could leave a part
        except (ValueError, RecursionError):
            return RefusedError(where, answer.status, self._shortened(text))
        error = said.get("error", said) if isinstance(said, dict) else said
        message = error.get("message", error) if isinstance(error, dict) else error
        return RefusedError(where, answer.status, message[:_SHOWN] if isinstance(message, str) else shown(message))

    def _shortened(self, text: str) -> str:
        """The beginning of a text, without the key should the server repeat it."""
        return self._secret.removed(text)[:_SHOWN]


def shown(value: Any) -> str:
    """The beginning of a reply for a message, however large or deep it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)[:_SHOWN]


def billed(reply: Any) -> int:
    """Tokens that an OpenAI-compatible server bills for a reply; 0 where it does not say."""
    try:
        return max(0, int(reply["usage"]["total_tokens"]))
    except MALFORMED:
        return 0


def _outcome(future: Future[Any]) -> Outcome:
    try:
        return Outcome(future.result())
    except ServerError as error:
        return Outcome(error=error)


def _cancel(futures: Iterable[Future[Any]]) -> None:
    for future in futures:
        future.cancel()


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _asked_wait(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, which are obeyed up to a minute; None if it says nothing."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _LONGEST_ASKED) if math.isfinite(seconds) else None

"""HTTP servers that answer JSON: retries with backoff, one deadline per try, bounded concurrency, one or several."""

from __future__ import annotations

import copy
import email.utils
import json
import math
import reprlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from laser.core.addresses import check_address
from laser.core.errors import ServerError
from laser.serving.fleet import Failure, Fleet, Replica, cause_of
from laser.serving.pace import Pace
from laser.serving.secrets import Secret, read_key
from laser.serving.transport import Answer, BrokenError, LateError, Transport

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""Exceptions from reading a reply that is valid JSON but breaks the contract."""

T = TypeVar("T")

_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_ACCOUNT = (401, 402, 403)  # the key or the quota is refused, so that every further request will be
_WRONG = (*_ACCOUNT, 404, 405, 501)  # another server of a fleet may answer
_SHOWN = 300  # characters of a server's complaint that a message repeats
_COMPLAINT = 2**16  # bytes of a complaint that are read
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 30.0  # seconds between tries
_LONGEST_ASKED = 60.0  # seconds of a Retry-After header that are obeyed; a spent quota may ask for hours
_HUNG = 10  # timeouts for which a server that hangs is left out, so that it holds up a tenth of the time at most


class UnreachableError(ServerError):
    """The server did not answer, in time or at all."""


class RefusedError(ServerError):
    """The server answered with a status other than success.

    Attributes:
        status: HTTP status.
        complaint: The beginning of what the server said, without the key.
        retry_after: Seconds that the server asks to wait; 0 if it says nothing.
    """

    def __init__(self, where: str, status: int, complaint: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{where} refused with status {status}: {complaint}")
        self.status = status
        self.complaint = complaint
        self.retry_after = retry_after

    @property
    def is_busy(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in _RETRIED


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
    """A server, or several that give the same answers.

    Connections that fail, time out, or end in status 408, 425, 429, 500, 502, 503 or 504 are tried again with
    exponential backoff; a `Retry-After` header is obeyed up to a minute. With several servers a request first goes to
    each of the others that answer (`laser.serving.fleet`). Redirects are refused. The key travels in the Authorization
    header only; messages and replies are given out without it.

    Args:
        urls: Base addresses, such as ``http://127.0.0.1:8000``; a trailing ``/v1`` is dropped.
        api_key_env: Environment variable with the key; None: no key.
        timeout: Seconds that one try may take, from the lookup of the name to the last byte of the reply.
        retries: Further tries after the first.
        concurrency: Requests under way at once at each server.
        pace: Makes the limits per minute of a server; None: no limit.

    Attributes:
        url: The first address without the trailing ``/v1``: the same whichever server answers.

    Raises:
        ServerError: An address is invalid or carries a secret, or the environment variable holds no usable key.
    """

    def __init__(
        self,
        *urls: str,
        api_key_env: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        concurrency: int = 8,
        pace: Callable[[], Pace] = Pace,
    ) -> None:
        try:
            bases = [check_address(url).rstrip("/").removesuffix("/v1") for url in urls]
        except ValueError as error:
            raise ServerError(str(error)) from error
        self.url = bases[0]
        self._timeout = timeout
        self._retries = retries
        self._key = read_key(api_key_env, self.url)
        self._secret = Secret(self._key)
        self._fleet = Fleet([Replica(base, Transport(base, concurrency), pace()) for base in bases], concurrency)

    def where(self, path: str = "") -> str:
        """What messages call the address of a reply; with several servers any of them may have sent it."""
        addresses = [f"{replica.url}{path}" for replica in self._fleet.replicas]
        return addresses[0] if len(addresses) == 1 else f"one of {', '.join(addresses)}"

    @property
    def concurrency(self) -> int:
        """Requests under way at once, at all servers together."""
        return self._fleet.concurrency * len(self._fleet.replicas)

    @property
    def is_in(self) -> bool:
        """Whether no server is left out at the moment."""
        return all(replica.is_in for replica in self._fleet.replicas)

    def each(self) -> list[Self]:
        """The servers one by one."""
        return [self._of([replica]) for replica in self._fleet.replicas]

    def among(self, servers: Sequence[Endpoint]) -> Self:
        """Those of `each` that are given, together again."""
        return self._of([replica for server in servers for replica in server._fleet.replicas])

    def once(self) -> Self:
        """The same servers, asked without further tries."""
        part = copy.copy(self)
        part._retries = 0
        return part

    def _of(self, replicas: Sequence[Replica]) -> Self:
        part = copy.copy(self)
        part.url, part._fleet = replicas[0].url, self._fleet.of(replicas)
        return part

    def get(self, path: str, *, timeout: float | None = None) -> Any:
        """GET and parse; raises ServerError. A timeout shortens that of the server."""
        return self._send("GET", path, None, self._parsed, timeout=timeout)

    def post(self, path: str, payload: Mapping[str, Any]) -> Any:
        """POST JSON and parse the reply.

        Raises:
            ServerError: No answer after all tries, a refusal, or a reply that is not JSON.
        """
        return self._send("POST", path, payload, self._parsed)

    def post_text(self, path: str, payload: Mapping[str, Any]) -> str:
        """POST JSON to a path that answers in plain text; raises ServerError."""
        return self._send("POST", path, payload, self._text)

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
        given_up = ServerError(f"{self.where(path)} failed {max_failures} times in a row; the rest was not sent")
        outcomes = [Outcome(error=given_up, asked=False) for _ in payloads]
        stop = threading.Event()

        def ask(index: int) -> Any:
            reply = self._send("POST", path, payloads[index], self._parsed, stop)
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
        for replica in self._fleet.replicas:
            replica.transport.close()

    def _send(
        self,
        method: str,
        path: str,
        payload: Mapping[str, Any] | None,
        read: Callable[[Replica, str, bytes], T],
        stop: threading.Event | None = None,
        *,
        timeout: float | None = None,
    ) -> T:
        """What `read` makes of a successful reply, after as many tries as it takes; none follows once `stop` is set."""
        stop = stop or threading.Event()
        seconds = self._timeout if timeout is None else min(timeout, self._timeout)
        content = None if payload is None else json.dumps(payload).encode()
        tries: Counter[Replica] = Counter()
        for number in range(self._retries + 1):
            failures: dict[Replica, Failure] = {}
            while (replica := self._fleet.take(failures, stop)) is not None:
                tries[replica] += 1
                where, failure = f"{replica.url}{path}", None
                try:
                    replica.pace.wait(stop)
                    answer = replica.transport.exchange(method, where, content, self._key, seconds)
                    if not 200 <= answer.status < 300:
                        raise self._refusal(where, answer)
                    return read(replica, where, answer.body)
                except (LateError, BrokenError, ServerError) as error:
                    failure = failures[replica] = self._failure(error, where, tries[replica], seconds)
                finally:
                    self._fleet.give_back(replica, failure)
                if failure.kind == "request" or stop.is_set():
                    raise failure.error
            backoff = min(_LONGEST_WAIT, _FIRST_WAIT * 2**number)
            waits = [
                failure.rest if failure.kind == "busy" and failure.rest else backoff
                for failure in failures.values()
                if failure.kind != "wrong"
            ]
            if not waits or number == self._retries or stop.wait(min(waits)):
                break
        raise self._given_up(failures)

    def _failure(self, error: Exception, where: str, tries: int, seconds: float) -> Failure:
        match error:
            case LateError():
                late = UnreachableError(
                    f"{where} did not answer within {seconds:g} s, {_times(tries)}; raise the timeout or lower the "
                    "concurrency"
                )
                return Failure(late, "down", _HUNG * seconds)
            case BrokenError():
                broken = UnreachableError(
                    f"{where} cannot be reached, tried {_times(tries)} ({self._shortened(str(error))}); check that the "
                    "server runs"
                )
                return Failure(broken, "down")
            case RefusedError(is_busy=True):
                return Failure(error, "busy", error.retry_after)
            case RefusedError() if error.status not in _WRONG:
                return Failure(error, "request")
            case ServerError():
                return Failure(error, "wrong")
        raise error

    def _given_up(self, failures: Mapping[Replica, Failure]) -> ServerError:
        """The error of a request that no server answered."""
        if all(failure.kind == "wrong" for failure in failures.values()):
            return list(failures.values())[-1].error
        last = [failures.get(replica, replica.failure) for replica in self._fleet.replicas]
        return none_answers([failure.error for failure in last if failure is not None])

    def _parsed(self, replica: Replica, where: str, body: bytes) -> Any:
        try:
            reply = json.loads(body)
            replica.pace.spent(billed(reply))
            return self._secret.removed_from(reply)
        except (ValueError, RecursionError):
            said = self._shortened(body[:_COMPLAINT].decode("utf-8", "replace"))
        raise ServerError(
            f"{where} answered something that is not JSON: {said!r}; check the url, and that no proxy or login page "
            "answers in its place"
        )

    def _text(self, replica: Replica, where: str, body: bytes) -> str:
        return self._secret.removed(body.decode("utf-8", "replace"))

    def _refusal(self, where: str, answer: Answer) -> ServerError:
        if 300 <= answer.status < 400:
            return ServerError(f"{where} redirects to another address; set the url to the server's own address")
        text, wait = answer.body[:_COMPLAINT].decode("utf-8", "replace"), _asked_wait(answer.retry_after)
        try:
            said = self._secret.removed_from(json.loads(text))  # before it is shortened, which could leave a part
        except (ValueError, RecursionError):
            return RefusedError(where, answer.status, self._shortened(text), wait)
        error = said.get("error", said) if isinstance(said, dict) else said
        message = error.get("message", error) if isinstance(error, dict) else error
        complaint = message[:_SHOWN] if isinstance(message, str) else shown(message)
        return RefusedError(where, answer.status, complaint, wait)

    def _shortened(self, text: str) -> str:
        """The beginning of a text, without the key should the server repeat it."""
        return self._secret.removed(text)[:_SHOWN]


def none_answers(errors: Sequence[ServerError]) -> ServerError:
    """The error of servers of which each has its own; that of a single one as it is."""
    if len(errors) == 1:
        return errors[0]
    causes = "; ".join(map(cause_of, errors))
    return UnreachableError(f"none of the {len(errors)} servers answers: {causes}; start them, or raise the timeout")


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


def _asked_wait(header: str | None) -> float:
    """Seconds that a Retry-After header asks for, which are obeyed up to a minute; 0 if it says nothing."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_ASKED) if math.isfinite(seconds) else 0.0

"""Many requests of which some may fail: each has an outcome, and a server that is gone is not asked for ever."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from laser.core.errors import ServerError
from laser.serving.endpoint import Endpoint

_OF_THE_ACCOUNT = re.compile(r"\S+ refused with status (401|402|403)\b")  # as `Endpoint` words it


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one of many requests.

    Attributes:
        reply: The parsed reply; None where there is none.
        error: Why there is none.
        cached: Whether the reply was known before.
        asked: False if the server had failed too often before its turn came.
    """

    reply: Any = None
    error: ServerError | None = None
    cached: bool = False
    asked: bool = True

    @property
    def ends(self) -> bool:
        """Whether it says that asking more is of no use: the server was given up, or refuses key or quota."""
        return not self.asked or (self.error is not None and _OF_THE_ACCOUNT.match(str(self.error)) is not None)


def post_each(
    endpoint: Endpoint,
    path: str,
    payloads: Sequence[Mapping[str, Any]],
    *,
    patience: int,
    on_reply: Callable[[int, Any], None] = lambda index, reply: None,
) -> list[Outcome]:
    """POST every payload, a bounded number at a time; a failure is the outcome of its payload alone.

    Args:
        endpoint: The server.
        path: Path on it.
        payloads: What to ask.
        patience: Failures in a row, in the order of arrival, after which the rest is not asked.
        on_reply: Given the number and reply of each payload as it arrives, in the thread that asked.

    Returns:
        Outcomes in the order of the payloads.
    """

    def ask(index: int) -> Any:
        reply = endpoint.post(path, payloads[index])
        on_reply(index, reply)
        return reply

    given_up = ServerError(f"{endpoint.url}{path} failed {patience} times in a row and was not asked any more")
    outcomes = [Outcome(error=given_up, asked=False) for _ in payloads]
    failures = 0
    with ThreadPoolExecutor(max(1, min(endpoint.concurrency, len(payloads)))) as executor:
        futures = {executor.submit(ask, index): index for index in range(len(payloads))}
        try:
            for future in as_completed(futures):
                if future.cancelled():
                    continue
                outcome = outcomes[futures[future]] = _outcome(future)
                failures = 0 if outcome.error is None else failures + 1
                if failures >= patience:
                    _cancel(futures)
        except BaseException:
            _cancel(futures)
            raise
    return outcomes


def _outcome(future: Future[Any]) -> Outcome:
    try:
        return Outcome(future.result())
    except ServerError as error:
        return Outcome(error=error)


def _cancel(futures: Iterable[Future[Any]]) -> None:
    for future in futures:
        future.cancel()

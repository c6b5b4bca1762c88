"""Servers that give the same answers: which one takes a request, and which ones are left out for the moment."""

from __future__ import annotations

import copy
import threading
import time
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from laser.core.errors import ServerError
from laser.serving.pace import Pace
from laser.serving.transport import Transport

_FIRST_REST, _LONGEST_REST = 0.5, 30.0  # seconds that a server is left out; doubled by each failure in a row


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that one server did not answer.

    Attributes:
        error: What to raise if no other server answers.
        kind: busy: the server may answer later; down: the same, and the user should know; wrong: the server would
            refuse again, others may answer; request: every server would refuse it.
        rest: Seconds for which the server is left out at least.
    """

    error: ServerError
    kind: Literal["busy", "down", "wrong", "request"]
    rest: float = 0.0


def cause_of(error: ServerError) -> str:
    """The sentence of an error without its cure."""
    return str(error).partition("; ")[0]


@dataclass(slots=True, eq=False)
class Replica:
    """One server of a fleet.

    Attributes:
        url: Its address.
        transport: Connections to it.
        pace: Its limits per minute.
        load: Requests under way.
        outages: Failures in a row; those of requests that were under way together are one.
        back_at: Until when it is left out, in seconds of `time.monotonic`.
        failure: The last one.
    """

    url: str
    transport: Transport
    pace: Pace
    load: int = 0
    outages: int = 0
    back_at: float = 0.0
    failure: Failure | None = None

    @property
    def is_in(self) -> bool:
        """Whether it may take a request: after an outage one at a time, until it answers."""
        return self.outages == 0 or (self.load == 0 and time.monotonic() >= self.back_at)


class Fleet:
    """Hands every request to the server with the fewest under way.

    A server that fails is left out for half a second, twice as long after each further failure in a row, at most half
    a minute, or as long as the failure says. Then it gets one request on trial; an answer brings it back. If all are
    left out, the one whose time ends first is tried all the same: so is a single server, whatever happened before.

    Attributes:
        replicas: As given.
        concurrency: As given.
    """

    def __init__(self, replicas: Sequence[Replica], concurrency: int) -> None:
        self.replicas = tuple(replicas)
        self.concurrency = concurrency
        self._is_single = len(self.replicas) == 1
        self._changed = threading.Condition()

    def of(self, replicas: Sequence[Replica]) -> Self:
        """Some of the servers, whose load and outages stay those of the whole fleet."""
        part = copy.copy(self)
        part.replicas = tuple(replicas)
        return part

    def take(self, tried: Collection[Replica], stop: threading.Event) -> Replica | None:
        """The server for a request, as soon as one has a free place; `give_back` must follow.

        Args:
            tried: Servers that failed the request already.
            stop: Once set, no place is waited for.

        Returns:
            None if all others are left out.
        """
        with self._changed:
            while True:
                usable = [one for one in self.replicas if one not in tried and one.is_in]
                chosen = min(usable, key=lambda one: one.load, default=None)
                if chosen is None and not tried:
                    chosen = min(self.replicas, key=lambda one: one.back_at)
                elif chosen is not None and chosen.load >= self.concurrency and not stop.is_set():
                    self._changed.wait()
                    continue
                if chosen is not None:
                    chosen.load += 1
                return chosen

    def give_back(self, replica: Replica, failure: Failure | None) -> None:
        """End a request; without a failure the server has answered."""
        with self._changed:
            replica.load -= 1
            begins = False
            if failure is None or failure.kind == "request":
                replica.outages = 0
            elif time.monotonic() >= replica.back_at:
                begins = replica.outages == 0
                rest = min(_LONGEST_REST, _FIRST_REST * 2 ** min(replica.outages, 10))
                replica.outages += 1
                replica.back_at = time.monotonic() + max(rest, failure.rest)
                replica.failure = failure
            self._changed.notify_all()
        if begins and not self._is_single and failure is not None and failure.kind != "busy":
            warnings.warn(
                f"{cause_of(failure.error)}; the other servers take its requests until it answers again",
                RuntimeWarning,
                stacklevel=2,
            )

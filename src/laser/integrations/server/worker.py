"""The one thread that uses the router: it collects what requests ask, scores in micro-batches, and answers once all of
it is on the disk.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from laser.core.errors import LaserError, RunDirectoryError
from laser.integrations.server.groups import Row
from laser.integrations.server.ledger import Ledger, Place
from laser.integrations.server.samples import RequestError, Sample, Scored

_ROUND = 0.02  # seconds of small batches that share one write to the disk
_SWEEP = 0.5  # seconds between looks for groups that are complete without a further sample

_Key = tuple[int, int | None]  # a step and a reward model


@dataclass(slots=True, eq=False)
class Task:
    """What one request asks.

    Attributes:
        future: Gets the answer, in the event loop.
        samples: To score.
        call: To do instead, with the ledger and the time.
        places: Where the samples belong.
        rows: Their rows, as far as they are scored.
        result: The answer.
        error: Why there is no answer.
        answered: Whether the answer is on its way.
    """

    future: asyncio.Future[Any]
    samples: Sequence[Sample] = ()
    call: Callable[[Ledger, float], Any] | None = None
    places: Sequence[Place] = ()
    rows: dict[int, Row] = field(default_factory=dict)
    result: Any = None
    error: Exception | None = None
    answered: bool = False

    @property
    def done(self) -> bool:
        """Whether it can be answered."""
        return self.error is not None or self.call is not None or len(self.rows) == len(self.samples)


@dataclass(slots=True)
class _Waiting:
    """A sample that waits for its score, and the tasks that it belongs to, with its index in each."""

    place: Place
    takers: list[tuple[Task, int]]


@dataclass(slots=True)
class _Queue:
    """Samples that wait for a reward model in one step."""

    since: float
    waiting: deque[_Waiting] = field(default_factory=deque)


class Worker:
    """Answers tasks in `run`, until `stop`.

    Args:
        ledger: What it works on.
        max_batch: Most samples of a call of a reward model.
        wait: Seconds that a sample waits for others that chose the same reward model.
        max_waiting: Most samples that wait; further ones are refused.

    Attributes:
        busy_since: When the current call of a reward model began, by `time.monotonic`; None between calls.
        num_waiting: Samples that wait for their score.
    """

    def __init__(self, ledger: Ledger, *, max_batch: int = 256, wait: float = 0.005, max_waiting: int = 65536) -> None:
        self.ledger = ledger
        self.busy_since: float | None = None
        self.num_waiting = 0
        self._max_batch = max_batch
        self._wait = wait
        self._max_waiting = max_waiting
        self._inbox: deque[Task] = deque()
        self._arrived = threading.Event()
        self._stopping = False
        self._queues: OrderedDict[_Key, _Queue] = OrderedDict()
        self._by_id: dict[tuple[int, str], _Waiting] = {}
        self._done: list[Task] = []
        self._swept = 0.0

    def score(self, samples: Sequence[Sample]) -> asyncio.Future[list[tuple[Scored, Row]]]:
        """Scores of samples, from the event loop.

        Raises:
            RequestError: Too many samples wait already.
        """
        if self.num_waiting + len(samples) > self._max_waiting:
            raise RequestError(
                f"{self.num_waiting} samples wait, the most that --max-waiting allows; send fewer at once, or raise it",
                503,
            )
        self.num_waiting += len(samples)
        return self._submit(Task(asyncio.get_running_loop().create_future(), samples=samples))

    def call(self, work: Callable[[Ledger, float], Any]) -> asyncio.Future[Any]:
        """The result of a function of the ledger and the time, from the event loop."""
        return self._submit(Task(asyncio.get_running_loop().create_future(), call=work))

    def stop(self) -> None:
        """Let `run` return once everything is answered."""
        self._stopping = True
        self._arrived.set()

    def run(self) -> None:
        """Work until `stop`."""
        while not self._stopping or self._inbox or self._queues:
            self._receive()
            begun = time.monotonic()
            while (key := self._ready()) is not None and time.monotonic() < begun + _ROUND:
                self._score(key)
            self._finish()

    def _submit(self, task: Task) -> asyncio.Future[Any]:
        self._inbox.append(task)
        self._arrived.set()
        return task.future

    def _receive(self) -> None:
        """Take what has arrived; wait for it if there is nothing else to do."""
        now = time.monotonic()
        due = min([queue.since + self._wait for queue in self._queues.values()], default=now + _SWEEP)
        if not self._inbox and not self._stopping and due > now:
            self._arrived.wait(due - now)
        self._arrived.clear()
        while self._inbox:
            task = self._inbox.popleft()
            self._begin(task, time.monotonic())

    def _begin(self, task: Task, now: float) -> None:
        try:
            if task.call is not None:
                task.result = task.call(self.ledger, now)
            else:
                task.places = self.ledger.enter(task.samples, now)
        except (RequestError, LaserError) as error:
            task.error = error
        for index, place in enumerate(task.places):
            if place.row is not None:
                task.rows[index] = place.row
            else:
                self._enqueue(task, index, place, now)
        self._check(task)

    def _enqueue(self, task: Task, index: int, place: Place, now: float) -> None:
        name = None if place.sample.id is None else (place.group.number, place.sample.id)
        if name in self._by_id:  # a retry while the first request still waits
            self.ledger.give_up([place])
            self._by_id[name].takers.append((task, index))
            return
        waiting = _Waiting(place, [(task, index)])
        self._queues.setdefault((place.group.step, place.group.arm), _Queue(now)).waiting.append(waiting)
        if name is not None:
            self._by_id[name] = waiting

    def _ready(self) -> _Key | None:
        """The queue whose first sample has waited longest, if it is full or has waited enough."""
        now = time.monotonic()
        full = (
            key
            for key, queue in self._queues.items()
            if self._stopping or len(queue.waiting) >= self._max_batch or queue.since + self._wait <= now
        )
        return next(full, None)

    def _score(self, key: _Key) -> None:
        """Score up to `max_batch` samples of a queue."""
        queue = self._queues.pop(key)
        batch = [queue.waiting.popleft() for _ in range(min(self._max_batch, len(queue.waiting)))]
        if queue.waiting:
            self._queues[key] = queue  # behind the others
        places = [waiting.place for waiting in batch]
        rows: Sequence[Row] = ()
        error: LaserError | None = None
        self.busy_since = time.monotonic()
        try:
            rows = self.ledger.score(places, self.busy_since)
        except LaserError as raised:
            self.ledger.give_up(places)
            error = raised
        self.busy_since = None
        for number, waiting in enumerate(batch):
            if waiting.place.sample.id is not None:
                del self._by_id[waiting.place.group.number, waiting.place.sample.id]
            for task, index in waiting.takers:
                if error is None:
                    task.rows[index] = rows[number]
                else:
                    task.error = error
                self._check(task)

    def _check(self, task: Task) -> None:
        """Note a task that can be answered."""
        if task.done and not task.answered:
            task.answered = True
            self._done.append(task)

    def _finish(self) -> None:
        """Write what happened, answer what is done, and learn: no answer waits for that."""
        now, done = time.monotonic(), self._done
        self._done = []
        try:
            self.ledger.commit()
        except RunDirectoryError as error:
            for task in done:
                task.error = error
        for task in done:
            if task.samples and task.error is None:
                task.result = [
                    (self.ledger.answer(place.group, task.rows[index]), task.rows[index])
                    for index, place in enumerate(task.places)
                ]
        if done:
            done[0].future.get_loop().call_soon_threadsafe(self._answer, done)
        if done or now > self._swept + _SWEEP:
            self.ledger.close_complete(now)
            self._swept = now

    def _answer(self, tasks: Sequence[Task]) -> None:
        """Give the answers to the requests that still wait for them; runs in the event loop."""
        for task in tasks:
            self.num_waiting -= len(task.samples)
            if task.future.cancelled():
                continue
            if task.error is not None:
                task.future.set_exception(task.error)
            else:
                task.future.set_result(task.result)

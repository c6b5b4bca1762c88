"""Calls of code that the user wrote: one at a time, and each with so many seconds."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


class TimeLimitError(Exception):
    """A call did not end in time."""


class TimeLimit:
    """Waits so long for a call and no longer.

    A call that takes longer counts as failed; Python cannot stop it, so it goes on in a thread of its own, and the next
    call waits for it, as long again at most: the code never runs twice at once, and what hangs holds one thread, not
    one a call.

    Args:
        seconds: A call may take; None or 0: any time, in the thread that calls.
        busy: Held during a call; shared by all that call the same code.

    Attributes:
        seconds: See above.
    """

    def __init__(self, seconds: float | None = None, busy: threading.Lock | None = None) -> None:
        self.seconds = seconds or 0.0
        self._busy = busy or threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a call is under way: one that hangs, where nobody waits for it any more."""
        return self._busy.locked()

    def call(self, work: Callable[[], T]) -> T:
        """Do some work.

        Returns:
            What it returned.

        Raises:
            TimeLimitError: It did not end in time. What the work raises is raised as it is.
        """
        if not self.seconds:
            return work()
        if not self._busy.acquire(timeout=self.seconds):
            raise TimeLimitError
        outcome: queue.Queue[tuple[T] | BaseException] = queue.Queue()
        as_here = _as_here(work)

        def attempt() -> None:
            try:
                outcome.put((as_here(),))
            except (Exception, SystemExit) as error:  # raised again by the caller
                outcome.put(error)
            finally:
                self._busy.release()

        threading.Thread(target=attempt, daemon=True).start()
        try:
            result = outcome.get(timeout=self.seconds)
        except queue.Empty:
            raise TimeLimitError from None
        if isinstance(result, BaseException):
            raise result
        return result[0]


def _as_here(work: Callable[[], T]) -> Callable[[], T]:
    """The same work for another thread, with what torch and Python remember of each thread as it is in this one."""
    context = contextvars.copy_context()
    gradients = torch.is_grad_enabled()
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def run() -> T:
        if device is not None:
            torch.cuda.set_device(device)
        with torch.set_grad_enabled(gradients):
            return context.run(work)

    return run

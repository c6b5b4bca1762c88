"""Calls of code that the user wrote: what it raises is a failure with its name, and a call may have a time limit."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from laser.core.errors import LaserError, RewardModelError
from laser.rewards.undisturbed import said, undisturbed
from laser.rewards.user_files import neighbors_of

T = TypeVar("T")


class _TimeLimitError(Exception):
    """A call that did not end in time."""


class UserCode:
    """Calls code of one file, one call at a time.

    Without a time limit the code runs in the calling thread, the main one, where signals and event loops work. With
    one it runs in a thread. Python cannot end a thread: a call that takes longer counts as failed and continues there,
    and the next call waits for it for as long again at most. So code never runs twice at once, and code that hangs
    holds one thread, not one a call.

    Args:
        subject: What error messages call it, such as "reward function 'length'".
        folder: Folder of its file, from which it may import neighbors; None: none.
        timeout: Seconds that a call may take; None or 0: any time.

    Attributes:
        timeout: See above; 0.0 for any time.
    """

    def __init__(self, subject: str, *, folder: Path | None = None, timeout: float | None = None) -> None:
        self.timeout = timeout or 0.0
        self._subject = subject
        self._folder = folder
        self._busy = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a call still runs in a thread that its caller has given up."""
        return self._busy.locked()

    def call(self, work: Callable[[], T]) -> T:
        """Return what the work returns.

        Raises:
            RewardModelError: The work raised anything but a LaserError, which is passed on, or took too long.
                KeyboardInterrupt in the calling thread is the user's and passes too.
        """
        try:
            with undisturbed(), neighbors_of(self._folder):
                return self._in_time(work) if self.timeout else contextvars.copy_context().run(work)
        except (LaserError, KeyboardInterrupt):
            raise
        except _TimeLimitError as error:
            raise RewardModelError(
                f"{self._subject} took longer than {self.timeout:g} s; speed it up or raise its timeout"
            ) from error
        except BaseException as error:  # CancelledError, SystemExit and pytest's Failed are failures as well
            cure = ""
            if self.timeout and "thread" in str(error):
                cure = "; remove its timeout, with which it runs in a thread"
            raise RewardModelError(f"{self._subject} raised {said(error)}{cure}") from error

    def _in_time(self, work: Callable[[], T]) -> T:
        if not self._busy.acquire(timeout=self.timeout):
            raise _TimeLimitError
        outcome: Future[T] = Future()
        as_here = _as_here(work)

        def attempt() -> None:
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)  # as the main thread has one
            try:
                finish = partial(outcome.set_result, as_here())
            except BaseException as error:
                finish = partial(outcome.set_exception, error)
            loop.close()
            self._busy.release()  # before the caller continues, who may call again
            finish()

        threading.Thread(target=attempt, daemon=True).start()
        try:
            error = outcome.exception(self.timeout)
        except TimeoutError:
            raise _TimeLimitError from None
        if isinstance(error, KeyboardInterrupt):  # not the user's, which comes to the main thread
            raise RewardModelError(f"{self._subject} raised KeyboardInterrupt") from error
        return outcome.result()


def finished(value: Any) -> Any:
    """The value, or what it resolves to where it is awaitable, in an event loop of this call."""
    if not inspect.isawaitable(value):
        return value
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _awaited(value)
    with ThreadPoolExecutor(1) as aside:  # as in a notebook, whose own loop runs in this thread
        return aside.submit(_awaited, value).result()


def _awaited(value: Awaitable[T]) -> T:
    async def wait() -> T:
        return await value

    # With a factory, the runner leaves the thread's own event loop to `asyncio.get_event_loop`.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(wait())


def _as_here(work: Callable[[], T]) -> Callable[[], T]:
    """The same work for another thread, with this thread's context variables, gradient mode and CUDA device."""
    context = contextvars.copy_context()
    gradients = torch.is_grad_enabled()
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def run() -> T:
        if device is not None:
            torch.cuda.set_device(device)
        with torch.set_grad_enabled(gradients):
            return context.run(work)

    return run

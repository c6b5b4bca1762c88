"""Code that the user wrote runs in this process; what it changes there for all is put back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_SHOWN = 300  # characters of a message that an error quotes


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put back, after the block, the working directory, the signal handlers of a stop, an alarm, and torch's modes.

    A reward function that calls ``os.chdir``, leaves an alarm armed or turns gradients off harms nothing.
    """
    folder = _working_directory()
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)} if in_main else {}
    is_armed = signal.getitimer(signal.ITIMER_REAL)[0] > 0
    dtype = torch.get_default_dtype()
    try:
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            yield
    finally:
        if folder is not None and _working_directory() != folder:
            os.chdir(folder)
        if in_main and not is_armed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for kind, handler in handlers.items():
            if signal.getsignal(kind) is not handler:
                signal.signal(kind, handler)
        torch.set_default_dtype(dtype)


def said(error: BaseException) -> str:
    """The type of an exception and the beginning of its message."""
    try:
        message = str(error)
    except Exception:  # its own __str__ may raise anything
        message = ""
    shown = message if len(message) <= _SHOWN else f"{message[:_SHOWN]}..."
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__


def _working_directory() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return None

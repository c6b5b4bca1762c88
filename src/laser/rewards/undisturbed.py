"""Code that the user wrote runs in this process; what it changes there for all is put back."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_SHOWN = 300  # characters of a message that an error quotes


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put back, after the block, working directory, handlers of a stop, an alarm, standard output and torch's modes.

    A reward function that calls ``os.chdir``, leaves an alarm armed, closes standard output or turns gradients off
    harms nothing.
    """
    folder = _working_directory()
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)} if in_main else {}
    is_armed = signal.getitimer(signal.ITIMER_REAL)[0] > 0
    dtype = torch.get_default_dtype()
    try:
        with torch.set_grad_enabled(torch.is_grad_enabled()), _stream("stdout"), _stream("stderr"):
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


@contextmanager
def _stream(name: str) -> Iterator[None]:
    """Put back standard output or error; it is opened again where the block closed it."""
    stream = getattr(sys, name)
    try:
        number = stream.fileno()
        copy = os.dup(number)
    except (AttributeError, OSError, ValueError):  # there is none, or it is not a file
        number = copy = None
    try:
        yield
    finally:
        if copy is not None:
            os.dup2(copy, number)
            os.close(copy)
            if stream.closed:
                stream = open(number, "w", encoding=stream.encoding, errors=stream.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)


def _working_directory() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return None

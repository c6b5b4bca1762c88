"""Processes that hold the layers of models between them make their passes together.

A pass through a sharded model gathers its layers, one after the other, and only all processes together can gather. But
their shares of the work differ: other prompts, longer responses, more micro-batches. So before each pass they agree,
with one all-reduce, on which pass is next. A process that needs another pass, or none, takes part in the gathering
alone: it computes nothing and keeps nothing. So does a process that fails in the middle of a pass, to the pass's end.
No process needs to know beforehand how many passes the others make.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import timedelta
from enum import IntEnum
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import distributed

from laser.core.errors import ConfigError, LostProcessError
from laser.parallel.memory import is_out_of_memory

T = TypeVar("T")

_NONE = 2**62  # requested by a process that needs no pass
_TIMEOUT = "LASER_DDP_TIMEOUT"


class Pass(IntEnum):
    """A pass through all layers. Where several are requested, the first of these comes first."""

    INFERENCE = 0
    FORWARD = 1
    BACKWARD = 2  # through every FORWARD since the last one


class Sharded(Protocol):
    """A model whose layers are held by several processes."""

    def take_part(self, kind: Pass) -> None:
        """Take part in gathering every layer for a pass of others."""

    def finish(self) -> None:
        """Take part in what remains of the pass that this process was in, which failed or had fewer graphs."""

    def release(self) -> None:
        """Forget the passes so far; nothing is gathered afterwards."""


class Passes:
    """The passes of one group of processes.

    Contract: all processes `join` the same models in the same order. From then on, a process calls `begin` before
    each pass, and `serve` when its share is done. `serve` returns once all processes serve. A process whose work fails
    must call `serve` too, so that no other waits for it. A model may be dropped once unused.

    Args:
        group: The processes; None: all.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None) -> None:
        self._group = group
        self._models: WeakValueDictionary[int, Sharded] = WeakValueDictionary()
        self._joined = 0

    def join(self, model: Sharded) -> int:
        """Let others gather a model's layers; returns its number."""
        self._joined += 1
        self._models[self._joined] = model
        return self._joined

    def begin(self, number: int, kind: Pass) -> None:
        """Wait until all processes make a pass; the caller makes it then.

        Args:
            number: From `join`.
            kind: The pass.

        Raises:
            LostProcessError: Another process is lost.
        """
        wanted = number * len(Pass) + kind
        for model in list(self._models.values()):
            model.finish()
        while (agreed := self._agree(wanted)) != wanted:
            self._take_part(agreed)

    def serve(self) -> None:
        """Take part in the passes of others until no process needs one.

        Raises:
            LostProcessError: Another process is lost.
        """
        if self._joined == 0:
            return
        for model in list(self._models.values()):
            model.finish()
        while (agreed := self._agree(_NONE)) != _NONE:
            self._take_part(agreed)
        for model in list(self._models.values()):
            model.release()

    def _agree(self, wanted: int) -> int:
        """The first pass that any process requests. Exchanged in CPU memory, which does not wait for computation."""
        asked = torch.tensor([wanted])
        collective(lambda: distributed.all_reduce(asked, distributed.ReduceOp.MIN, self._group))
        return int(asked)

    def _take_part(self, agreed: int) -> None:
        number, kind = divmod(agreed, len(Pass))
        self._models[number].take_part(Pass(kind))


def collective(call: Callable[[], T]) -> T:
    """Call a collective operation.

    Raises:
        LostProcessError: Another process is lost.
    """
    try:
        return call()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise lost(error) from error


def longest_wait() -> timedelta:
    """How long a process waits for the slowest one: LASER_DDP_TIMEOUT in seconds, else half an hour, as in torch.

    Raises:
        ConfigError: It is not a number of seconds.
    """
    text = os.environ.get(_TIMEOUT, "1800")
    try:
        wait = timedelta(seconds=float(text))
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{_TIMEOUT} is {text!r}; set it to a number of seconds, such as 1800") from error
    if wait < timedelta(seconds=1):
        raise ConfigError(f"{_TIMEOUT} is {text!r}; set it to at least 1 second")
    return wait


def is_communication(error: RuntimeError) -> bool:
    """Whether a collective operation raised an error, inside other code."""
    return isinstance(error, distributed.DistError) or "gloo/transport" in str(error)


def lost(error: RuntimeError) -> LostProcessError:
    """What to raise for an error of a collective operation."""
    if "timed out" in str(error).lower():
        return LostProcessError(
            f"another process of the run hangs or is slow: it did not answer for {longest_wait().total_seconds():g} "
            f"seconds; end all processes and resume the run, with more seconds in {_TIMEOUT} if it was only slow"
        )
    reason = re.sub(r"^\[\S*\] ", "", str(error).strip().splitlines()[0]).partition(". ")[0]  # no source line
    return LostProcessError(f"another process of the run is gone ({reason}); resume the run")

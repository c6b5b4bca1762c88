"""Processes gather sharded weights in rounds, each at another point of its work.

Only all processes together can gather a layer's weights, but their shares of the work differ in length: other prompts,
longer responses, more micro-batches. So they meet in rounds. A process that needs a layer requests it; one that has
finished its share serves. A round gathers the lowest layer that any process requests. The ranks that requested it
continue, and the others discard it and meet again. No process needs to know what the others do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, distributed

from laser.core.errors import LostProcessError
from laser.parallel.memory import is_out_of_memory

T = TypeVar("T")

_all_gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor  # torch 2.13's name
_NOTHING = 2**62  # requested by a process that needs no layer


class Spread(Protocol):
    """A tensor of bytes, sharded over the processes.

    Attributes:
        share: This process's bytes; all shares have the same size.
    """

    share: Tensor

    def rest(self) -> None:
        """Free gathered bytes that are still held."""
        ...


class Gathering:
    """A gathering in progress; the bytes are complete after `wait`."""

    def __init__(self, work: distributed.Work | None) -> None:
        self._work = work

    def wait(self) -> None:
        """Wait for the bytes. Raises LostProcessError if a process is lost."""
        work = self._work
        if work is not None:
            collective(work.wait)


class Meeting:
    """The rounds of one group of processes.

    Contract: all processes `join` the same tensors in the same order. From then on, a process calls `ask` whenever its
    work needs a tensor, and `serve` when its share is done. `serve` returns once all processes serve. A process whose
    work fails must call `serve` too, so that no other waits for it. A tensor may be dropped once unused.

    Args:
        group: The processes; None: all.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None) -> None:
        self._group = group
        self._spread: WeakValueDictionary[int, Spread] = WeakValueDictionary()  # a model may be released
        self._scratch: dict[torch.device, Tensor] = {}
        self._joined = 0
        self.rank = distributed.get_rank(group)
        self.size = distributed.get_world_size(group)

    def join(self, spread: Spread) -> int:
        """Let others gather a tensor; returns its number. Allocates the memory for gathering for others."""
        self._joined += 1
        self._spread[self._joined] = spread
        share, scratch = spread.share, self._scratch.get(spread.share.device)
        if scratch is None or len(scratch) < len(share) * self.size:
            self._scratch[share.device] = share.new_empty(len(share) * self.size)
        return self._joined

    def send(self, tensor: Tensor) -> None:
        """Fill a tensor on all processes from the group's first process; outside of the rounds."""
        source = distributed.get_global_rank(self._group, 0) if self._group is not None else 0
        collective(lambda: distributed.broadcast(tensor, src=source, group=self._group))

    def ask(self, number: int, whole: Tensor) -> Gathering:
        """Gather a tensor.

        Args:
            number: From `join`.
            whole: Receives the bytes, `size` times those of a share.

        Raises:
            LostProcessError: Another process is lost.
        """
        while True:
            lowest = self._lowest(number)
            if lowest == number:
                return self._gather(whole, self._spread[number].share)
            self._gather_for_others(lowest)

    def serve(self) -> None:
        """Take part in the gatherings of others until no process works any more; then free what is still held.

        Raises:
            LostProcessError: Another process is lost.
        """
        if self._joined == 0:
            return
        while (lowest := self._lowest(_NOTHING)) != _NOTHING:
            self._gather_for_others(lowest)
        for spread in list(self._spread.values()):
            spread.rest()

    def _lowest(self, number: int) -> int:
        """The lowest number that any process requests. Exchanged in CPU memory, which does not wait for computation."""
        asked = torch.tensor([number])
        collective(lambda: distributed.all_reduce(asked, distributed.ReduceOp.MIN, self._group))
        return int(asked)

    def _gather(self, whole: Tensor, share: Tensor) -> Gathering:
        return Gathering(collective(lambda: _all_gather(whole, share, self._group, async_op=True)))

    def _gather_for_others(self, number: int) -> None:
        share = self._spread[number].share
        self._gather(self._scratch[share.device][: len(share) * self.size], share).wait()


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
        reason = re.sub(r"^\[\S*\] ", "", str(error).strip().splitlines()[0]).partition(". ")[0]  # no source line
        raise LostProcessError(f"another process of the run is gone ({reason}); resume the run") from error

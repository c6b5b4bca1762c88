"""Where processes gather weights that they hold between them, each at its own place in its own work.

A layer's weights can only be gathered by all processes together, but processes have shares of different length: other
prompts, longer responses, more micro-batches. So they meet in rounds. A process that needs a layer asks for it; one
that has done its share serves. A round gathers the lowest layer that somebody asks for; whoever asked for it goes on,
the others throw it away and meet again. Nobody needs to know what the others are doing.
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
_NOBODY = 2**62  # asked for by a process that needs nothing


class Spread(Protocol):
    """A tensor of bytes that processes hold between them.

    Attributes:
        share: This process's bytes, as many as every other's.
    """

    share: Tensor

    def rest(self) -> None:
        """Let go of gathered bytes, whichever are still here."""
        ...


class Gathering:
    """A gathering under way; the bytes are there after `wait`."""

    def __init__(self, work: distributed.Work | None) -> None:
        self._work = work

    def wait(self) -> None:
        """Wait for it. Raises LostProcessError if a process is gone."""
        work = self._work
        if work is not None:
            collective(work.wait)


class Meeting:
    """The rounds of one group of processes.

    Contract: all processes `join` the same tensors in the same order. From then on a process that works calls `ask`
    whenever it needs one, and `serve` when its share is done; every process of the group is always in one of the two
    or on its way there. `serve` returns once all serve. A process that fails in its work goes on to `serve` like any
    other, so that nobody waits for it. A tensor that nobody asks for any more may be dropped at any time.

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
        """Let others gather a tensor; returns its number. What a gathering for others takes is set aside now."""
        self._joined += 1
        self._spread[self._joined] = spread
        share, scratch = spread.share, self._scratch.get(spread.share.device)
        if scratch is None or len(scratch) < len(share) * self.size:
            self._scratch[share.device] = share.new_empty(len(share) * self.size)
        return self._joined

    def send(self, tensor: Tensor) -> None:
        """Fill a tensor on all processes with that of the group's first; outside of the rounds."""
        source = distributed.get_global_rank(self._group, 0) if self._group is not None else 0
        collective(lambda: distributed.broadcast(tensor, src=source, group=self._group))

    def ask(self, number: int, whole: Tensor) -> Gathering:
        """Gather a tensor.

        Args:
            number: From `join`.
            whole: Where the bytes go, `size` times as many as in a share.

        Raises:
            LostProcessError: Another process is gone.
        """
        while True:
            lowest = self._lowest(number)
            if lowest == number:
                return self._gather(whole, self._spread[number].share)
            self._gather_for_others(lowest)

    def serve(self) -> None:
        """Take part in what others gather until nobody works any more; then let go of what is still here.

        Raises:
            LostProcessError: Another process is gone.
        """
        if self._joined == 0:
            return
        while (lowest := self._lowest(_NOBODY)) != _NOBODY:
            self._gather_for_others(lowest)
        for spread in list(self._spread.values()):
            spread.rest()

    def _lowest(self, number: int) -> int:
        """The lowest number that somebody asks for. Through CPU memory, where it waits for no computation."""
        asked = torch.tensor([number])
        collective(lambda: distributed.all_reduce(asked, distributed.ReduceOp.MIN, self._group))
        return int(asked)

    def _gather(self, whole: Tensor, share: Tensor) -> Gathering:
        return Gathering(collective(lambda: _all_gather(whole, share, self._group, async_op=True)))

    def _gather_for_others(self, number: int) -> None:
        share = self._spread[number].share
        self._gather(self._scratch[share.device][: len(share) * self.size], share).wait()


def collective(call: Callable[[], T]) -> T:
    """Do something together with other processes.

    Raises:
        LostProcessError: One of them is gone.
    """
    try:
        return call()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = re.sub(r"^\[\S*\] ", "", str(error).strip().splitlines()[0]).partition(". ")[0]  # no source line
        raise LostProcessError(f"another process of the run is gone ({reason}); resume the run") from error

"""The processes of one run: alone, or several under ``torchrun`` or ``accelerate launch``.

Every process holds a replica of the whole state and walks through the same loop. What costs time (sampling, scoring,
forward and backward passes) is done for a share of the prompts and gathered, so that afterwards all hold the same
again; the selection is the main process's. A result does not depend on the number of processes beyond rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

from laser.core.errors import LaserError, LostProcessError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor

    from laser.parallel.meeting import Meeting

T = TypeVar("T")

_PATIENCE = timedelta(hours=2)  # a share may wait that long for the slowest one's


class Ranks(Protocol):
    """What the processes of a run say to each other.

    Attributes:
        rank: Number of this process, 0 for the main one.
        size: Number of processes.
        meeting: Where processes gather weights that they hold between them; None for a run of one process.
    """

    rank: int
    size: int
    meeting: Meeting | None

    def together(self, work: Callable[[slice], Sequence[T]], count: int) -> list[T]:
        """Do `count` pieces of work, each process its share, and give everyone all results in order.

        Args:
            work: Does the pieces of a slice and returns one result each.
            count: Number of pieces.

        Raises:
            LaserError: Some process's work raised it; all processes raise it.
        """
        ...

    def broadcast(self, value: T) -> T:
        """The main process's value."""
        ...

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over processes, in place."""
        ...


class Alone:
    """A run of one process."""

    rank = 0
    size = 1
    meeting: Meeting | None = None

    def together(self, work: Callable[[slice], Sequence[T]], count: int) -> list[T]:
        """Do it all."""
        return list(work(slice(0, count)))

    def broadcast(self, value: T) -> T:
        """The value."""
        return value

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to add."""


class ProcessGroup:
    """A run of several processes, through torch.distributed; NCCL between GPUs, Gloo otherwise."""

    def __init__(self) -> None:
        import torch
        from torch import distributed

        from laser.parallel.meeting import Meeting, collective

        cuda = torch.cuda.is_available()
        if cuda:
            wanted, there = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
            if wanted > there:
                raise TrainingError(
                    f"{wanted} processes on this machine share {there} GPUs; start as many as there are GPUs, or set "
                    "CUDA_VISIBLE_DEVICES to nothing and policy.device = 'cpu'"
                )
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_PATIENCE)
        self._distributed = distributed
        self._collective = collective
        self.meeting: Meeting | None = Meeting()
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()

    def together(self, work: Callable[[slice], Sequence[T]], count: int) -> list[T]:
        """Each process does a contiguous share."""
        begin, end = count * self.rank // self.size, count * (self.rank + 1) // self.size
        mine: tuple[list[T], LaserError | None]
        try:
            mine = (list(work(slice(begin, end))) if end > begin else [], None)
        except LaserError as error:
            mine = ([], error)
        if self.meeting is not None:
            self.meeting.serve()
        everyone: list[tuple[list[T], LaserError | None]] = [mine] * self.size
        self._collective(lambda: self._distributed.all_gather_object(everyone, mine))
        for _, raised in everyone:
            if raised is not None:
                raise raised
        return [result for results, _ in everyone for result in results]

    def broadcast(self, value: T) -> T:
        """Sent by process 0."""
        values = [value]
        self._collective(lambda: self._distributed.broadcast_object_list(values, src=0))
        return values[0]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """One collective for all tensors of a kind."""
        import torch

        kinds = {(tensor.dtype, tensor.device) for tensor in tensors}
        for dtype, device in sorted(kinds, key=str):
            alike = [tensor for tensor in tensors if (tensor.dtype, tensor.device) == (dtype, device)]
            flat = torch.cat([tensor.flatten() for tensor in alike])
            self._collective(lambda flat=flat: self._distributed.all_reduce(flat))  # type: ignore[misc]
            end = 0
            for tensor in alike:
                begin, end = end, end + tensor.numel()
                tensor.copy_(flat[begin:end].view_as(tensor))

    def leave(self) -> None:
        """Hang up; the others can say nothing to this process any more."""
        self._distributed.destroy_process_group()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that a launcher started, or stay alone; leave them when the block ends.

    All leave together: a process that hangs up while another still talks to it aborts that one. After an error nobody
    waits, and where a process is gone nobody hangs up, which NCCL would not come back from.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Alone()
        return
    ranks = ProcessGroup()
    try:
        yield ranks
        ranks.together(lambda _: [], 0)  # wait for all
    except LostProcessError:
        raise
    except LaserError:
        ranks.leave()
        raise
    ranks.leave()


def is_main() -> bool:
    """Whether this process is the one that talks; known before joining."""
    return int(os.environ.get("RANK", "0")) == 0


def tells(error: LaserError) -> bool:
    """Whether this process tells the user of an error: the main one; of a lost process, which it may be, the second."""
    return is_main() or (isinstance(error, LostProcessError) and os.environ.get("RANK") == "1")

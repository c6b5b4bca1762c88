"""The processes of one run: alone, or several under ``torchrun`` or ``accelerate launch``.

Every process holds a replica of the whole state and runs the same loop. Each does the slow work (sampling, scoring,
forward and backward passes) for its share of the prompts. The results are gathered, so that all processes hold the
same state again. The main process selects. Results depend on the number of processes only by rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from laser.core.errors import LaserError, LostProcessError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor

    from laser.parallel.passes import Passes

T = TypeVar("T")


class Ranks(Protocol):
    """Communication between the processes of a run.

    Attributes:
        rank: Number of this process, 0 for the main one.
        size: Number of processes.
        passes: How processes go through sharded models together; None for a run of one process.
    """

    rank: int
    size: int
    passes: Passes | None

    def together(self, work: Callable[[slice], Sequence[T]], count: int) -> list[T]:
        """Do `count` pieces of work, each process its share, and return all results in order, on every process.

        `laser.parallel.messages` lists what results may be.

        Args:
            work: Does the pieces of a slice; returns one result per piece.
            count: Number of pieces.

        Raises:
            LaserError: The work of some process raised it; all processes raise it.
        """

    def broadcast(self, value: T) -> T:
        """The main process's value."""

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over processes, in place."""


class Alone:
    """A run of one process."""

    rank = 0
    size = 1
    passes: Passes | None = None

    def together(self, work: Callable[[slice], Sequence[T]], count: int) -> list[T]:
        """Do all of the work."""
        return list(work(slice(0, count)))

    def broadcast(self, value: T) -> T:
        """The given value."""
        return value

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Do nothing."""


class ProcessGroup:
    """A run of several processes, through torch.distributed: NCCL between GPUs, Gloo otherwise."""

    def __init__(self) -> None:
        import torch
        from torch import distributed

        from laser.parallel import messages
        from laser.parallel.passes import Passes, collective, is_communication, longest_wait, lost

        cuda = torch.cuda.is_available()
        if cuda:
            wanted, there = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
            if wanted > there:
                raise TrainingError(
                    f"{wanted} processes on this machine share {there} GPUs; start one process per GPU, or set "
                    "CUDA_VISIBLE_DEVICES to nothing and policy.device = 'cpu'"
                )
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=longest_wait())
        self._distributed = distributed
        self._messages = messages
        self._collective = collective
        self._is_communication, self._lost = is_communication, lost
        self._group: Any = None  # the default group
        self.passes: Passes | None = Passes()
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()

    def together(self, work: Callable[[slice], Sequence[T]], count: int) -> list[T]:
        """Do a contiguous share of the work; see `Ranks.together`."""
        begin, end = count * self.rank // self.size, count * (self.rank + 1) // self.size
        mine: tuple[list[T], LaserError | None]
        try:
            mine = (list(work(slice(begin, end))) if end > begin else [], None)
        except LaserError as error:
            mine = ([], error)
        except RuntimeError as error:
            if not self._is_communication(error):
                raise
            raise self._lost(error) from error
        if self.passes is not None:
            self.passes.serve()
        everyone = [self._messages.decode(data) for data in self._gather(self._messages.encode(mine))]
        for _, raised in everyone:
            if raised is not None:
                raise raised
        return [result for results, _ in everyone for result in results]

    def broadcast(self, value: T) -> T:
        """The value of process 0."""
        sent: T = self._messages.decode(self._gather(self._messages.encode(value) if self.rank == 0 else b"")[0])
        return sent

    def _gather(self, data: bytes) -> list[bytes]:
        """The bytes of all processes, in their order; through CPU memory."""
        import torch

        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        self._collective(lambda: self._distributed.all_gather(lengths, torch.tensor([len(data)]), self._group))
        longest = max(1, *(int(length) for length in lengths))
        mine = torch.zeros(longest, dtype=torch.uint8)
        mine[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else mine[:0]
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        self._collective(lambda: self._distributed.all_gather(gathered, mine, self._group))
        return [bytes(row[: int(length)].numpy()) for row, length in zip(gathered, lengths, strict=True)]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Sum with one collective for all tensors of the same type and device."""
        import torch

        kinds = {(tensor.dtype, tensor.device) for tensor in tensors}
        for dtype, device in sorted(kinds, key=str):
            alike = [tensor for tensor in tensors if (tensor.dtype, tensor.device) == (dtype, device)]
            flat = torch.cat([tensor.flatten() for tensor in alike])
            self._collective(lambda flat=flat: self._distributed.all_reduce(flat, group=self._group))  # type: ignore[misc]
            end = 0
            for tensor in alike:
                begin, end = end, end + tensor.numel()
                tensor.copy_(flat[begin:end].view_as(tensor))

    def leave(self) -> None:
        """Leave the process group; the other processes can no longer reach this one."""
        self._distributed.destroy_process_group()


class SharedGroup(ProcessGroup):
    """The processes of a run that another library has started, through a Gloo group next to that library's own.

    All processes make it at the same point of their programs. Weights cannot be sharded over it.
    """

    def __init__(self) -> None:
        from torch import distributed

        from laser.parallel import messages
        from laser.parallel.passes import collective, is_communication, longest_wait, lost

        self._distributed, self._messages, self._collective = distributed, messages, collective
        self._is_communication, self._lost = is_communication, lost
        self._group = distributed.new_group(backend="gloo", timeout=longest_wait())
        self.passes = None
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()


def shared() -> Ranks:
    """The processes that another library has started, or this one alone."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        return SharedGroup()
    return Alone()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that a launcher started, if any; leave them when the block ends.

    All leave together, because leaving aborts a process that still communicates. After an error no process waits. When
    a process is lost, none leaves the group, because NCCL would hang.
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
    """Whether this is the main process, which does the printing; known before joining."""
    return int(os.environ.get("RANK", "0")) == 0


def tells(error: LaserError) -> bool:
    """Whether this process reports an error: the main one, or, since it may be the one that is lost, the second."""
    return is_main() or (isinstance(error, LostProcessError) and os.environ.get("RANK") == "1")

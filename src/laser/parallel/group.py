"""Several processes of a run that communicate through torch.distributed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.rendezvous import rendezvous

from laser.core.errors import LaserError, TrainingError
from laser.parallel import messages
from laser.parallel.passes import Passes, collective, is_communication, longest_wait, lost

T = TypeVar("T")

_MAIN_MEETS_IT = timedelta(seconds=5)  # after which an error is of this process alone


class ProcessGroup:
    """A run of several processes, through torch.distributed: NCCL between GPUs, Gloo otherwise."""

    def __init__(self) -> None:
        cuda = torch.cuda.is_available()
        if cuda:
            wanted, there = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
            if wanted > there:
                raise TrainingError(
                    f"{wanted} processes on this machine share {there} GPUs; start one process per GPU, or set "
                    "CUDA_VISIBLE_DEVICES to nothing and policy.device = 'cpu'"
                )
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        self._store, rank, size = next(rendezvous("env://", timeout=longest_wait()))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=self._store,
            rank=rank,
            world_size=size,
            timeout=longest_wait(),
        )
        self._group: distributed.ProcessGroup | None = None  # the default one
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
            if not is_communication(error):
                raise
            raise lost(error) from error
        if self.passes is not None:
            self.passes.serve()
        everyone = [messages.decode(data) for data in self._gather(messages.encode(mine))]
        for _, raised in everyone:
            if raised is not None:
                raised.reported = self.rank > 0
                raise raised
        return [result for results, _ in everyone for result in results]

    def broadcast(self, value: T) -> T:
        """The value of process 0."""
        sent: T = messages.decode(self._gather(messages.encode(value) if self.rank == 0 else b"")[0])
        return sent

    def _gather(self, data: bytes) -> list[bytes]:
        """The bytes of all processes, in their order; through CPU memory."""
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        collective(lambda: distributed.all_gather(lengths, torch.tensor([len(data)]), self._group))
        longest = max(1, *(int(length) for length in lengths))
        mine = torch.zeros(longest, dtype=torch.uint8)
        mine[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else mine[:0]
        gathered = [torch.empty_like(mine) for _ in range(self.size)]
        collective(lambda: distributed.all_gather(gathered, mine, self._group))
        return [bytes(row[: int(length)].numpy()) for row, length in zip(gathered, lengths, strict=True)]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Sum with one collective for all tensors of the same type and device."""
        kinds = {(tensor.dtype, tensor.device) for tensor in tensors}
        for dtype, device in sorted(kinds, key=str):
            alike = [tensor for tensor in tensors if (tensor.dtype, tensor.device) == (dtype, device)]
            flat = torch.cat([tensor.flatten() for tensor in alike])
            collective(lambda flat=flat: distributed.all_reduce(flat, group=self._group))  # type: ignore[misc]
            end = 0
            for tensor in alike:
                begin, end = end, end + tensor.numel()
                tensor.copy_(flat[begin:end].view_as(tensor))

    def is_reported(self, error: LaserError) -> bool:
        """Whether another process reports this error: the main one if it meets the same, else the first that does."""
        key = f"error/{hashlib.sha256(str(error).encode()).hexdigest()}"
        with suppress(RuntimeError):  # the process that has the store may be gone
            if self.rank == 0:
                self._store.set(key, "")
                return False
            with suppress(distributed.DistStoreError):  # the time is up
                self._store.wait([key], _MAIN_MEETS_IT)
                return True
            return bool(self._store.add(f"{key}/others", 1) > 1)
        return False

    def leave(self) -> None:
        """Leave the process group; the other processes can no longer reach this one."""
        distributed.destroy_process_group()


class SharedGroup(ProcessGroup):
    """The processes of a run that another library has started, through a Gloo group next to that library's own.

    All processes make it at the same point of their programs. Weights cannot be sharded over it.
    """

    def __init__(self) -> None:
        self._group = distributed.new_group(backend="gloo", timeout=longest_wait())
        self.passes = None
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()

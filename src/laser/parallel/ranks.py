"""The processes of one run: alone, or several under ``torchrun`` or ``accelerate launch``.

Every process holds a replica of the whole state and runs the same loop. Each does the slow work (sampling, scoring,
forward and backward passes) for its share of the prompts. The results are gathered, so that all processes hold the
same state again. The main process selects. Results depend on the number of processes only by rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

from laser.core.errors import LaserError, LostProcessError

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


def shared() -> Ranks:
    """The processes that another library has started, or this one alone."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        from laser.parallel.group import SharedGroup

        return SharedGroup()
    return Alone()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that a launcher started, if any; leave them when the block ends.

    All leave together, because leaving aborts a process that still communicates. The last exchange itself may lose a
    process that has left right after it, whose work is done like that of all. After an error no process waits. When a
    process is lost, none leaves the group, because NCCL would hang.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Alone()
        return
    from laser.parallel.group import ProcessGroup

    ranks = ProcessGroup()
    try:
        yield ranks
    except LostProcessError:
        raise
    except LaserError as error:
        if error.reported is None:
            error.reported = ranks.is_reported(error)
        ranks.leave()
        raise
    with suppress(LostProcessError):
        ranks.together(lambda _: [], 0)  # wait for all
        ranks.leave()


def is_main() -> bool:
    """Whether this is the main process, which does the printing; known before joining."""
    return int(os.environ.get("RANK", "0")) == 0


def tells(error: LaserError) -> bool:
    """Whether this process reports an error.

    Of a lost process, which may be the main one, two report. Of an error before the processes meet, each machine's
    first reports, because the cause may be a file that is missing there.
    """
    if isinstance(error, LostProcessError):
        return is_main() or os.environ.get("RANK") == "1"
    if error.reported is None:
        return os.environ.get("LOCAL_RANK", "0") == "0"
    return not error.reported

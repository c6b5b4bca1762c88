"""Running out of memory in a forward pass: half the tokens at once, from then on, or a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from laser.core.errors import LaserError

T = TypeVar("T")

_MARKS = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "MPS backend out of memory")
"""What a RuntimeError says where memory ran out and no `torch.OutOfMemoryError` is raised: on a CPU, in a library."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or this machine, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _MARKS)


def let_go() -> None:
    """Give back to the device what torch holds of it and does not use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Budget:
    """Tokens that go through a model at once; halved where memory runs out, and it stays so.

    Args:
        tokens: At first.
        failure: What is raised where the least is still too much: one sentence, with the cure.

    Attributes:
        tokens: As many as memory sufficed for so far.
    """

    def __init__(self, tokens: int, failure: LaserError) -> None:
        self.tokens = tokens
        self._failure = failure

    def spend(self, work: Callable[[int], T], *, least: int) -> T:
        """Do work within the budget, again within half of it while memory does not suffice.

        Args:
            work: Told how many tokens may go at once; repeats nothing that it may not repeat.
            least: Tokens of the longest piece, which cannot be divided: where it has to go through alone, smaller
                groups of shorter ones help no more.

        Raises:
            LaserError: Memory does not suffice for the longest piece alone.
        """
        while True:
            try:
                return work(self.tokens)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.tokens <= least:
                    raise type(self._failure)(*self._failure.args) from error
            self.tokens = max(least, self.tokens // 2)
            let_go()  # here, where the error no longer holds what the work had computed

"""Handle running out of memory: half the tokens at a time from then on, or an error with the cure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from laser.core.errors import LaserError

T = TypeVar("T")

_MARKS = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "MPS backend out of memory")
"""Marks of a RuntimeError that means out of memory; on a CPU or in a library torch raises no `OutOfMemoryError`."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device or this machine is out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _MARKS)


def free_unused() -> None:
    """Return unused memory that torch has reserved to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Budget:
    """Tokens that go through a model at once; halved, for good, when memory runs out.

    Args:
        tokens: The first budget.
        failure: The error to raise when even the longest piece alone is too large.

    Attributes:
        tokens: The budget that has fit into memory so far.
    """

    def __init__(self, tokens: int, failure: LaserError) -> None:
        self.tokens = tokens
        self._failure = failure

    def spend(self, work: Callable[[int], T], *, least: int) -> T:
        """Do work within the budget; when memory runs out, repeat it within half the budget.

        Args:
            work: Called with the number of tokens that may go through at once. It must be safe to repeat.
            least: Tokens of the longest piece, which cannot be divided. Below it, smaller groups of shorter pieces
                do not help.

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
            free_unused()  # here, where the error no longer holds what the work had computed

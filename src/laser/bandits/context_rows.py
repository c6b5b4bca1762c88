"""The contexts an arm has seen: the matrix V of the dual form, exact, in as few bytes as that allows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from laser.core.types import FloatArray

_COMPACT_BYTES = 4 * 2**20  # below this size in float64 an arm is too small for its bytes to matter
_BLOCK_BYTES = 2**20  # rows converted at a time: what stays in the second-level cache


class ContextRows:
    """A growing matrix of float64 contexts.

    Hidden states come from at most float32 arithmetic, so that a large V is kept as float32 without loss and
    converted block by block where it is used. All arithmetic is float64. Half the bytes cost time, about 1.3 times at
    500 rows of 4096 features and 2 times at 50, so a small V stays float64, and so does one with any row that float32
    cannot hold.

    Args:
        dim: D, features of a context.
    """

    def __init__(self, dim: int) -> None:
        self._rows: np.ndarray = np.empty((0, dim))
        self._count = 0
        self._is_single = True  # every row so far is exactly representable in float32
        self._block = np.empty((0, dim))

    def __len__(self) -> int:
        return self._count

    @property
    def num_bytes(self) -> int:
        """Bytes allocated, room for growth included."""
        return self._rows.nbytes + self._block.nbytes

    def extend(self, rows: np.ndarray) -> None:
        """Append rows of shape (N, D), float64 or float32."""
        self._is_single = self._is_single and _is_single(rows)
        end = self._count + len(rows)
        self._reserve(end)
        self._rows[self._count : end] = rows
        self._count = end

    def times(self, context: FloatArray) -> FloatArray:
        """V c, shape (N,)."""
        if self._rows.dtype == np.float64:
            product: FloatArray = self._rows[: self._count] @ context
            return product
        product = np.empty(self._count)
        for begin, end in self._blocks():
            product[begin:end] = self._block[: end - begin] @ context
        return product

    def transposed_times(self, coefficients: FloatArray) -> FloatArray:
        """V' a, shape (D,)."""
        if self._rows.dtype == np.float64:
            product: FloatArray = coefficients @ self._rows[: self._count]
            return product
        product = np.zeros(self._rows.shape[1])
        for begin, end in self._blocks():
            product += coefficients[begin:end] @ self._block[: end - begin]
        return product

    def to_array(self) -> np.ndarray:
        """A copy of V, shape (N, D): float32 where that loses nothing, else float64."""
        return self._rows[: self._count].astype(np.float32 if self._is_single else np.float64)

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Put one block of rows after the other into `_block` and yield its range."""
        for begin in range(0, self._count, len(self._block)):
            end = min(begin + len(self._block), self._count)
            self._block[: end - begin] = self._rows[begin:end]
            yield begin, end

    def _reserve(self, count: int) -> None:
        """Make room by quarters: doubling would leave up to half of the memory unused."""
        dim = self._rows.shape[1]
        compact = self._is_single and 8 * count * dim >= _COMPACT_BYTES
        dtype = np.dtype(np.float32 if compact else np.float64)
        if count <= len(self._rows) and dtype == self._rows.dtype:
            return
        larger = np.empty((grown_capacity(count), dim), dtype)
        larger[: self._count] = self._rows[: self._count]
        self._rows = larger
        self._block = np.empty((max(1, _BLOCK_BYTES // (8 * dim)) if compact else 0, dim))


def grown_capacity(count: int) -> int:
    """Rows to allocate when `count` are needed: a quarter more, so that copying stays linear in all."""
    return count + max(8, count // 4)


def _is_single(rows: np.ndarray) -> bool:
    if rows.dtype == np.float32:
        return True
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and so unequal
        return np.array_equal(rows.astype(np.float32), rows)

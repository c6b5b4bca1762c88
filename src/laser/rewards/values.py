"""Scores that come from outside, as numbers; anything that is not a number is refused."""

from __future__ import annotations

import math
import numbers
import operator
import reprlib
from collections.abc import Iterable, Mapping, Sequence, Set
from decimal import Decimal
from typing import Any

import numpy as np
import torch

from laser.core.errors import RewardModelError
from laser.core.types import FloatArray


def as_list(returned: Any, subject: str) -> list[Any]:
    """The elements of what should be a list of scores; a generator runs here.

    Raises:
        RewardModelError: It is a single value, a text, a mapping, a set, or a table.
    """
    if isinstance(returned, torch.Tensor):
        returned = returned.detach()
    if getattr(returned, "ndim", 1) != 1:  # also of a data frame, whose elements are the names of its columns
        raise RewardModelError(
            f"{subject} returned an array of shape {tuple(returned.shape)}; return one score per response"
        )
    if isinstance(returned, torch.Tensor | np.ndarray):
        return list(returned.tolist())
    if isinstance(returned, str | bytes | bytearray | memoryview | Mapping | Set) or not isinstance(returned, Iterable):
        raise RewardModelError(f"{subject} returned {reprlib.repr(returned)}; return one score per response")
    return list(returned)


def as_number(value: Any, subject: str) -> float | None:
    """A score as a float, None for no opinion; booleans, numpy scalars and tensors of no dimension are numbers.

    Raises:
        RewardModelError: It is not a number.
    """
    if isinstance(value, torch.Tensor | np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    if value is None:
        return None
    if isinstance(value, numbers.Real | Decimal):
        try:
            return float(value)
        except OverflowError:  # an integer beyond the largest float
            return math.inf if operator.gt(value, 0) else -math.inf
    raise RewardModelError(
        f"{subject} returned {reprlib.repr(value)}, a {type(value).__name__}; return numbers, or None for no opinion"
    )


def split_rows(flat: Sequence[float | None], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
    """Scores in the order of the responses, split by prompt; None becomes NaN."""
    remaining = iter(flat)
    return [np.array([next(remaining) for _ in row], dtype=np.float64) for row in responses]


def as_scores(row: object) -> FloatArray:
    """Scores as a new array; None becomes NaN. Raises TypeError for text, also for text that looks like a number."""
    if isinstance(row, torch.Tensor):
        row = row.detach().double().cpu()
    array = np.array(row)
    words = array.dtype.kind == "O" and any(isinstance(value, str | bytes) for value in array.flat)
    if words or array.dtype.kind not in "fiubO":
        raise TypeError(f"an array of {array.dtype}")
    return array.astype(np.float64)

"""Families that the user wrote: a Python function that loads a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor

from laser.core.errors import LaserError, RewardModelError
from laser.rewards.families.base import Checkpoint, FamilyModel, Outputs, Row
from laser.rewards.function import load_function


class CustomFamily:
    """Holds a user's model to the contract and tells what it raises with its name.

    Args:
        inner: What the user's function returned.
        factory: ``path.py:function``.

    Raises:
        RewardModelError: It lacks a part of the contract.
    """

    def __init__(self, inner: FamilyModel, factory: str) -> None:
        missing = [name for name in ("modules", "window", "scores") if not hasattr(inner, name)]
        if missing:
            raise RewardModelError(f"{factory} returned a {type(inner).__name__} without {', '.join(missing)}")
        if not any(True for module in inner.modules for _ in module.parameters()):
            raise RewardModelError(f"{factory} returned modules without weights; use type = 'python' for such a model")
        self.modules = inner.modules
        self.window = inner.window
        self._inner = inner
        self._factory = factory

    def scores(self, rows: Sequence[Row]) -> Tensor:
        """Scores of rows, shape (R,). Raises RewardModelError if the user's model raises or gives another shape."""
        scores = _call(self._factory, self._inner.scores, rows)
        if not isinstance(scores, Tensor) or scores.shape != (len(rows),):
            shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise RewardModelError(f"{self._factory} scored {len(rows)} rows with {shape}; return one number each")
        return scores


def load_custom(factory: str, checkpoint: Checkpoint, outputs: Outputs | None) -> FamilyModel:
    """Call ``function(checkpoint, outputs)``. Raises RewardModelError if it cannot, or returns something else."""
    return CustomFamily(_call(factory, cast(Any, load_function(factory)), checkpoint, outputs), factory)


def _call(factory: str, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except LaserError:
        raise
    except Exception as error:  # the code is the user's: whatever it raises is told with its name
        raise RewardModelError(f"{factory} raised {type(error).__name__}: {error}") from error

"""Families that the user wrote: a Python function that loads a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from laser.core.errors import RewardModelError
from laser.rewards.families.base import Checkpoint, FamilyModel, Outputs, Row
from laser.rewards.user_code import UserCode
from laser.rewards.user_files import folder_of, load_function


class CustomFamily:
    """Checks a user's model against the contract; whatever it raises becomes an error that names it.

    Args:
        inner: What the user's function returned.
        factory: ``path.py:function``.
        code: Calls the model.

    Raises:
        RewardModelError: It lacks a part of the contract.
    """

    def __init__(self, inner: FamilyModel, factory: str, code: UserCode) -> None:
        missing = [name for name in ("modules", "window", "scores") if not hasattr(inner, name)]
        if missing:
            raise RewardModelError(f"{factory} returned a {type(inner).__name__} without {', '.join(missing)}; add it")
        if not any(True for module in inner.modules for _ in module.parameters()):
            raise RewardModelError(f"{factory} returned modules without weights; use type = 'python' for such a model")
        self.modules = inner.modules
        self.window = inner.window
        self._inner = inner
        self._factory = factory
        self._code = code

    def scores(self, rows: Sequence[Row]) -> Tensor:
        """Scores of rows, shape (R,). Raises RewardModelError if the user's model raises or gives another shape."""
        scores = self._code.call(lambda: self._inner.scores(rows))
        if not isinstance(scores, Tensor) or scores.shape != (len(rows),):
            shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise RewardModelError(f"{self._factory} scored {len(rows)} rows with {shape}; return one number each")
        return scores


def load_custom(factory: str, checkpoint: Checkpoint, outputs: Outputs | None) -> FamilyModel:
    """Call ``function(checkpoint, outputs)``. Raises RewardModelError if it cannot, or returns something else."""
    function, code = load_function(factory), UserCode(factory, folder=folder_of(factory))
    return CustomFamily(code.call(lambda: function(checkpoint, outputs)), factory, code)

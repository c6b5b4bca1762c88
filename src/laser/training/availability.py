"""Which reward models can be chosen, and what to say where none can."""

from __future__ import annotations

from laser.core.errors import TrainingError
from laser.core.types import BoolArray
from laser.rewards.pool import RewardPool


def available(pool: RewardPool, cure: str) -> BoolArray:
    """False for reward models in quarantine, shape (K,).

    Raises:
        TrainingError: All of them are.
    """
    available_K = pool.available_K
    if not available_K.any():
        raise TrainingError(f"no reward model is left to choose ({pool.quarantine.reasons()}); {cure}")
    return available_K


def cannot_choose(error: ValueError, pool: RewardPool, cure: str) -> TrainingError:
    """The error for a selector that refuses the reward models that are left."""
    reasons = pool.quarantine.reasons()
    return TrainingError(
        f"the selector cannot choose among the reward models that are left: {error} ({reasons}); {cure}"
    )

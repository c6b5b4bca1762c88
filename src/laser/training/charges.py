"""Which pairs earn each charged reward model its bandit reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laser.core.types import FloatArray, IntArray, Pair, Selection
from laser.training.pairs import Candidates, orient_pairs


@dataclass(frozen=True, slots=True)
class Charge:
    """One entry of `Selection.charged_E`, with the pairs whose loss becomes its bandit reward.

    Attributes:
        arm: The reward model.
        prompts: Rows of the prompts it was chosen for: one of them, or the whole batch.
        pairs: The pairs of those prompts as this reward model orients them.
        trained: Whether the policy trains on these pairs. It does where the reward model was chosen alone; a member of
            an ensemble orients the pairs its own way.
    """

    arm: int
    prompts: tuple[int, ...]
    pairs: tuple[Pair, ...]
    trained: bool


def make_charges(
    selection: Selection, candidates: Candidates, scores_BKN: Sequence[FloatArray], trained: Sequence[Pair]
) -> list[Charge]:
    """List one charge per entry of `Selection.charged_E`.

    Args:
        selection: The selection.
        candidates: The pairs drawn, not oriented.
        scores_BKN: For each prompt, raw scores of shape (K, N).
        trained: The pairs that the policy trains on.
    """
    num_prompts = len(scores_BKN)
    charges = []
    for row, arm in selection.charged_E:
        prompts = tuple(range(num_prompts)) if len(selection.weights_MK) == 1 else (row,)
        alone = bool(selection.weights_MK[row, arm] == 1.0)
        pairs = trained if alone else orient_pairs(candidates, [scores_KN[arm] for scores_KN in scores_BKN]).pairs
        charges.append(Charge(arm, prompts, tuple(pair for pair in pairs if pair.prompt in prompts), alone))
    return charges


def arms_of(charges: Sequence[Charge]) -> IntArray:
    """The arm of each charge, shape (E,)."""
    return np.array([charge.arm for charge in charges], dtype=np.int64)

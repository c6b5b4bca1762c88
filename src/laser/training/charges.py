"""What each chosen reward model is charged for: its pairs, and the loss they had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from laser.core.types import FloatArray, Pair, Responses, Selection
from laser.training.learner import Learner, LearnResult
from laser.training.pairs import Candidates, orient_pairs

BanditLoss = Literal["train", "post_update", "decrease"]


@dataclass(frozen=True, slots=True)
class Charge:
    """One entry of `Selection.charged_E`.

    Attributes:
        arm: The reward model.
        prompts: Prompts of the entry's row: one of them, or the whole batch.
        pairs: The pairs of those prompts as this reward model orients them.
        trained: Whether these are the pairs that were trained on, or only what the model would have said.
    """

    arm: int
    prompts: tuple[int, ...]
    pairs: tuple[Pair, ...]
    trained: bool


def make_charges(
    selection: Selection, candidates: Candidates, scores_BKN: Sequence[FloatArray], trained: Sequence[Pair]
) -> list[Charge]:
    """List what each charged reward model is answerable for.

    A model that was chosen alone answers for the pairs trained on; a member of an ensemble for the same pairs as it
    alone would have oriented them.
    """
    num_prompts = len(scores_BKN)
    charges = []
    for row, arm in selection.charged_E:
        prompts = tuple(range(num_prompts)) if len(selection.weights_MK) == 1 else (row,)
        alone = bool(selection.weights_MK[row, arm] == 1.0)
        pairs = trained if alone else orient_pairs(candidates, [scores_KN[arm] for scores_KN in scores_BKN]).pairs
        charges.append(Charge(arm, prompts, tuple(pair for pair in pairs if pair.prompt in prompts), alone))
    return charges


def learn_and_charge(
    learner: Learner,
    prompt_ids: list[list[int]],
    responses: Responses,
    trained: Sequence[Pair],
    charges: Sequence[Charge],
    bandit_loss: BanditLoss,
) -> tuple[LearnResult, FloatArray]:
    """Train on the pairs and measure the loss of every charge.

    Args:
        learner: Trains the policy.
        prompt_ids: Rendered prompts.
        responses: Responses of each prompt.
        trained: The pairs to train on.
        charges: What is charged to whom. Charges for pairs that are not trained on are measured before the update.
        bandit_loss: While training, after the update, or before minus after.

    Returns:
        What training gave, and one loss per charge, shape (E,), in nats; NaN where a charge has no pair.
    """
    if not all(charge.trained for charge in charges):
        losses_EB = learner.measure_each(prompt_ids, responses, [charge.pairs for charge in charges])
        learned = learner.learn(prompt_ids, responses, trained)
        means = [mean_over_pairs(row, charge.pairs) for row, charge in zip(losses_EB, charges, strict=True)]
        return learned, np.array(means)
    before_B = learner.measure(prompt_ids, responses, trained) if bandit_loss == "decrease" and charges else None
    learned = learner.learn(prompt_ids, responses, trained)
    losses_B = learned.losses_B
    if bandit_loss != "train" and charges:
        after_B = learner.measure(prompt_ids, responses, trained)
        losses_B = after_B if before_B is None else after_B - before_B
    return learned, np.array([mean_over_pairs(losses_B, charge.pairs) for charge in charges], dtype=np.float64)


def mean_over_pairs(losses_B: FloatArray, pairs: Sequence[Pair]) -> float:
    """Mean over pairs of the losses of their prompts; NaN without pairs."""
    return float(np.mean([losses_B[pair.prompt] for pair in pairs])) if pairs else float("nan")

"""From which score on a reward model's favorite is more likely right than wrong, learned from labeled responses.

A reward model orders two wrong responses as readily as a right and a wrong one, and a policy that trains on such a pair
learns a wrong answer. Where scores separate right from wrong across prompts, the score of the preferred response tells
these pairs apart; where they do not, every pair counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from laser.core.types import Batch, FloatArray, Pair, Selection
from laser.training.pairs import OrientedPairs

_LEAST = 0.75  # balanced accuracy from which a threshold counts; 0.5 is chance
_FEWEST = 4  # responses of each kind


def right_threshold(right_M: FloatArray, wrong_M: FloatArray) -> float:
    """Lowest score that counts as right, in the reward model's unit; -inf where scores do not separate.

    The midpoint between two scores with the highest balanced accuracy, the mean of the shares of right responses above
    it and of wrong ones below. Each share counts one success and one failure more than there are (Laplace), so a
    threshold needs more evidence where there are few responses; fewer than four of a kind never separate. A balanced
    accuracy does not depend on how many responses are right.

    Args:
        right_M: Scores of right responses to different prompts; NaN where there is none.
        wrong_M: The same of wrong responses.
    """
    right_M, wrong_M = (np.sort(scores[np.isfinite(scores)]) for scores in (right_M, wrong_M))
    scores_M = np.unique(np.concatenate([right_M, wrong_M]))
    if min(len(right_M), len(wrong_M)) < _FEWEST or len(scores_M) < 2:
        return -np.inf
    between_M = scores_M[:-1] + np.diff(scores_M) / 2
    above_M = len(right_M) - np.searchsorted(right_M, between_M)
    below_M = np.searchsorted(wrong_M, between_M)
    accuracy_M = ((above_M + 1) / (len(right_M) + 2) + (below_M + 1) / (len(wrong_M) + 2)) / 2
    best = int(accuracy_M.argmax())
    return float(between_M[best]) if accuracy_M[best] >= _LEAST else -np.inf


def thresholds_of(state: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The thresholds in the state of a probe, by category and reward model; none in the state of another signal."""
    known = state.get("thresholds", {})
    return {
        category: {name: -np.inf if score is None else float(score) for name, score in of.items()}
        for category, of in known.items()
    }


def drop_doubtful(
    batch: Batch, selection: Selection, oriented: OrientedPairs, threshold: Callable[[int, str], float]
) -> OrientedPairs:
    """Leave out pairs whose chosen response is likely wrong: a reward model that was chosen alone scores it too low.

    Args:
        batch: The prompts.
        selection: Who decided.
        oriented: Pairs of the batch.
        threshold: Lowest score that counts as right, by arm and category; -inf where none is known.
    """
    threshold = cache(threshold)

    def counts(pair: Pair) -> bool:
        row = selection.row_of(pair.prompt)
        arm = int(selection.arms_M[row])
        is_alone = selection.weights_MK[row, arm] == 1
        return not is_alone or pair.chosen_score >= threshold(arm, batch.prompts[pair.prompt].category)

    kept = tuple(filter(counts, oriented.pairs))
    return replace(oriented, pairs=kept, num_doubtful=len(oriented.pairs) - len(kept))

"""Quality of the scores of correct and incorrect responses, by the rules of RewardBench 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from laser.core.types import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Labeled:
    """Scores of a prompt's responses; NaN where there is none.

    Attributes:
        correct: Of the correct responses.
        incorrect: Of the incorrect ones.
    """

    correct: FloatArray
    incorrect: FloatArray

    @property
    def gaps(self) -> FloatArray:
        """Score of each correct response minus that of each incorrect one."""
        gaps: FloatArray = (self.correct[:, None] - self.incorrect[None, :]).ravel()
        return gaps


def share_of_best(scores: Labeled) -> float:
    """Share of the responses with the highest score that are correct, in [0, 1]; 0 where any response has no score.

    Of a pair that is 1, or 1/2 for a tie; of best-of-4 it is RewardBench 2's ``1 / number of best`` for its one
    correct response.

    Source: `reroll_and_score_dataset` of allenai/reward-bench; arXiv 2506.01937, Sec. 3.
    """
    together = np.concatenate([scores.correct, scores.incorrect])
    if np.isnan(together).any():
        return 0.0
    best = together.max()
    return float((scores.correct == best).sum() / (together == best).sum())


def all_above(scores: Labeled) -> bool:
    """Whether every correct response has a higher score than every incorrect one."""
    return bool((scores.gaps > 0).all())


def ties_score(references: Mapping[str, Labeled], tied: Mapping[str, Labeled]) -> float:
    """Score of RewardBench 2's subset Ties, up to 1.01.

    A tied prompt has several equally correct responses; its reference has one. 60% of the score is accuracy (every
    correct response above every incorrect one), 40% is how often the spread of the correct scores is smaller than their
    distance to the incorrect ones: of the tied prompt, and of it and its reference.

    Source: `process_single_model` of allenai/reward-bench. Deviation: a prompt with a response without a score counts
    as inaccurate and unseparated; there, every response has one.

    Args:
        references: By number of the prompt.
        tied: By number of the prompt.
    """
    both = sorted(references.keys() & tied.keys())
    spread = np.array([_spread(tied[one]) for one in both])
    apart = np.array([_distance(tied[one]) for one in both])
    nearest = np.minimum(apart, np.array([_distance(references[one]) for one in both]))
    with np.errstate(divide="ignore", invalid="ignore"):
        margins = np.nan_to_num(np.tanh(nearest / spread - 1), nan=0.0)
    return (
        0.30 * _mean(np.array([all_above(one) for one in tied.values()]))
        + 0.30 * _mean(np.array([all_above(one) for one in references.values()]))
        + 0.20 * _mean(apart > spread)
        + 0.20 * _mean(nearest > spread)
        + 0.01 * _mean(margins)
    )


def macro_f1(first_P: FloatArray, second_P: FloatArray) -> float:
    """Agreement of two reward models in [0, 1]: the mean F1 of both verdicts on pairs; NaN if they judge none.

    It is symmetric. Pairs that either of them ties are left out.

    Args:
        first_P: One reward model's score differences of the pairs; NaN where it has none.
        second_P: The other's.
    """
    both = np.nan_to_num(first_P * second_P) != 0
    if not both.any():
        return float("nan")
    first, second = first_P[both] > 0, second_P[both] > 0
    return 0.5 * (_f1(first, second) + _f1(~first, ~second))


def _f1(first: BoolArray, second: BoolArray) -> float:
    """1 where neither has the verdict at all: they agree on it."""
    total = int(first.sum() + second.sum())
    return 2.0 * int((first & second).sum()) / total if total else 1.0


def _spread(scores: Labeled) -> float:
    return float(scores.correct.max() - scores.correct.min())


def _distance(scores: Labeled) -> float:
    return float(scores.correct.min() - scores.incorrect.max())


def _mean(values: Sequence[float] | FloatArray | BoolArray) -> float:
    return float(np.mean(values)) if len(values) else 0.0

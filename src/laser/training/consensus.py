"""Labels without gold answers: an order of a prompt's answers in which reward models and the policy have a say.

Source: ours, chosen in a pilot with laboratory models (`benchmarks/consensus.py`, docs/log.md). What distinguishes an
expert is that its opinions are stronger where it knows than elsewhere. Dividing its scores by their spread over all
categories keeps that and removes the unit; dividing by the spread within a prompt would remove both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from laser.core.types import FloatArray
from laser.rewards.spreads import deviations, deviations_by_arm, spread

CONSISTENCY_WEIGHT = 2.0  # of the policy's own consistency, in votes of a reward model
_SMOOTHING = 0.3  # samples; keeps one answer more or less from counting fully where all are about as frequent
_TIE = 1e-9  # spreads; rounding differs with a reward model's unit and must not order answers
_PRIOR = 2  # answers of a category that say that length has no effect


@dataclass(frozen=True, slots=True)
class Answers:
    """A prompt's distinct answers.

    Attributes:
        category: Category of the prompt.
        scores_KN: Scores of K reward models; NaN where there is none.
        counts_N: How many of the policy's samples say the same as each; 0 for one that answers nothing, as long as
            another one does.
        lengths_N: Their lengths, in characters.
    """

    category: str
    scores_KN: FloatArray
    counts_N: FloatArray
    lengths_N: FloatArray


def consensus_orders(answers: Sequence[Answers]) -> list[FloatArray]:
    """Consensus value of each answer to each prompt: higher is better, and it has no unit.

    As `consensus`, with four changes, of which the first three need many prompts:

    * A reward model that contradicts the others has no say; see `voting_spreads`.
    * A vote counts by how strong the reward model's votes are in the category, compared with its votes everywhere.
    * What the length of an answer explains of a reward model's votes in a category does not count, so that neither a
      preference for long answers nor one for short ones decides.
    * A response that answers nothing is worse than all others, and what reward models say of it does not count.

    Args:
        answers: Answers to prompts of all categories.

    Returns:
        For each prompt, shape (N,).
    """
    counts = [one.counts_N for one in answers]
    answering = [one.counts_N > 0 if one.counts_N.any() else np.ones(len(one.counts_N), dtype=bool) for one in answers]
    scores = [np.where(is_answer_N, one.scores_KN, np.nan) for one, is_answer_N in zip(answers, answering, strict=True)]
    spreads_K = voting_spreads(scores, counts)
    votes = [_votes(scores_KN, spreads_K) for scores_KN in scores]
    lengths = [one.lengths_N - one.lengths_N.mean() for one in answers]
    everywhere_K = _strength(votes)
    totals: dict[int, FloatArray] = {}
    for category in dict.fromkeys(one.category for one in answers):
        rows = [row for row, one in enumerate(answers) if one.category == category]
        weights_K = _strength([votes[row] for row in rows]) / everywhere_K
        slopes_K = _slopes([votes[row] for row in rows], [lengths[row] for row in rows])
        for row in rows:
            totals[row] = weights_K @ (votes[row] - np.outer(slopes_K, lengths[row])) + _consistency(counts[row])
    return [
        np.where(is_answer_N, totals[row], totals[row][is_answer_N].min() - 1)
        for row, is_answer_N in enumerate(answering)
    ]


def consensus(scores_KN: FloatArray, spreads_K: FloatArray, counts_N: FloatArray) -> FloatArray:
    """Consensus value of each of a prompt's distinct answers: higher is better, and it has no unit.

        r = sum_k (s_k - mean(s_k)) / spread_k + 2 (c - mean(c)) / (std(c) + 0.3)

    Args:
        scores_KN: Scores s of K reward models for N distinct answers; NaN, no opinion, counts as the mean.
        spreads_K: Spread of each reward model's deviations over many prompts; one with spread 0 has no say.
        counts_N: How many of the policy's samples c were each answer.

    Returns:
        Shape (N,).
    """
    total: FloatArray = _votes(scores_KN, spreads_K).sum(axis=0) + _consistency(counts_N)
    return total


def voting_spreads(scores_BKN: Sequence[FloatArray], counts_BN: Sequence[FloatArray]) -> FloatArray:
    """Spread of each reward model's deviations, in the unit of its scores; 0 for one that has no say.

    A reward model that contradicts the consensus of all others, such as the negative of another one, has none. The one
    that agrees with the others least leaves first (all, if several agree equally little), as long as the share of
    pairs that it orders as they do is below 1/2 by more than about two standard errors, 1 / sqrt(number of pairs).

    Args:
        scores_BKN: Scores of B prompts' distinct answers, each of shape (K, N), NaN where there is none.
        counts_BN: How many of the policy's samples were each answer.

    Returns:
        Shape (K,).
    """
    spreads_K = np.array([spread(row) for row in deviations_by_arm(scores_BKN)])
    while (spreads_K > 0).sum() > 1:
        margins_K = np.full(len(spreads_K), np.inf)
        for arm in np.flatnonzero(spreads_K > 0):
            others_K = np.where(np.arange(len(spreads_K)) == arm, 0.0, spreads_K)
            gaps = np.concatenate(
                [
                    consensus_gaps(scores_KN[arm], consensus(scores_KN, others_K, counts_N))
                    for scores_KN, counts_N in zip(scores_BKN, counts_BN, strict=True)
                ]
            )
            if len(gaps):
                margins_K[arm] = share_agreeing(gaps) - 0.5 + 1 / np.sqrt(len(gaps))
        if margins_K.min() >= 0:
            break
        spreads_K[margins_K <= margins_K.min() + _TIE] = 0.0
    return spreads_K


def _votes(scores_KN: FloatArray, spreads_K: FloatArray) -> FloatArray:
    """Deviations from the prompt's mean, in spreads; 0 where there is no score or no say."""
    units_K = np.where(spreads_K > 0, spreads_K, np.inf)
    votes_KN = np.stack([deviations(row) for row in scores_KN]) / units_K[:, None]
    return np.where(np.isfinite(votes_KN), votes_KN, 0.0)


def _consistency(counts_N: FloatArray) -> FloatArray:
    consistency_N: FloatArray = (counts_N - counts_N.mean()) / (counts_N.std() + _SMOOTHING)
    return CONSISTENCY_WEIGHT * consistency_N


def _strength(votes: Sequence[FloatArray]) -> FloatArray:
    """Root mean square of each reward model's votes, shape (K,); 1 for one that never votes."""
    strength_K: FloatArray = np.sqrt(np.mean(np.concatenate(votes, axis=1) ** 2, axis=1))
    return np.where(strength_K > 0, strength_K, 1.0)


def _slopes(votes: Sequence[FloatArray], lengths: Sequence[FloatArray]) -> FloatArray:
    """Votes per character by which each reward model's votes follow length, shape (K,)."""
    votes_KM, lengths_M = np.concatenate(votes, axis=1), np.concatenate(lengths)
    size = float(lengths_M @ lengths_M) * (1 + _PRIOR / len(lengths_M))
    slopes_K: FloatArray = votes_KM @ lengths_M / size if size > 0 else np.zeros(len(votes_KM))
    return slopes_K


def gold_gaps(scores_N: FloatArray, num_right: int) -> FloatArray:
    """Score of the right minus the wrong response, for each such pair with both scores; the right ones come first."""
    gaps = np.subtract.outer(scores_N[:num_right], scores_N[num_right:]).ravel()
    return gaps[np.isfinite(gaps)]


def consensus_gaps(scores_N: FloatArray, consensus_N: FloatArray) -> FloatArray:
    """Score of the better minus the worse answer, for each pair with both scores that the consensus orders."""
    first, second = np.triu_indices(len(scores_N), 1)
    lead = consensus_N[first] - consensus_N[second]
    gaps = (scores_N[first] - scores_N[second]) * np.sign(lead)
    return gaps[(np.abs(lead) > _TIE) & np.isfinite(gaps)]


def labeled_gaps(
    scores: Sequence[FloatArray], num_right: Sequence[int | None], values: Sequence[FloatArray]
) -> list[FloatArray]:
    """Gaps of a reward model on the labeled pairs of several prompts, above 0 where it orders them as the labels do.

    Args:
        scores: Its scores of each prompt's responses.
        num_right: How many of these are right, which come first; None or 0 where a consensus orders them.
        values: The consensus values of these.
    """
    rows = list(zip(scores, num_right, values, strict=True))
    agreed = iter(untied([consensus_gaps(scores_N, values_N) for scores_N, num, values_N in rows if not num]))
    return [gold_gaps(scores_N, num) if num else next(agreed) for scores_N, num, _ in rows]


def untied(gaps: Sequence[FloatArray]) -> list[FloatArray]:
    """The gaps of several prompts without ties, of which training makes no pair; all of them where there are only ties.

    A consensus also orders two wrong answers. A verifier that says right or wrong has no opinion on these.
    """
    return [of_prompt[of_prompt != 0] for of_prompt in gaps] if any(map(np.any, gaps)) else list(gaps)


def answer_counts(counts: Mapping[str, int], answers: Mapping[str, str | None]) -> dict[str, int]:
    """How many samples say the same as each response; 0 for one that answers nothing, and empty if none does.

    Args:
        counts: How many samples were each response.
        answers: What each response answers (`laser.evaluation.answers.Reader.said`).
    """
    totals: dict[str | None, int] = {}
    for text, count in counts.items():
        totals[answers[text]] = totals.get(answers[text], 0) + count
    same = {text: 0 if answers[text] is None else totals[answers[text]] for text in counts}
    return same if any(same.values()) else {}


def num_agreeing(gaps: FloatArray) -> float:
    """Number of gaps above 0, a tie counting half."""
    return float(np.sum((gaps > 0) + 0.5 * (gaps == 0)))


def share_agreeing(gaps: FloatArray) -> float:
    """Share of gaps above 0, a tie counting half; NaN without any."""
    return num_agreeing(gaps) / len(gaps) if len(gaps) else float("nan")

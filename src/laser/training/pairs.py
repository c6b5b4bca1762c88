"""Preference pairs: drawn at random before scoring, oriented by score afterwards (Algorithm 1, step 3).

Pairs are drawn first, so a reward model scores only the responses in pairs. A pair holds indices and not texts, because
texts repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laser.core.types import FloatArray, Pair, Response, Responses


@dataclass(frozen=True, slots=True)
class Candidates:
    """Unoriented pairs of one batch.

    Attributes:
        pairs: For each prompt, index pairs (i, j) with i < j into its responses.
        num_empty: Responses without text; no pair has one.
        num_duplicates: Responses whose text repeats an earlier one of the same prompt; no pair has one.
        num_short: Pairs missing because a prompt has too few distinct responses.
    """

    pairs: tuple[tuple[tuple[int, int], ...], ...]
    num_empty: int
    num_duplicates: int
    num_short: int

    def needed(self) -> list[list[int]]:
        """For each prompt, the sorted indices of the responses in its pairs."""
        return [sorted({index for pair in pairs for index in pair}) for pairs in self.pairs]


@dataclass(frozen=True, slots=True)
class OrientedPairs:
    """Pairs with R(chosen) > R(rejected), and the numbers of pairs dropped."""

    pairs: tuple[Pair, ...]
    num_ties: int
    num_unscored: int
    num_doubtful: int = 0


def draw_pairs(responses: Responses, num_pairs: int, generators: Sequence[np.random.Generator]) -> Candidates:
    """Draw pairs of distinct responses uniformly without replacement.

    Source: arXiv 2410.01735, Sec. 3.1, P pairs per prompt at random. Deviation: equal texts count once, because a
    reward model cannot order a text against itself, and empty ones not at all.

    Args:
        responses: Responses of each prompt.
        num_pairs: P, pairs per prompt.
        generators: One random generator per prompt.

    Returns:
        The candidates; all possible pairs of a prompt that has fewer than P.
    """
    drawn = []
    num_empty = num_duplicates = num_short = 0
    for row, generator in zip(responses, generators, strict=True):
        distinct = _distinct(row)
        empty = sum(not response.text.strip() for response in row)
        num_empty += empty
        num_duplicates += len(row) - empty - len(distinct)
        possible = len(distinct) * (len(distinct) - 1) // 2
        num_short += max(0, num_pairs - possible)
        ranks = generator.permutation(possible)[:num_pairs]
        drawn.append(tuple(_unrank(int(rank), distinct) for rank in ranks))
    return Candidates(tuple(drawn), num_empty, num_duplicates, num_short)


def orient_pairs(candidates: Candidates, scores: Sequence[FloatArray]) -> OrientedPairs:
    """Orient pairs by score, without ties and responses that have no finite score.

    Args:
        candidates: Pairs of B prompts.
        scores: For each prompt, the score of every one of its responses, NaN where it was not scored.

    Returns:
        Oriented pairs in the order they were drawn.
    """
    oriented = []
    num_ties = num_unscored = 0
    for prompt, pairs in enumerate(candidates.pairs):
        for i, j in pairs:
            first, second = float(scores[prompt][i]), float(scores[prompt][j])
            if not (np.isfinite(first) and np.isfinite(second)):
                num_unscored += 1
            elif first == second:
                num_ties += 1
            elif first > second:
                oriented.append(Pair(prompt, i, j, first, second))
            else:
                oriented.append(Pair(prompt, j, i, second, first))
    return OrientedPairs(tuple(oriented), num_ties, num_unscored)


def orient_by_agreement(
    candidates: Candidates, scores_BKN: Sequence[FloatArray], weights_BK: FloatArray, num_pairs: int
) -> OrientedPairs:
    """Orient pairs by the vote of the reward models, and keep the pairs they agree on most.

    Source: arXiv 2410.01735, Sec. A.1, RM Agreement Ensemble: 100 random pairs, the 10 with the highest agreement of
    rankings. Each model votes with its weight for the response it scores higher; a pair without majority is a tie.

    Args:
        candidates: Pairs of B prompts, more than are kept.
        scores_BKN: For each prompt, raw scores of shape (K, N); NaN where a model has none and abstains.
        weights_BK: Weights of the models.
        num_pairs: P, pairs kept per prompt; of equal agreement, the first drawn.

    Returns:
        Oriented pairs, for each prompt in order of falling agreement; their scores are the votes for and against.
    """
    oriented: list[Pair] = []
    num_ties = num_unscored = 0
    for prompt, (pairs, scores_KN, weights_K) in enumerate(zip(candidates.pairs, scores_BKN, weights_BK, strict=True)):
        voted = []
        for i, j in pairs:
            first = float(weights_K[scores_KN[:, i] > scores_KN[:, j]].sum())
            second = float(weights_K[scores_KN[:, i] < scores_KN[:, j]].sum())
            if not np.isfinite(scores_KN[weights_K > 0][:, [i, j]]).all(axis=1).any():
                num_unscored += 1
            elif first == second:
                num_ties += 1
            else:
                voted.append(Pair(prompt, i, j, first, second) if first > second else Pair(prompt, j, i, second, first))
        voted.sort(key=lambda pair: pair.rejected_score - pair.chosen_score)
        oriented.extend(voted[:num_pairs])
    return OrientedPairs(tuple(oriented), num_ties, num_unscored)


def _distinct(responses: Sequence[Response]) -> list[int]:
    """Indices of the first occurrence of each non-empty text."""
    first: dict[str, int] = {}
    for index, response in enumerate(responses):
        if response.text.strip():
            first.setdefault(response.text, index)
    return sorted(first.values())


def _unrank(rank: int, indices: Sequence[int]) -> tuple[int, int]:
    """The pair with the given rank in the lexicographic order of all i < j."""
    for position in range(len(indices) - 1):
        following = len(indices) - 1 - position
        if rank < following:
            return indices[position], indices[position + 1 + rank]
        rank -= following
    raise IndexError("rank beyond the number of pairs")

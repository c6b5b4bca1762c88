"""Agreement of reward models on the responses that several of them scored, against a literal count."""

from itertools import combinations

import numpy as np
import pytest

from laser.rewards.overlap import Overlap
from tiny import make_prompt

NAMES = ("a", "b", "c")


def filled(scores_by_prompt):
    """An overlap of prompts "0", "1", ... with responses "r0", "r1", ... and scores of shape (K, N) each."""
    overlap = Overlap(NAMES)
    for number, scores_KN in enumerate(scores_by_prompt):
        for arm, row in enumerate(np.array(scores_KN, dtype=float)):
            texts = [f"r{index}" for index, score in enumerate(row)]
            overlap.add(arm, [make_prompt("q", id=str(number))], [texts], [row])
    return overlap


def literal(scores_by_prompt):
    counts = {}
    for scores_KN in scores_by_prompt:
        for a, b in combinations(range(3), 2):
            for i, j in combinations(range(len(scores_KN[0])), 2):
                first, second = scores_KN[a][i] - scores_KN[a][j], scores_KN[b][i] - scores_KN[b][j]
                if first * second > 0 or first * second < 0:
                    alike, judged = counts.get((NAMES[a], NAMES[b]), (0, 0))
                    counts[NAMES[a], NAMES[b]] = (alike + (first * second > 0), judged + 1)
    return counts


def test_agreement_is_the_share_of_pairs_ordered_alike():
    rng = np.random.default_rng(0)
    scores = [rng.integers(0, 4, size=(3, size)).astype(float) for size in (2, 5, 9)]
    scores[1][1, 2] = scores[2][0, :] = np.nan
    found = {(one.first, one.second): (one.alike, one.judged) for one in filled(scores).agreement()}
    assert found == literal(scores)
    assert len(found) == 3


def test_one_response_has_nothing_to_be_ordered_against():
    """As where a probe asks for one new answer to a prompt."""
    alone = filled([[[1.0], [2.0], [3.0]]])
    assert (alone.agreement(), alone.widest()) == ([], None)
    together = filled([[[1.0], [2.0], [3.0]], [[1.0, 2.0], [2.0, 1.0], [0.0, 0.0]]])
    assert together.widest().prompt.id == "1"


def test_macro_f1_over_both_orders_of_every_pair_is_that_share():
    """The identity the docstring of `Overlap` states, with the F1 of `laser rewardbench`."""
    from laser.evaluation.candidates import macro_f1

    rng = np.random.default_rng(1)
    scores = rng.normal(size=(3, 8))
    first, second = np.triu_indices(8, 1)
    gaps_KP = scores[:, first] - scores[:, second]
    both_KP = np.concatenate([gaps_KP, -gaps_KP], axis=1)
    for one in filled([scores]).agreement():
        a, b = NAMES.index(one.first), NAMES.index(one.second)
        assert macro_f1(both_KP[a], both_KP[b]) == pytest.approx(one.alike / one.judged)


def test_models_that_scored_different_responses_are_not_compared():
    nan = np.nan
    overlap = filled([[[1, 2, nan], [nan, nan, 3], [nan, nan, nan]]])
    assert overlap.agreement() == []
    assert overlap.widest() is None
    assert Overlap(NAMES).widest() is None
    empty = Overlap(NAMES)
    empty.add(0, [make_prompt("q")], [[]], [np.empty(0)])
    assert empty.agreement() == []


def test_the_widest_disagreement_is_measured_in_each_models_own_differences():
    """Mean differences: a 20/3, b 2/3 (b scores responses 0 to 2 as 1, 0, 0), so in units of them a: -1.5 for (0, 1)
    and b: +1.5; for (0, 2) a: -0.5, 1.0 the other way round."""
    overlap = filled([[[0, 10, 0.001], [1, 0, 0], [np.nan] * 3]])
    widest = overlap.widest()
    assert widest.responses == ("r0", "r1")
    assert widest.scores == {"a": (0.0, 10.0), "b": (1.0, 0.0)}
    assert widest.strength == pytest.approx(1.5, rel=1e-3)


def test_a_rescaled_model_disagrees_as_much():
    scores = np.random.default_rng(2).normal(size=(3, 6))
    scaled = scores * np.array([[1.0], [1000.0], [0.01]])
    one, other = filled([scores]).widest(), filled([scaled]).widest()
    assert one.responses == other.responses
    assert one.strength == pytest.approx(other.strength)

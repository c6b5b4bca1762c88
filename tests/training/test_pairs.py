"""Drawing and orienting pairs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser.core.types import Response
from laser.training.pairs import draw_pairs, orient_pairs


def responses(*texts):
    return [Response((1,), text, (-1.0,), True) for text in texts]


def draw(texts, num_pairs, seed=0):
    return draw_pairs([responses(*texts)], num_pairs, [np.random.default_rng(seed)])


@given(st.lists(st.sampled_from(["a", "b", "c", "", " "]), min_size=1, max_size=8), st.integers(1, 12))
def test_pairs_are_distinct_texts_without_repetition(texts, num_pairs):
    candidates = draw(texts, num_pairs)
    pairs = candidates.pairs[0]
    distinct = len({text for text in texts if text.strip()})
    assert len(set(pairs)) == len(pairs) == min(num_pairs, math.comb(distinct, 2))
    assert all(texts[i] != texts[j] and texts[i].strip() and texts[j].strip() for i, j in pairs)
    assert candidates.num_short == num_pairs - len(pairs)
    assert candidates.num_empty + candidates.num_duplicates + distinct == len(texts)


def test_every_pair_is_equally_likely():
    """Two of the six pairs of four texts, 3,000 times: each is expected 1,000 times, sd sqrt(3000 * 1/3 * 2/3) = 26."""
    counts = {}
    for seed in range(3000):
        for pair in draw("abcd", 2, seed).pairs[0]:
            counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 6
    assert all(abs(count - 1000) < 130 for count in counts.values())


def test_duplicate_texts_keep_their_own_index():
    """A response is an index, not a text: the second 'b' is never mistaken for the first."""
    candidates = draw(["b", "a", "b"], 5)
    assert candidates.pairs[0] == ((0, 1),)
    assert candidates.num_duplicates == 1


def test_needed_holds_only_responses_of_some_pair():
    candidates = draw([str(i) for i in range(30)], 10)
    assert candidates.needed()[0] == sorted({index for pair in candidates.pairs[0] for index in pair})
    assert len(candidates.needed()[0]) <= 20


def test_orientation_follows_the_score_and_ties_make_no_pair():
    candidates = draw(["a", "b", "c"], 3)
    oriented = orient_pairs(candidates, [np.array([1.0, 5.0, 1.0])])
    assert {(pair.chosen, pair.rejected) for pair in oriented.pairs} == {(1, 0), (1, 2)}
    assert all(pair.chosen_score == 5.0 and pair.rejected_score == 1.0 for pair in oriented.pairs)
    assert oriented.num_ties == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_make_no_pair(bad):
    candidates = draw(["a", "b", "c"], 3)
    oriented = orient_pairs(candidates, [np.array([bad, 2.0, 1.0])])
    assert [(pair.chosen, pair.rejected) for pair in oriented.pairs] == [(1, 2)]
    assert oriented.num_unscored == 2


def test_reversing_the_scores_reverses_every_pair():
    candidates = draw("abcdef", 9)
    scores = np.random.default_rng(1).normal(size=6)
    forward = orient_pairs(candidates, [scores]).pairs
    backward = orient_pairs(candidates, [-scores]).pairs
    assert [(p.chosen, p.rejected) for p in forward] == [(p.rejected, p.chosen) for p in backward]


def test_prompts_draw_from_their_own_generators():
    """Adding a prompt in front changes nothing for the one behind it."""
    alone = draw("abcdef", 4, seed=7).pairs[0]
    rows = [responses(*"xyz"), responses(*"abcdef")]
    behind = draw_pairs(rows, 4, [np.random.default_rng(1), np.random.default_rng(7)]).pairs[1]
    assert behind == alone

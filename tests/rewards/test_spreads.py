"""The spread of a reward model's scores, and ensembles that are scaled by it."""

import numpy as np
import pytest

from laser.core.state import load_state, save_state
from laser.rewards.combine import combine_scores, weights_by_variation
from laser.rewards.pool import Arm, RewardPool
from laser.rewards.spreads import RunningSpreads, deviations, deviations_by_arm, spread


def test_deviations_of_equal_scores_are_exactly_zero():
    assert np.mean([0.1] * 3) != 0.1, "the naive difference is not"
    assert deviations(np.array([0.1, 0.1, np.nan, 0.1])).tolist()[:2] == [0.0, 0.0]
    np.testing.assert_array_equal(deviations(np.array([1.0, np.nan, 5.0])), [-2.0, np.nan, 2.0])
    assert np.isnan(deviations(np.array([np.nan, np.nan]))).all()


def test_spread_is_the_median_size_or_where_that_is_zero_the_root_mean_square():
    assert spread(np.array([-3.0, 1.0, np.nan, 2.0])) == 2.0
    assert spread(np.array([0.0, 0.0, 0.0, 4.0])) == 2.0
    assert spread(np.array([0.0, 0.0, 0.0, 4e200])) == 2e200
    assert spread(np.zeros(3)) == spread(np.zeros(0)) == 0.0


def test_a_prompt_with_one_score_says_nothing_of_the_spread():
    scores = [np.array([[1.0, 3.0], [5.0, np.nan]]), np.array([[2.0, 2.0], [np.nan, np.nan]])]
    assert [row.tolist() for row in deviations_by_arm(scores)] == [[-1.0, 1.0, 0.0, 0.0], []]
    assert deviations_by_arm([]) == []


def test_running_spreads_see_the_latest_deviations_and_survive_a_checkpoint(tmp_path):
    spreads = RunningSpreads(2, window=3)
    spreads.add([[1.0, 2.0], []])
    spreads.add([[3.0, 4.0], [0.1]])
    assert spreads.values_K.tolist() == [3.0, 0.1]
    save_state(tmp_path / "spreads", spreads.state_dict())
    again = RunningSpreads(2, window=3)
    again.add([[9.0], [9.0]])
    again.load_state_dict(load_state(tmp_path / "spreads"))
    for one in (spreads, again):
        one.add([[7.0], [0.3]])
    assert again.values_K.tolist() == spreads.values_K.tolist() == [4.0, 0.2]
    with pytest.raises(ValueError, match="it is of 2 reward models, the pool has 3"):
        RunningSpreads(3).load_state_dict(spreads.state_dict())


def test_the_pool_keeps_the_spreads_in_its_state():
    arms = [Arm("a", lambda: pytest.fail("nothing is loaded")), Arm("b", lambda: pytest.fail("nothing is loaded"))]
    pool, again = RewardPool(arms), RewardPool(arms)
    pool.spreads.add([[1.0, -2.0, 3.0], [0.5]])
    again.load_state_dict(pool.state_dict())
    assert again.spreads.values_K.tolist() == [2.0, 0.5]


WEIGHTS = np.full(3, 1 / 3)


def test_scaled_scores_by_hand():
    """Deviations -2, 0, 2 in unit 1 and 30, 0, -30 in unit 10; the third has no spread."""
    scores = np.array([[1.0, 3.0, 5.0], [90.0, 60.0, 30.0], [7.0, 7.0, 7.0]])
    combined = combine_scores(scores, WEIGHTS, "scaled", np.array([1.0, 10.0, 0.0]))
    np.testing.assert_allclose(combined, [0.5, 0.0, -0.5])
    assert combine_scores(scores, WEIGHTS, "raw").argmax() == 0
    one_hot = np.array([0.0, 1.0, 0.0])
    assert combine_scores(scores, one_hot, "scaled", np.array([1.0, 10.0, 0.0])).tolist() == scores[1].tolist()


def test_a_constant_member_changes_nothing_and_constant_members_alone_make_ties():
    scores = np.array([[1.0, 3.0, 5.0], [9.0, np.nan, 3.0], [7.0, 7.0, np.nan]])
    spreads = np.array([1.0, 2.0, 0.0])
    alone = combine_scores(scores[:2], np.full(2, 0.5), "scaled", spreads[:2])
    np.testing.assert_allclose(combine_scores(scores, WEIGHTS, "scaled", spreads), alone)
    ties = combine_scores(scores[[2, 2]], np.full(2, 0.5), "scaled", np.zeros(2))
    np.testing.assert_array_equal(ties, [0.0, 0.0, np.nan])


@pytest.mark.parametrize("factor", [100.0, 1e-6])
def test_the_unit_of_a_member_does_not_change_a_scaled_ensemble(factor):
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=(3, 5)) for _ in range(20)]
    unit = np.array([[factor], [1.0], [1.0]])

    def combined(scores_BKN):
        spreads = RunningSpreads(3)
        spreads.add(deviations_by_arm(scores_BKN))
        return [combine_scores(scores_KN, WEIGHTS, "scaled", spreads.values_K) for scores_KN in scores_BKN]

    np.testing.assert_allclose(combined([unit * row for row in scores]), combined(scores))


def test_weights_by_variation_by_hand():
    """Deviation over mean: 1 / 2 for the first, 10 / 100 for the second, nothing for a constant."""
    scores = [np.array([[1.0, np.nan], [90.0, 110.0], [7.0, 7.0]]), np.array([[3.0], [100.0], [7.0]])]
    expected = np.array([0.5, np.std([90, 110, 100]) / 100, 0.0])
    adapted = weights_by_variation(scores, np.tile(WEIGHTS, (2, 1)))
    np.testing.assert_allclose(adapted, np.tile(expected / expected.sum(), (2, 1)))
    units = np.array([[100.0], [0.5], [2.0]])
    np.testing.assert_allclose(weights_by_variation([units * row for row in scores], np.tile(WEIGHTS, (2, 1))), adapted)


def test_weights_by_variation_keep_what_cannot_be_weighed():
    constant = [np.array([[1.0, 1.0], [2.0, 2.0]])]
    np.testing.assert_array_equal(weights_by_variation(constant, np.array([[0.25, 0.75]])), [[0.25, 0.75]])
    unscored = [np.array([[np.nan, np.nan], [1.0, 2.0]])]
    np.testing.assert_array_equal(weights_by_variation(unscored, np.array([[0.5, 0.5]])), [[0.0, 1.0]])
    around_zero = [np.array([[-1.0, 1.0], [1.0, 2.0]])]
    np.testing.assert_allclose(weights_by_variation(around_zero, np.array([[0.5, 0.5]])), [[1.0, 0.0]], atol=1e-7)
    one_hot = np.array([[0.0, 1.0]])
    np.testing.assert_array_equal(weights_by_variation(around_zero, one_hot), one_hot)

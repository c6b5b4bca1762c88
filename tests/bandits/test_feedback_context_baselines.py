"""Quantile feedback, context preparation, and the selectors that do not learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser.bandits.baselines import Fixed, UniformRandom
from laser.bandits.context import ContextPreparer
from laser.bandits.feedback import QuantileFeedback

ARM = np.array([0])


def scale(feedback, *losses):
    return [float(feedback.scale(np.array([loss]), ARM)[0]) for loss in losses]


def test_worked_number():
    """History -5, -4, -3, -2, -1: q20 = -4.2, q80 = -1.8. L = 3 gives (-3 + 4.2) / 2.4 = 0.5; L = 2 gives 2.2 / 2.4."""
    feedback = QuantileFeedback()
    scale(feedback, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert scale(feedback, 3.0) == pytest.approx([0.5])
    feedback = QuantileFeedback()
    scale(feedback, 5.0, 4.0, 3.0, 2.0, 1.0)
    assert scale(feedback, 2.0) == pytest.approx([2.2 / 2.4])


def test_beyond_the_quantiles_it_is_zero_and_one():
    feedback = QuantileFeedback()
    scale(feedback, *range(10))
    assert scale(feedback, 50.0, -50.0) == [0.0, 1.0]


def test_fewer_than_two_entries_or_no_spread_give_one_half():
    assert scale(QuantileFeedback(), 3.0, 7.0) == [0.5, 0.5]
    assert scale(QuantileFeedback(), 3.0, 3.0, 3.0) == [0.5, 0.5, 0.5]


def test_the_current_loss_is_not_in_its_own_history():
    """After {1, 1} a loss of 0.5 is above both quantiles; inside its own history it would not be 1 by definition."""
    assert scale(QuantileFeedback(), 1.0, 1.0, 0.5) == [0.5, 0.5, 1.0]


def test_rows_of_one_selection_see_the_same_history():
    together, apart = QuantileFeedback(), QuantileFeedback()
    scale(together, 1.0, 2.0, 3.0)
    scale(apart, 1.0, 2.0, 3.0)
    both = together.scale(np.array([2.5, 1.5]), np.array([0, 1]))
    assert both[0] == scale(apart, 2.5)[0]
    assert both[1] != scale(apart, 1.5)[0]


def test_a_row_without_pairs_gets_zero_and_leaves_no_trace():
    with_nan, without = QuantileFeedback(), QuantileFeedback()
    assert scale(with_nan, 1.0, np.nan, 2.0, 3.0)[1] == 0.0
    scale(without, 1.0, 2.0, 3.0)
    assert scale(with_nan, 2.2) == scale(without, 2.2)


def test_a_window_forgets():
    feedback = QuantileFeedback(window=3)
    scale(feedback, 100.0, 100.0, 3.0, 2.0, 1.0)
    fresh = QuantileFeedback()
    scale(fresh, 3.0, 2.0, 1.0)
    assert scale(feedback, 2.2) == scale(fresh, 2.2)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0, 0.4), st.floats(0.5, 1))
def test_rewards_are_in_the_unit_interval_and_fall_with_the_loss(losses, low, high):
    feedback = QuantileFeedback(low=low, high=high)
    assert all(0 <= reward <= 1 for reward in scale(feedback, *losses))
    probes = np.sort(np.random.default_rng(0).uniform(-1e6, 1e6, size=9))
    rewards = feedback.scale(probes, np.zeros(9, dtype=np.int64))
    assert (np.diff(rewards) <= 0).all()


def test_each_quantile_is_the_one_asked_for():
    """History -9 .. 0: the quarter is at -6.75, the half at -4.5; L = 5 is at (-5 + 6.75) / 2.25 of the way."""
    feedback = QuantileFeedback(low=0.25, high=0.5)
    scale(feedback, *range(10))
    assert scale(feedback, 5.0) == pytest.approx([1.75 / 2.25])


def test_feedback_refuses_what_has_no_quantiles():
    for knobs in ({"low": 0.5, "high": 0.5}, {"low": -0.1}, {"high": 1.1}, {"window": 1}):
        with pytest.raises(ValueError, match=r"need"):
            QuantileFeedback(**knobs)
    with pytest.raises(ValueError, match="finite"):
        QuantileFeedback().scale(np.array([np.inf]), ARM)


def test_feedback_state_round_trip():
    feedback, again = QuantileFeedback(window=5), QuantileFeedback(window=5)
    scale(feedback, *range(9))
    again.load_state_dict(feedback.state_dict())
    assert scale(again, 6.3, 2.0) == scale(feedback, 6.3, 2.0)


ROWS = np.random.default_rng(0).normal(3.0, 2.0, size=(50, 8))


def test_none_changes_only_beyond_float32():
    out = ContextPreparer(8)(ROWS)
    assert np.array_equal(out, ROWS.astype(np.float32).astype(np.float64))
    assert out.dtype == np.float64


def test_l2_and_scale():
    out = ContextPreparer(8, normalization="l2", scale=3.0)(ROWS)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 3.0, rtol=1e-6)
    assert np.array_equal(ContextPreparer(8, normalization="l2")(np.zeros((1, 8))), np.zeros((1, 8)))


def test_unit_contexts_have_one_length_and_a_constant():
    preparer = ContextPreparer(6, normalization="unit", projection=4)
    rows = preparer(np.random.default_rng(0).normal(size=(40, 6)) * [1, 10, 100, 1, 1, 1] + 50)
    assert preparer.output_dim == rows.shape[1] == 5
    np.testing.assert_allclose(np.linalg.norm(rows[:, :4], axis=1), 1.0, rtol=1e-6)
    assert (rows[:, 4] == 1).all()
    assert abs(rows[:, :4].mean()) < 0.1  # what all rows shared is gone
    one = ContextPreparer(6, normalization="unit")(np.ones((1, 6)))
    assert one[0].tolist() == [0, 0, 0, 0, 0, 0, 1]  # a first row has no spread yet


def test_standardize_equals_the_moments_of_all_rows_seen():
    preparer = ContextPreparer(8, normalization="standardize")
    preparer(ROWS[:30])
    out = preparer(ROWS[30:])
    expected = (ROWS[30:] - ROWS.mean(axis=0)) / ROWS.std(axis=0)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    constant = ContextPreparer(2, normalization="standardize")(np.ones((3, 2)))
    assert np.array_equal(constant, np.zeros((3, 2)))


def test_projection_is_seeded_and_keeps_norms_on_average():
    rows = np.random.default_rng(1).normal(size=(400, 300))
    preparer = ContextPreparer(300, projection=60, seed=4)
    out = preparer(rows)
    assert out.shape == (400, 60) == (400, preparer.output_dim)
    assert np.array_equal(out, ContextPreparer(300, projection=60, seed=4)(rows))
    assert not np.array_equal(out, ContextPreparer(300, projection=60, seed=5)(rows))
    ratio = (out**2).sum() / (rows**2).sum()
    assert ratio == pytest.approx(1.0, abs=0.1)


def test_bad_contexts_are_refused_with_a_count():
    bad = ROWS.copy()
    bad[0, :3] = np.nan
    with pytest.raises(ValueError, match="3 of 400 context features"):
        ContextPreparer(8)(bad)
    with pytest.raises(ValueError, match="expected"):
        ContextPreparer(9)(ROWS)


def test_context_state_round_trip():
    first, second = (ContextPreparer(8, normalization="standardize") for _ in range(2))
    first(ROWS[:20])
    second.load_state_dict(first.state_dict())
    assert np.array_equal(first(ROWS[20:]), second(ROWS[20:]))
    with pytest.raises(ValueError, match="8 features"):
        ContextPreparer(9).load_state_dict(first.state_dict())


def test_fixed_never_moves():
    selector = Fixed(3, 2)
    selection = selector.select(np.ones((4, 5)))
    assert selection.arms_M.tolist() == [2, 2, 2, 2]
    assert selection.probabilities_MK.tolist() == [[0, 0, 1]] * 4
    selector.update(selection.id, np.zeros(4))
    with pytest.raises(KeyError):
        selector.update(selection.id, np.zeros(4))
    with pytest.raises(ValueError, match="not available"):
        selector.select(np.ones((1, 5)), np.array([True, True, False]))
    with pytest.raises(ValueError, match="this one has"):
        Fixed(3, 1).load_state_dict(selector.state_dict())


def test_fixed_refuses_an_arm_that_is_not_there():
    for arm in (-1, 3):
        with pytest.raises(ValueError, match="not one of 3"):
            Fixed(3, arm)


@pytest.mark.slow
def test_random_matches_its_propensities_over_20000_draws():
    selector = UniformRandom(4, seed=1)
    available = np.array([True, True, False, True])
    selection = selector.select(np.ones((20_000, 1)), available)
    frequencies = np.bincount(selection.arms_M, minlength=4) / 20_000
    np.testing.assert_allclose(frequencies, selection.probabilities_MK[0], atol=0.015)
    assert frequencies[2] == 0


@pytest.mark.parametrize("selector", [Fixed(3, 1), UniformRandom(3)], ids=["fixed", "random"])
def test_selectors_that_do_not_learn_keep_the_contract(selector):
    updated, expired = selector.select(np.ones((2, 5))), selector.select(np.ones((1, 5)))
    with pytest.raises(ValueError, match="2 rows"):
        selector.update(updated.id, np.ones(1))
    selector.update(updated.id, np.array([np.nan, 1.0]))
    selector.expire(expired.id)
    for selection in (updated, expired):
        with pytest.raises(KeyError, match="not open"):
            selector.expire(selection.id)
    with pytest.raises(ValueError, match="no arm"):
        selector.select(np.ones((1, 5)), np.zeros(3, dtype=bool))
    assert selector.num_arms == 3


def test_random_state_round_trip():
    first, second = UniformRandom(4, seed=1), UniformRandom(4, seed=2)
    first.select(np.ones((9, 1)))
    second.load_state_dict(first.state_dict())
    assert first.select(np.ones((30, 1))).arms_M.tolist() == second.select(np.ones((30, 1))).arms_M.tolist()

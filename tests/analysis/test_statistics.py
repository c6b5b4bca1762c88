"""Means, intervals, paired tests and Holm's correction: worked numbers, identities, and scipy's on random input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from laser.analysis.statistics import estimate, holm, paired


def test_an_interval_of_three_values():
    """Values 1, 2, 3: mean 2, deviation 1, t(0.975, 2) = 4.3027, half-width 4.3027 / sqrt 3."""
    one = estimate([1.0, 2.0, 3.0])
    assert (one.mean, one.sd, one.num) == (2.0, 1.0, 3)
    assert one.half == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)


def test_one_value_has_no_interval_and_none_no_mean():
    assert estimate([0.5]).mean == 0.5
    assert math.isnan(estimate([0.5]).half)
    assert math.isnan(estimate([0.5]).sd)
    assert math.isnan(estimate([]).mean)


def test_a_paired_test_by_hand():
    """Differences 1, 2, 3 (in percent): mean 2, deviation 1, t = 2 sqrt 3 = 3.4641 with 2 degrees of freedom.

    The distribution of Student's t with 2 degrees of freedom is F(t) = 1/2 + t / (2 sqrt(2 + t^2)), so the two-sided
    p-value is 1 - t / sqrt(2 + t^2) = 1 - 3.4641 / sqrt 14 = 0.07418.
    """
    test = paired({0: 0.71, 1: 0.82, 2: 0.63}, {0: 0.70, 1: 0.80, 2: 0.60})
    assert test.difference.mean == pytest.approx(0.02)
    assert test.p == pytest.approx(1 - 2 * math.sqrt(3) / math.sqrt(14), abs=1e-12)


def test_a_paired_test_is_scipys_on_shared_seeds_alone():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 8))
    test = paired(dict(enumerate(ours)), {**dict(enumerate(theirs[:6])), 99: 5.0})
    assert test.difference.num == 6
    assert test.p == pytest.approx(stats.ttest_rel(ours[:6], theirs[:6]).pvalue)
    low, high = stats.ttest_rel(ours[:6], theirs[:6]).confidence_interval()
    assert (test.difference.mean - test.difference.half, test.difference.mean + test.difference.half) == pytest.approx(
        (low, high)
    )


@pytest.mark.parametrize("ours", [{}, {0: 0.5}, {7: 0.5, 8: 0.6}, {0: 0.6, 1: 0.7, 2: 0.8}])
def test_no_p_value_without_two_seeds_or_any_variance(ours):
    theirs = {0: 0.5, 1: 0.6, 2: 0.7}
    assert paired(ours, theirs).p is None


def test_holm_by_hand():
    """Holm 1979 on 0.01, 0.04, 0.03, 0.005: sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, then 0.04 x 1 held up to 0.06."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": None}) == {
        "a": pytest.approx(0.03),
        "b": pytest.approx(0.06),
        "c": pytest.approx(0.06),
        "d": pytest.approx(0.02),
        "e": None,
    }


@given(st.dictionaries(st.text(max_size=3), st.none() | st.floats(0, 1), max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    """Procedure: from the smallest p on, reject while p <= level / (number of hypotheses left)."""
    adjusted = holm(p_values)
    known = sorted((p, key) for key, p in p_values.items() if p is not None)
    rejected = set()
    for rank, (p, key) in enumerate(known):
        if p * (len(known) - rank) > level:
            break
        rejected.add(key)
    assert {key for key, p in adjusted.items() if p is not None and p <= level} == rejected
    assert all(adjusted[key] is None if p is None else adjusted[key] >= p for key, p in p_values.items())

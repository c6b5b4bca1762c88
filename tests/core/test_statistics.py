"""Means, intervals, paired tests, changes on the same prompts: worked numbers, identities, and scipy's results."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from laser.core.statistics import estimate, holm, mean_share, paired, paired_change, wilson_interval


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


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_equals_scipy(counts):
    right, total = counts
    expected = stats.binomtest(right, total).proportion_ci(method="wilson")
    assert wilson_interval(right, total) == pytest.approx((expected.low, expected.high), abs=1e-9)


def outcomes(both, gained, lost, neither):
    """Right before, right after, by prompt."""
    rows = [(1, 1)] * both + [(0, 1)] * gained + [(1, 0)] * lost + [(0, 0)] * neither
    before, after = zip(*rows, strict=True)
    return dict(enumerate(before)), dict(enumerate(after))


def score(both, gained, lost, neither, d):
    """McNemar's score statistic for a difference d, its variance from likelihood maximized on a grid."""
    num = both + gained + lost + neither
    low, high = max(0.0, -d), (1 - d) / 2
    q = np.linspace(low + 1e-9, high - 1e-9, 400_001)  # share that lost; q + d gained
    same = 1 - 2 * q - d
    with np.errstate(divide="ignore"):
        likelihood = sum(n * np.log(p) if n else 0 for n, p in ((gained, q + d), (lost, q), (both + neither, same)))
    best = q[np.argmax(likelihood)]
    return (gained - lost - num * d) / math.sqrt(num * (2 * best + d - d * d))


@pytest.mark.parametrize("counts", [(20, 9, 2, 33), (0, 5, 3, 56), (30, 20, 0, 14), (3, 12, 30, 19)])
def test_the_ends_of_a_change_are_where_the_score_is_the_normal_quantile(counts):
    change = paired_change(*outcomes(*counts))
    assert change.value == pytest.approx((counts[1] - counts[2]) / sum(counts))
    assert score(*counts, change.low) == pytest.approx(1.96, abs=2e-3)
    assert score(*counts, change.high) == pytest.approx(-1.96, abs=2e-3)
    assert (change.num_gained, change.num_lost, change.num_prompts) == (*counts[1:3], sum(counts))


def test_the_p_value_of_a_change_by_hand():
    """9 gained, 1 lost: 2 (1 + 10) / 2^10."""
    assert paired_change(*outcomes(5, 9, 1, 5)).p == pytest.approx(22 / 1024)


@pytest.mark.parametrize("counts", [(0, 0, 0, 64), (64, 0, 0, 0), (32, 0, 0, 32)])
def test_no_change_is_not_certainty(counts):
    """Tango's interval without any change is z^2 / (n + z^2) to either side; a bootstrap would say 0 to 0."""
    change = paired_change(*outcomes(*counts))
    half = 1.96**2 / (64 + 1.96**2)
    assert (change.low, change.high, change.p) == (pytest.approx(-half, abs=1e-4), pytest.approx(half, abs=1e-4), 1.0)


@pytest.mark.parametrize("counts", [(0, 3, 0, 0), (0, 0, 3, 0), (0, 1, 0, 0)])
def test_a_change_of_every_prompt_has_an_end_at_one(counts):
    change = paired_change(*outcomes(*counts))
    assert -1 <= change.low < change.high <= 1
    assert max(abs(change.low), abs(change.high)) == pytest.approx(1, abs=1e-6)


def test_before_and_after_swapped_change_the_sign():
    before, after = outcomes(20, 9, 2, 33)
    there, back = paired_change(before, after), paired_change(after, before)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low), abs=1e-9)


def test_the_interval_of_a_change_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    shares, hits = np.array([0.3, 0.2, 0.1, 0.4]), 0
    for counts in rng.multinomial(60, shares, size=400):
        change = paired_change(*outcomes(*counts))
        hits += change.low <= 0.1 <= change.high
    assert 0.92 <= hits / 400 <= 0.98


def test_a_change_is_over_shared_prompts_alone():
    change = paired_change({"a": 1, "b": 0, "c": 0}, {"b": 1, "c": 0, "d": 0})
    assert (change.value, change.num_prompts) == (0.5, 2)
    assert paired_change({"a": 1}, {"b": 1}) is None


def test_other_metrics_are_compared_by_a_bootstrap_of_their_differences():
    rng = np.random.default_rng(1)
    before, after = rng.uniform(size=50), rng.uniform(size=50)
    change = paired_change(dict(enumerate(before)), dict(enumerate(after)), seed=3)
    share = mean_share(after - before, seed=3)
    assert (change.value, change.low, change.high) == (share.value, share.low, share.high)
    assert change.p is None

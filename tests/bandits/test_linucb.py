"""LinUCB: closed forms, a literal twin of Eq. 1 and 2, public libraries, state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mabwiser.mab import MAB, LearningPolicy
from pareto_bandit.policy import DisjointLinUCBPolicy
from threadpoolctl import threadpool_info, threadpool_limits

from laser.bandits.linear import DualRidge, PrimalRidge
from laser.bandits.linucb import LinUCB
from laser.core.seeding import stream
from laser.core.state import load_state, save_state


class Twin:
    """Eq. 1 and 2 word for word: A_k, b_k, and an inverse for every arm at every selection."""

    def __init__(self, num_arms, dim, alpha, ridge=1.0, initial_b_KD=None):
        self.A = [ridge * np.eye(dim) for _ in range(num_arms)]
        self.b = [np.zeros(dim) if initial_b_KD is None else initial_b_KD[k].copy() for k in range(num_arms)]
        self.alpha = alpha

    def values(self, c):
        inverses = [np.linalg.inv(A) for A in self.A]
        return np.array(
            [c @ inv @ b + self.alpha * np.sqrt(c @ inv @ c) for inv, b in zip(inverses, self.b, strict=True)]
        )

    def update(self, arm, c, reward):
        self.A[arm] += np.outer(c, c)
        self.b[arm] += reward * c


def contexts(rounds, dim, norm, seed=0):
    rows = np.random.default_rng(seed).normal(size=(rounds, dim)) + 0.5
    return norm * rows / np.linalg.norm(rows, axis=1, keepdims=True)


def rewards(rows_TD, num_arms, seed=1):
    theta_KD = np.random.default_rng(seed).normal(size=(num_arms, rows_TD.shape[1]))
    unit = rows_TD / np.linalg.norm(rows_TD, axis=1, keepdims=True)
    noise = np.random.default_rng(seed + 1).normal(scale=0.1, size=(len(rows_TD), num_arms))
    return 1 / (1 + np.exp(-unit @ theta_KD.T)) + noise


def step(bandit, c, reward_K):
    selection = bandit.select(c[None])
    arm = int(selection.arms_M[0])
    bandit.update(selection.id, np.array([reward_K[arm]]))
    return arm, selection


@pytest.mark.slow
@pytest.mark.parametrize("dim", [3, 80])  # all arms in one array; dual throughout
@pytest.mark.parametrize("ridge", [0.1, 1.0, 10.0])
def test_every_value_equals_the_literal_twin(dim, ridge):
    bandit = LinUCB(4, dim, alpha=0.7, ridge=ridge, initial_b_scale=0.5, seed=3)
    twin = Twin(4, dim, 0.7, ridge, 0.5 * stream(3, "bandit", 0).standard_normal((4, dim)))
    rows = contexts(150, dim, 2.0)
    table = rewards(rows, 4)
    for c, reward_K in zip(rows, table, strict=True):
        expected = twin.values(c)
        arm, selection = step(bandit, c, reward_K)
        np.testing.assert_allclose(selection.values_MK[0], expected, rtol=1e-9, atol=1e-9)
        assert arm == expected.argmax()
        twin.update(arm, c, reward_K[arm])


STREAMS = [(0.1, 20.0, 32), (1.0, 1.0, 32), (1.0, 20.0, 32), (1.0, 20.0, 80)]  # 80 features: dual, then primal


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "norm", "dim"), STREAMS)
def test_choices_equal_mabwiser(alpha, norm, dim):
    rows = contexts(2000, dim, norm)
    table = rewards(rows, 4)
    library = MAB([0, 1, 2, 3], LearningPolicy.LinUCB(alpha=alpha, l2_lambda=1.0))
    library.fit([0, 1, 2, 3], [table[k, k] for k in range(4)], rows[:4])
    bandit = _after_round_robin(alpha, rows, table)
    for c, reward_K in zip(rows[4:], table[4:], strict=True):
        arm, _ = step(bandit, c, reward_K)
        assert library.predict([c]) == arm
        library.partial_fit([arm], [reward_K[arm]], [c])
    assert bandit.pulls_K.min() > 20  # the stream tells arms apart


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "norm", "dim"), STREAMS)
def test_choices_equal_paretobandit(alpha, norm, dim):
    library = DisjointLinUCBPolicy([str(k) for k in range(4)], dim=dim, alpha=alpha)
    rows = contexts(2000, dim, norm)
    table = rewards(rows, 4)
    bandit = _after_round_robin(alpha, rows, table)
    for k in range(4):
        library.update(str(k), rows[k], table[k, k])
    for c, reward_K in zip(rows[4:], table[4:], strict=True):
        arm, _ = step(bandit, c, reward_K)
        assert library.select_arm(c)[0] == str(arm)
        library.update(str(arm), c, reward_K[arm])


def _after_round_robin(alpha, rows, table):
    """Each arm pulled once, in order: libraries break the ties of an empty bandit in different ways."""
    bandit = LinUCB(4, rows.shape[1], alpha=alpha)
    for k in range(4):
        selection = bandit.select(rows[k][None], np.arange(4) == k)
        bandit.update(selection.id, np.array([table[k, k]]))
    return bandit


@pytest.mark.parametrize("ridge", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("num", [5, 60])
def test_means_are_closed_form_ridge_regression(ridge, num):
    rows = contexts(num, 20, 3.0)
    targets = np.random.default_rng(5).uniform(size=num)
    bandit = LinUCB(1, 20, ridge=ridge)
    for c, target in zip(rows, targets, strict=True):
        bandit.update(bandit.select(c[None]).id, np.array([target]))
    theta = np.linalg.solve(ridge * np.eye(20) + rows.T @ rows, rows.T @ targets)
    query = contexts(7, 20, 3.0, seed=9)
    means, widths = bandit.estimates(query)
    np.testing.assert_allclose(means[:, 0], query @ theta, atol=1e-10)
    inverse = np.linalg.inv(ridge * np.eye(20) + rows.T @ rows)
    np.testing.assert_allclose(widths[:, 0] ** 2, np.einsum("md,de,me->m", query, inverse, query), rtol=1e-9)


@given(st.floats(0.01, 5), st.floats(0.01, 50), st.floats(0.01, 100))
def test_without_data_the_bound_is_alpha_norm_over_root_lambda(alpha, ridge, norm):
    bandit = LinUCB(2, 6, alpha=alpha, ridge=ridge)
    value = bandit.select(contexts(1, 6, norm)).values_MK
    np.testing.assert_allclose(value, alpha * norm / np.sqrt(ridge), rtol=1e-12)


def test_relabeling_the_arms_permutes_the_choices():
    rows = contexts(300, 12, 5.0)
    table = rewards(rows, 4)
    order = np.array([2, 0, 3, 1])
    plain, relabeled = _after_round_robin(0.5, rows, table), LinUCB(4, 12, alpha=0.5)
    for k in range(4):
        new = int(np.flatnonzero(order == k)[0])
        selection = relabeled.select(rows[k][None], np.arange(4) == new)
        relabeled.update(selection.id, np.array([table[k, k]]))
    for c, reward_K in zip(rows[4:], table[4:], strict=True):
        arm, _ = step(plain, c, reward_K)
        other, _ = step(relabeled, c, reward_K[order])
        assert order[other] == arm


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([4, 30, 80]))
def test_late_and_shuffled_updates_give_the_same_arms(seed, dim):
    """Twelve selections left open, closed in any order: the models differ by rounding only."""
    rows = contexts(12, dim, 4.0, seed)
    bandits = [LinUCB(3, dim, alpha=0.5, forced_pulls=2, seed=1) for _ in range(2)]
    values = np.random.default_rng(seed).uniform(size=12)
    ids = [[bandit.select(c[None]).id for c in rows] for bandit in bandits]
    for index in range(12):
        bandits[0].update(ids[0][index], values[index : index + 1])
    for index in np.random.default_rng(seed + 1).permutation(12):
        bandits[1].update(ids[1][index], values[index : index + 1])
    query = contexts(5, dim, 4.0, seed + 2)
    for first, second in zip(bandits[0].estimates(query), bandits[1].estimates(query), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-9)


@pytest.mark.parametrize("dim", [5, 50, 64, 90])  # all arms in one array; dual, then primal; dual
def test_state_round_trip_continues_bit_for_bit(tmp_path, dim):
    rows = contexts(160, dim, 3.0)
    table = rewards(rows, 4)
    bandit = LinUCB(4, dim, alpha=0.5, initial_b_scale=0.1, forced_pulls=2, seed=2)
    for c, reward_K in zip(rows[:100], table[:100], strict=True):
        step(bandit, c, reward_K)
    waiting = bandit.select(rows[100:103])
    save_state(tmp_path / "selector", bandit.state_dict())
    again = LinUCB(4, dim, alpha=0.5, initial_b_scale=0.1, forced_pulls=2, seed=99)
    again.load_state_dict(load_state(tmp_path / "selector"))
    for copy in (bandit, again):
        copy.update(waiting.id, np.array([0.2, np.nan, 0.9]))
    for c, reward_K in zip(rows[103:], table[103:], strict=True):
        (arm, selection), (other, copy) = step(bandit, c, reward_K), step(again, c, reward_K)
        assert arm == other
        assert np.array_equal(selection.values_MK, copy.values_MK)


@pytest.mark.slow
def test_ties_are_broken_evenly_and_by_the_seed():
    def draws(seed):
        return LinUCB(4, 3, seed=seed).select(np.ones((4000, 3))).arms_M

    assert (abs(np.bincount(draws(0), minlength=4) - 1000) < 140).all()  # five standard deviations
    assert np.array_equal(draws(0), draws(0))
    assert not np.array_equal(draws(0), draws(1))
    selection = LinUCB(4, 3).select(np.ones((1, 3)))
    np.testing.assert_allclose(selection.probabilities_MK, 0.25)


@pytest.mark.parametrize("dim", [3, 17, 32, 63, 64, 90])
@pytest.mark.parametrize("num_arms", [2, 3, 5, 9])
def test_arms_that_know_the_same_tie_to_the_bit(num_arms, dim):
    bandit = LinUCB(num_arms, dim, alpha=0.7, ridge=0.3)
    rows = contexts(6, dim, 3.0)
    for known in range(2):
        values_MK = bandit.select(rows).values_MK
        assert (values_MK == values_MK[:, :1]).all(), known
        for arm in range(num_arms):
            selection = bandit.select(rows[:3], np.arange(num_arms) == arm)
            bandit.update(selection.id, np.array([0.1, 0.7, 0.4]))


def test_forced_pulls_come_first_and_spread_over_rows():
    bandit = LinUCB(4, 3, forced_pulls=2)
    arms = bandit.select(np.ones((8, 3))).arms_M
    assert np.bincount(arms, minlength=4).tolist() == [2, 2, 2, 2]


def test_forced_pulls_count_selections_that_are_still_open():
    bandit = LinUCB(4, 3, forced_pulls=1)
    assert sorted(int(bandit.select(np.ones((1, 3))).arms_M[0]) for _ in range(4)) == [0, 1, 2, 3]


def test_propensities_are_even_over_arms_that_are_forced_or_tied():
    bandit = LinUCB(4, 3, forced_pulls=1)
    bandit.update(bandit.select(np.ones((1, 3)), np.arange(4) == 2).id, np.array([1.0]))
    available = np.array([True, True, True, False])
    assert bandit.select(np.ones((1, 3)), available).probabilities_MK.tolist() == [[0.5, 0.5, 0.0, 0.0]]


def test_every_form_of_misuse_of_the_constructor_is_refused():
    for knobs in ({"ridge": 0.0}, {"alpha": -1.0}, {"initial_b_scale": -1.0}, {"alpha": np.nan}, {"forced_pulls": -1}):
        with pytest.raises(ValueError, match="need"):
            LinUCB(2, 3, **knobs)
    for shape in ((0, 3), (2, 0)):
        with pytest.raises(ValueError, match="need"):
            LinUCB(*shape)
    with pytest.raises(ValueError, match=r"expected \(2,\)"):
        LinUCB(2, 3).select(np.ones((1, 3)), np.ones(3, dtype=bool))


def test_a_variance_that_rounds_below_zero_is_clamped_and_counted():
    arm = PrimalRidge(np.asfortranarray(-1e-20 * np.eye(3)), np.zeros(3), 3)
    assert arm.estimate(np.ones(3)).variance == 0.0
    assert arm.num_clamped == 1
    few, many = LinUCB(2, 3), LinUCB(2, 64)
    few._ridges._inverse_KDD[1] *= -1e-20
    many._ridges._arms[1] = PrimalRidge(np.asfortranarray(-1e-20 * np.eye(64)), np.zeros(64), 64)
    for bandit, dim in ((few, 3), (many, 64)):
        assert bandit.select(np.ones((1, dim))).values_MK[0, 1] == 0.0
        assert bandit.num_clamped == 1


def test_rows_of_one_selection_are_learned_like_rows_of_many():
    """An arm chosen for several rows changes between their updates: the solves made at selection are stale."""
    together, apart = (LinUCB(1, 20, alpha=0.5) for _ in range(2))
    rows, targets = contexts(8, 20, 3.0), np.linspace(0, 1, 8)
    together.update(together.select(rows).id, targets)
    for c, target in zip(rows, targets, strict=True):
        apart.update(apart.select(c[None]).id, np.array([target]))
    for first, second in zip(together.estimates(rows), apart.estimates(rows), strict=True):
        assert np.array_equal(first, second)


@pytest.mark.parametrize("dim", [20, 80])
def test_contexts_that_change_after_their_selection_are_learned_as_they_were(dim):
    kept, changed = (LinUCB(1, dim, alpha=0.5) for _ in range(2))
    rows = contexts(3, dim, 3.0)
    kept.update(kept.select(rows).id, np.array([0.1, 0.9, 0.4]))
    given = rows.copy()
    selection = changed.select(given)
    given[:] = 7.0
    changed.update(selection.id, np.array([0.1, 0.9, 0.4]))
    for first, second in zip(kept.estimates(rows), changed.estimates(rows), strict=True):
        assert np.array_equal(first, second)


def test_unavailable_arms_are_never_chosen():
    bandit = LinUCB(3, 4, forced_pulls=1)
    available = np.array([True, False, True])
    for c in contexts(50, 4, 1.0):
        selection = bandit.select(c[None], available)
        assert selection.arms_M[0] != 1
        assert selection.probabilities_MK[0, 1] == 0
        bandit.update(selection.id, np.array([0.0]))
    with pytest.raises(ValueError, match="no arm is available"):
        bandit.select(np.ones((1, 4)), np.zeros(3, dtype=bool))


def test_nan_is_not_an_observation_and_other_misuse_is_refused():
    bandit = LinUCB(2, 3)
    selection = bandit.select(np.ones((2, 3)))
    with pytest.raises(ValueError, match="2 rows"):
        bandit.update(selection.id, np.array([1.0]))
    with pytest.raises(ValueError, match="finite"):
        bandit.update(selection.id, np.array([1.0, np.inf]))
    bandit.update(selection.id, np.array([np.nan, np.nan]))
    assert bandit.pulls_K.sum() == 0
    with pytest.raises(KeyError, match="not open"):
        bandit.update(selection.id, np.array([1.0, 1.0]))
    with pytest.raises(ValueError, match="finite"):
        bandit.select(np.array([[1.0, np.nan, 0.0]]))
    with pytest.raises(ValueError, match="shape"):
        bandit.select(np.ones((1, 4)))
    expired = bandit.select(np.ones((1, 3)))
    bandit.expire(expired.id)
    with pytest.raises(KeyError):
        bandit.expire(expired.id)


@pytest.mark.parametrize("name", ["alpha", "ridge", "initial_b_scale", "seed"])
def test_every_knob_changes_the_values(name):
    knobs = {"alpha": 0.5, "ridge": 2.0, "initial_b_scale": 1.0, "seed": 0}
    changed = {**knobs, name: knobs[name] + 1}
    first, second = (LinUCB(3, 5, **each).select(np.ones((1, 5))).values_MK for each in (knobs, changed))
    assert not np.allclose(first, second)


def test_ties_continue_where_they_were_after_a_round_trip():
    bandit, again = LinUCB(4, 3, seed=1), LinUCB(4, 3, seed=2)
    bandit.select(np.zeros((5, 3)))
    again.load_state_dict(bandit.state_dict())
    nothing = np.zeros((50, 3))
    assert np.array_equal(bandit.select(nothing).arms_M, again.select(nothing).arms_M)


def test_a_loaded_state_replaces_open_selections_and_their_solves():
    """Both selectors have a selection 2 open; the one loaded must be the one that is learned."""
    bandit, again = LinUCB(2, 6), LinUCB(2, 6)
    for each, norm in ((bandit, 1.0), (again, 7.0)):
        for c in contexts(2, 6, norm):
            each.update(each.select(c[None], np.array([True, False])).id, np.array([norm / 7]))
    first = bandit.select(contexts(1, 6, 2.0), np.array([True, False]))
    for seed in (3, 4):
        again.select(contexts(1, 6, 5.0, seed), np.array([True, False]))
    again.load_state_dict(bandit.state_dict())
    assert again.select(np.ones((1, 6))).id == bandit.select(np.ones((1, 6))).id > first.id
    for each in (bandit, again):
        each.update(first.id, np.array([0.25]))
    query = contexts(3, 6, 1.0, seed=8)
    assert np.array_equal(bandit.estimates(query)[0], again.estimates(query)[0])


def test_closed_selections_hold_no_memory():
    bandit = LinUCB(2, 6)
    for c in contexts(4, 6, 1.0):
        bandit.expire(bandit.select(c[None]).id)
        bandit.update(bandit.select(c[None]).id, np.array([1.0]))
    assert not bandit._memos
    assert bandit.state_dict()["open.ids"] == []


def test_state_of_another_shape_is_refused():
    state = LinUCB(3, 5).state_dict()
    for other in (LinUCB(4, 5), LinUCB(3, 6), LinUCB(3, 5, ridge=2.0)):
        with pytest.raises(ValueError, match="this one has"):
            other.load_state_dict(state)


@pytest.mark.parametrize("ridge", [1.0, 1e-6])
@pytest.mark.parametrize("norm", [1.0, 1000.0])
def test_variance_keeps_its_digits_where_the_difference_cancels(norm, ridge):
    """Contexts with one dominant direction, 150 of 200 features seen: compare with a solve in the eigenbasis.

    At norm 1000 and ridge 1e-6 the plain difference (c'c - y'y) / ridge is off by some 1e-16 x 1e6 / 1e-6 = 1e-4.
    """
    generator = np.random.default_rng(0)
    rows = norm * (1 + 0.01 * generator.normal(size=(150, 200))) / np.sqrt(200)
    arm = DualRidge(np.zeros(200), ridge)
    for c in rows:
        arm.observe(c, 0.5)
    _, s, vt = np.linalg.svd(rows, full_matrices=False)
    for c in rows[:5]:
        inside = vt @ c
        outside = c - vt.T @ inside
        exact = float((inside**2 / (ridge + s**2)).sum() + outside @ outside / ridge)
        assert arm.estimate(c).variance == pytest.approx(exact, rel=1e-6)


def test_an_arm_changes_form_when_it_has_seen_as_many_contexts_as_features():
    bandit, twin = LinUCB(1, 64, alpha=1.0), Twin(1, 64, 1.0)
    forms, sizes = [], []
    for c in contexts(100, 64, 3.0):
        selection = bandit.select(c[None])
        np.testing.assert_allclose(selection.values_MK[0], twin.values(c), rtol=1e-9)
        bandit.update(selection.id, np.array([0.5]))
        twin.update(0, c, 0.5)
        forms.append(type(bandit._ridges._arms[0]))
        sizes.append(bandit.num_bytes)
    assert forms == [DualRidge] * 63 + [PrimalRidge] * 37
    assert set(sizes[63:]) == {8 * (64 * 64 + 64)}


def test_a_state_in_dual_form_is_taken_over_where_there_are_few_features():
    """What an earlier version wrote."""
    rows = contexts(6, 12, 3.0)
    dual, bandit = DualRidge(np.zeros(12), 1.0), LinUCB(1, 12)
    for c in rows[:5]:
        dual.observe(c, float(c[0]))
    state = {name: value for name, value in bandit.state_dict().items() if not name.startswith("learned.")}
    state |= {f"learned.0.{name}": value for name, value in dual.state_dict().items()}
    bandit.load_state_dict(state)
    expected = dual.estimate(rows[5])
    means_MK, widths_MK = bandit.estimates(rows[5:])
    assert (means_MK.item(), widths_MK.item() ** 2) == pytest.approx((expected.mean, expected.variance))


def test_one_blas_thread_while_estimating_and_as_many_as_before_afterwards():
    threads = []

    class Probe(DualRidge):
        def estimate(self, context):
            threads.append({each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"})
            return super().estimate(context)

    bandit = LinUCB(1, 64)
    bandit._ridges._arms[0] = Probe(np.zeros(64), 1.0)
    with threadpool_limits(2, user_api="blas"):
        bandit.update(bandit.select(np.ones((2, 64))).id, np.ones(2))
        assert {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"} == {2}
    assert threads == [{1}] * 3  # two rows selected, the second row's stale solve made again


def test_dual_and_primal_agree_where_they_meet():
    rows = contexts(30, 30, 5.0)
    dual = DualRidge(np.random.default_rng(0).normal(size=30), 2.0)
    for c in rows:
        dual.observe(c, float(c[0]))
    primal = dual.to_primal()
    for c in contexts(5, 30, 5.0, seed=4):
        a, b = dual.estimate(c), primal.estimate(c)
        assert a.mean == pytest.approx(b.mean, abs=1e-9)
        assert a.variance == pytest.approx(b.variance, rel=1e-8)
    assert isinstance(PrimalRidge.restore(primal.state_dict()), PrimalRidge)


def test_contexts_that_are_float32_are_stored_in_half_the_bytes():
    arm = DualRidge(np.zeros(64), 1.0)
    for c in contexts(10, 64, 1.0):
        arm.observe(c.astype(np.float32).astype(np.float64), 1.0)
    assert arm.state_dict()["contexts"].dtype == np.float32
    arm.observe(np.full(64, 0.1), 1.0)
    assert arm.state_dict()["contexts"].dtype == np.float64

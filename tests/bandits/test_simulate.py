"""Environments and regret."""

import numpy as np
import pytest

from laser.bandits.baselines import UniformRandom
from laser.bandits.forgetting import ForgettingLinUCB
from laser.bandits.linucb import LinUCB
from laser.bandits.simulate import classification, compare, drifting, linear, regret


def test_linucb_has_a_tenth_of_the_regret_of_chance_where_rewards_are_linear():
    curves = compare(
        {
            "linucb": lambda k, d, seed: LinUCB(k, d, alpha=0.1, seed=seed),
            "random": lambda k, d, seed: UniformRandom(k, seed=seed),
        },
        [lambda seed: linear(seed, rounds=600)],
        3,
    )["linear"]
    assert curves["linucb"].shape == (3, 600)
    assert curves["linucb"][:, -1].mean() < 0.25 * curves["random"][:, -1].mean()


@pytest.mark.slow
def test_forgetting_pays_where_arms_change_and_not_where_they_stay():
    def final(make, kind):
        return np.mean([regret(make(seed), drifting(seed, kind=kind, rounds=1200))[-1] for seed in range(4)])

    def plain(seed):
        return LinUCB(4, 16, alpha=1.0, seed=seed)

    def forgetting(seed):
        return ForgettingLinUCB(4, 16, rule="discount", alpha=1.0, gamma=0.99, seed=seed)

    assert final(forgetting, "abrupt") < final(plain, "abrupt")
    assert final(forgetting, "stationary") > final(plain, "stationary")


def test_regret_of_an_environment_with_equal_arms_is_zero():
    environment = classification(
        "x", np.random.default_rng(0).normal(size=(30, 3)), np.zeros(30, dtype=int), 0, rounds=50
    )
    assert regret(UniformRandom(1), environment)[-1] == 0.0


def test_environments_repeat_with_their_seed():
    for make in (linear, drifting):
        np.testing.assert_array_equal(make(3, rounds=40).rewards_TK, make(3, rounds=40).rewards_TK)
        assert (make(3, rounds=40).rewards_TK != make(4, rounds=40).rewards_TK).any()

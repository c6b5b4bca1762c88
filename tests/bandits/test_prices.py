"""Prices: a known penalty on an arm's value, in every selector that learns."""

import numpy as np
import pytest

from laser.bandits.context_free import UCB1, EpsilonGreedy, Exp3
from laser.bandits.forgetting import ForgettingLinUCB
from laser.bandits.linucb import LinUCB
from laser.bandits.neural import NeuralUCB
from laser.bandits.thompson import LinearThompson
from playing import play

DEAR, CHEAP = 0, 1
MAKERS = {
    "linucb": lambda num, dim: LinUCB(num, dim),
    "thompson": lambda num, dim: LinearThompson(num, dim),
    "forgetting": lambda num, dim: ForgettingLinUCB(num, dim, alpha=0.1),
    "ucb1": lambda num, dim: UCB1(num, alpha=0.1),
    "epsilon_greedy": lambda num, dim: EpsilonGreedy(num),
    "exp3": lambda num, dim: Exp3(num, eta=0.2),
    "neural": lambda num, dim: NeuralUCB(num, dim, hidden=(16,), forced_pulls=2),
}

NAMES = [pytest.param(name, marks=pytest.mark.slow) if name == "neural" else name for name in MAKERS]


def share_of_the_dear_arm(selector, *, rounds=120, rewards=(0.9, 0.5)):
    """In the second half of some rounds with one constant context."""
    chosen = []
    for _ in range(rounds):
        selection = selector.select(np.ones((1, 3)))
        chosen.append(int(selection.arms_M[0]))
        selector.update(selection.id, np.array([rewards[chosen[-1]]]))
    return np.mean(np.array(chosen[rounds // 2 :]) == DEAR)


@pytest.mark.parametrize("name", NAMES)
def test_a_better_arm_is_chosen_until_its_price_outweighs_it(name):
    free, priced = MAKERS[name](2, 3), MAKERS[name](2, 3)
    priced.penalize(lambda: np.array([0.8, 0.0]))
    rounds = 30 if name == "neural" else 120
    assert share_of_the_dear_arm(free, rounds=rounds) > 0.6
    assert share_of_the_dear_arm(priced, rounds=rounds) < 0.4


@pytest.mark.parametrize("name", NAMES)
def test_penalties_that_are_equal_or_zero_change_nothing(name):
    plain, zero, equal = (MAKERS[name](4, 6) for _ in range(3))
    zero.penalize(lambda: np.zeros(4))
    rounds = 8 if name == "neural" else 30
    assert play(plain, rounds) == play(zero, rounds)
    if name != "exp3":  # its rewards are scaled into [0, 1]
        equal.penalize(lambda: np.full(4, 0.25))
        assert play(MAKERS[name](4, 6), rounds) == play(equal, rounds)


def test_a_price_changes_choices_and_not_what_is_learned():
    """LinUCB, by hand: the values that are shown are those of the quality, and a new price has effect at once."""
    selector, prices = LinUCB(2, 1, alpha=0.0, ridge=1e-9), np.array([0.1, 0.0])
    selector.penalize(lambda: prices)
    for arm, reward in ((DEAR, 0.9), (CHEAP, 0.7)):
        selection = selector.select(np.ones((1, 1)), np.arange(2) == arm)
        selector.update(selection.id, np.array([reward]))
    choice = selector.select(np.ones((1, 1)))
    np.testing.assert_allclose(choice.values_MK, [[0.9, 0.7]], rtol=1e-6)
    assert choice.arms_M.tolist() == [DEAR]
    prices[DEAR] = 0.3
    assert selector.select(np.ones((1, 1))).arms_M.tolist() == [CHEAP]


def test_exp3_keeps_its_rewards_in_the_unit_interval():
    """S grows by eta r / p with r = (reward - price + highest price) / (1 + highest price)."""
    selector = Exp3(2, gamma=0.0)
    selector.penalize(lambda: np.array([1.0, 0.0]))
    for arm, reward, expected in ((DEAR, 1.0, 0.5), (CHEAP, 1.0, 1.0), (DEAR, 0.0, 0.0)):
        before = selector.learned_state()["log_weights"]
        selection = selector.select(np.zeros((1, 1)), np.arange(2) == arm)
        selector.update(selection.id, np.array([reward]))
        after = selector.learned_state()["log_weights"]
        assert (after - before)[arm] - (after - before)[1 - arm] == pytest.approx(expected)


def test_a_price_shifts_the_posterior_that_thompson_sampling_draws_from():
    priced, worse = LinearThompson(2, 1, ridge=1.0), LinearThompson(2, 1, ridge=1.0)
    priced.penalize(lambda: np.array([0.05, 0.0]))
    for selector, rewards in ((priced, (0.6, 0.5)), (worse, (0.5, 0.5))):
        for arm, reward in enumerate(rewards):
            selection = selector.select(np.ones((1, 1)), np.arange(2) == arm)
            selector.update(selection.id, np.array([reward]))
    np.testing.assert_allclose(
        priced.select(np.ones((1, 1))).probabilities_MK, worse.select(np.ones((1, 1))).probabilities_MK
    )

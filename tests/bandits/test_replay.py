"""Off-policy estimates on simulated logs, where the expected reward of every choice is known."""

from dataclasses import replace

import numpy as np
import pytest

from laser.bandits.baselines import UniformRandom
from laser.bandits.context_free import EpsilonGreedy, Exp3
from laser.bandits.linucb import LinUCB
from laser.bandits.replay import REPLAY_SEED, LoggedRows, bootstrap, off_policy, replay
from laser.bandits.simulate import drifting, linear

K, D, ROUNDS, LOGS = 4, 6, 150, 25
MAKERS = {
    "exp3": lambda seed: Exp3(K, seed=seed),
    "epsilon-greedy": lambda seed: EpsilonGreedy(K, epsilon=0.3, seed=seed),
    "random": lambda seed: UniformRandom(K, seed=seed),
    "linucb": lambda seed: LinUCB(K, D, alpha=0.3, seed=seed),
}


def environment_of(seed):
    """Rewards of 0 and 1 whose means are exactly those of the environment."""
    environment = drifting(seed, kind="stationary", rounds=ROUNDS, arms=K, dim=D)
    draws = np.random.default_rng(seed).random(environment.means_TK.shape) < environment.means_TK
    return replace(environment, rewards_TK=draws.astype(float))


def make_log(selector, environment, size=1):
    """A log of a selector in an environment, `size` contexts a selection."""
    arms, probabilities, rewards = [], [], []
    for first in range(0, ROUNDS, size):
        rows = np.arange(first, min(first + size, ROUNDS))
        selection = selector.select(environment.contexts_TD[rows])
        earned = environment.rewards_TK[rows, selection.arms_M]
        selector.update(selection.id, earned)
        arms.append(selection.arms_M)
        probabilities.append(selection.probabilities_MK)
        rewards.append(earned)
    batches = np.arange(ROUNDS) // size
    return LoggedRows(
        environment.contexts_TD, np.concatenate(arms), np.vstack(probabilities), np.concatenate(rewards), batches
    )


def expected(selector, logged, environment):
    """The estimand: mean over supported rows of sum_a pi(a) mean(a), for a selector that learns from earlier rows."""
    values = []
    for rows in logged.batches():
        selection = selector.select(logged.contexts_ND[rows])
        selector.expire(selection.id)
        supported = ((selection.probabilities_MK == 0) | (logged.probabilities_NK[rows] > 0)).all(axis=1)
        values += (selection.probabilities_MK * environment.means_TK[rows]).sum(axis=1)[supported].tolist()
        given = (logged.contexts_ND[rows], logged.arms_N[rows], logged.rewards_N[rows], logged.propensities_N[rows])
        selector.observe(*given)
    return np.mean(values)


@pytest.mark.slow
@pytest.mark.parametrize("target", MAKERS)
@pytest.mark.parametrize("logger", ["exp3", "epsilon-greedy", "random"])
def test_estimates_by_propensity_are_unbiased(logger, target):
    """Over 25 logs the mean error is within two standard errors of 0; SNIPS has a bias of order 1/N too."""
    errors = []
    for seed in range(LOGS):
        environment = environment_of(seed)
        logged = make_log(MAKERS[logger](seed), environment)
        found = off_policy(MAKERS[target](REPLAY_SEED), logged)
        truth = expected(MAKERS[target](REPLAY_SEED), logged, environment)
        assert found.support >= 1 - K / ROUNDS
        errors.append([one.value - truth for one in (found.ips, found.snips, found.doubly_robust)])
    bias, error = np.mean(errors, axis=0), np.std(errors, axis=0, ddof=1) / np.sqrt(LOGS)
    assert (np.abs(bias) <= 2 * error + [0, 1 / ROUNDS, 0]).all(), (bias, error)


@pytest.mark.parametrize(("name", "size"), [*((name, 1) for name in MAKERS), ("exp3", 5), ("linucb", 5)])
def test_the_logs_own_selector_is_worth_what_it_earned(name, size):
    """It has the log's own probabilities in every row, ties and batches included, so that every weight is 1."""
    logged = make_log(MAKERS[name](0), environment_of(0), size)
    found = off_policy(MAKERS[name](REPLAY_SEED), logged)
    assert found.support == 1.0
    for one in (found.ips, found.snips):
        assert one.value == pytest.approx(logged.rewards_N.mean(), abs=1e-9)
        assert one.interval[0] < one.value < one.interval[1]


@pytest.mark.parametrize("target", ["exp3", "epsilon-greedy", "random"])
def test_a_deterministic_log_supports_no_other_selector(target):
    found = off_policy(MAKERS[target](REPLAY_SEED), make_log(MAKERS["linucb"](0), environment_of(0)))
    assert found.support < 0.9
    assert (found.ips, found.snips, found.doubly_robust) == (None, None, None)


@pytest.mark.slow
def test_the_regression_of_the_doubly_robust_estimate_takes_variance_away():
    errors = []
    for seed in range(15):
        environment = environment_of(seed)
        logged = make_log(MAKERS["random"](seed), environment)
        found = off_policy(MAKERS["linucb"](REPLAY_SEED), logged)
        truth = expected(MAKERS["linucb"](REPLAY_SEED), logged, environment)
        errors.append([found.ips.value - truth, found.doubly_robust.value - truth])
    assert np.std(errors, axis=0)[1] < 0.9 * np.std(errors, axis=0)[0]


@pytest.mark.parametrize("name", ["exp3", "epsilon-greedy", "random"])
def test_matching_draws_are_independent_of_the_log(name):
    """A selector that draws with the log's seed would match far more rows of the same log than the propensities say."""
    logged = make_log(MAKERS[name](0), environment_of(0))
    found = replay(MAKERS[name](REPLAY_SEED), logged)
    if name == "random":
        assert found.num_rows == pytest.approx(ROUNDS / K, abs=4 * np.sqrt(ROUNDS / K))
    assert found.num_rows < 0.9 * ROUNDS
    low, high = found.value.interval
    assert low - 0.05 < logged.rewards_N.mean() < high + 0.05


@pytest.mark.slow
def test_replay_of_uniform_logs_finds_the_value_of_a_selector():
    environment = linear(0, rounds=4000, noise=0.0)
    generator = np.random.default_rng(1)
    arms = generator.integers(5, size=4000)
    rewards = environment.rewards_TK[np.arange(4000), arms]
    logged = LoggedRows(environment.contexts_TD, arms, np.full((4000, 5), 0.2), rewards, np.arange(4000))
    chance = replay(UniformRandom(5, seed=1), logged)
    assert chance.value.value == pytest.approx(rewards.mean(), abs=0.05)
    learned = replay(LinUCB(5, 20, alpha=0.1), logged)
    assert learned.value.value > chance.value.value + 0.15
    assert 600 < learned.num_rows < 1000


def test_the_bootstrap_interval_is_that_of_the_mean():
    """Of 400 values with deviation 1: 1.96 / 20 to either side, within the noise of 1,000 resamples."""
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap((values - values.mean()) / values.std(), np.ones(400))
    assert (low, high) == pytest.approx((-0.098, 0.098), abs=0.012)
    assert bootstrap(values[:1], np.ones(1)) is None


def test_observing_is_learning_what_a_selection_would_have_taught():
    """Updating a selection, and observing the same choices elsewhere, leave the same state; open choices apart."""
    environment = environment_of(1)
    for name, make in MAKERS.items():
        one, other = make(3), make(4)
        for context, rewards in zip(environment.contexts_TD[:40], environment.rewards_TK[:40], strict=True):
            selection = one.select(context[None])
            arm = selection.arms_M
            one.update(selection.id, rewards[arm])
            other.observe(context[None], arm, rewards[arm], selection.probabilities_MK[0, arm])
        values = [selector.select(environment.contexts_TD[:5]).values_MK for selector in (one, other)]
        np.testing.assert_allclose(*values, err_msg=name)
        np.testing.assert_array_equal(one.pulls_K, other.pulls_K)

"""What every selector keeps: its state, its propensities, its bounds."""

import numpy as np
import pytest

from laser.bandits import forgetting
from laser.bandits.base import StateVersionError
from laser.bandits.baselines import Fixed, Frozen, Sequential, UniformRandom
from laser.bandits.classifier import ClassifierSelector, QueryClassifier
from laser.bandits.context_free import UCB1, EpsilonGreedy, Exp3
from laser.bandits.ensembles import MultiplicativeWeights, UniformEnsemble
from laser.bandits.forgetting import ForgettingLinUCB
from laser.bandits.linucb import LinUCB
from laser.bandits.neural import NeuralUCB
from laser.bandits.thompson import LinearThompson
from laser.core.state import load_state, save_state
from playing import D, K, contexts, play

MAKERS = {
    "linucb": lambda seed=0: LinUCB(K, D, seed=seed),
    "thompson": lambda seed=0: LinearThompson(K, D, seed=seed),
    "discount": lambda seed=0: ForgettingLinUCB(K, D, rule="discount", seed=seed),
    "window": lambda seed=0: ForgettingLinUCB(K, D, rule="window", window=20, seed=seed),
    "decay": lambda seed=0: ForgettingLinUCB(K, D, rule="decay", seed=seed),
    "adaptive": lambda seed=0: ForgettingLinUCB(K, D, rule="adaptive", seed=seed),
    "exp3": lambda seed=0: Exp3(K, seed=seed),
    "ucb1": lambda seed=0: UCB1(K, seed=seed),
    "epsilon_greedy": lambda seed=0: EpsilonGreedy(K, seed=seed),
    "neural_full": lambda seed=0: NeuralUCB(K, D, hidden=(8, 4), train_steps=3, seed=seed),
    "neural_diagonal": lambda seed=0: NeuralUCB(K, D, hidden=(8, 4), confidence="diagonal", train_steps=3, seed=seed),
    "fixed": lambda seed=0: Fixed(K, 2),
    "random": lambda seed=0: UniformRandom(K, seed=seed),
    "sequential": lambda seed=0: Sequential(K, [2, 0, 1, 3], every=3),
    "classifier": lambda seed=0: ClassifierSelector(QueryClassifier(D, K, hidden=(8,), seed=1)),
    "frozen": lambda seed=0: Frozen(LinUCB(K, D, seed=seed)),
    "uniform_ensemble": lambda seed=0: UniformEnsemble(K),
    "multiplicative_weights": lambda seed=0: MultiplicativeWeights(K),
}
LEARNERS = [name for name in MAKERS if name not in ("fixed", "random", "sequential", "classifier", "frozen")]


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_a_saved_state_gives_the_same_next_50_selections(name, tmp_path):
    first, second = MAKERS[name](seed=1), MAKERS[name](seed=2)
    play(first, 20)
    waiting = first.select(contexts(3, seed=5))
    save_state(tmp_path / "state", first.state_dict())
    second.load_state_dict(load_state(tmp_path / "state"))
    for selector in (first, second):
        selector.update(waiting.id, np.full(len(waiting.charged_E), 0.7))
    assert play(first, 50, seed=3) == play(second, 50, seed=3)
    assert repr(first.state_dict()) == repr(second.state_dict())


@pytest.mark.parametrize("name", MAKERS)
def test_weights_and_propensities_are_distributions_and_respect_the_mask(name):
    selector = MAKERS[name]()
    available = np.array([True, False, True, False])
    for mask in (None, available):
        selection = selector.select(contexts(7), mask)
        np.testing.assert_allclose(selection.weights_MK.sum(axis=1), 1.0)
        np.testing.assert_allclose(selection.probabilities_MK.sum(axis=1), 1.0)
        assert selection.values_MK.shape == (7, K)
        if mask is not None:
            assert not selection.probabilities_MK[:, ~mask].any()
            assert not selection.weights_MK[:, ~mask].any()
    with pytest.raises(ValueError, match="available"):
        selector.select(contexts(1), np.zeros(K, dtype=bool))


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "uniform_ensemble"])
def test_late_rewards_need_an_open_selection_of_their_size(name):
    selector = MAKERS[name]()
    first, second = selector.select(contexts(2)), selector.select(contexts(2))
    if name != "frozen":
        with pytest.raises(ValueError, match="rewards"):
            selector.update(second.id, np.ones(3))
    selector.update(second.id, np.full(len(second.charged_E), np.nan))
    selector.expire(first.id)
    for selection in (first, second):
        with pytest.raises(KeyError, match="not open"):
            selector.expire(selection.id)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["thompson", "exp3", "epsilon_greedy", "random"])
def test_draws_match_propensities(name):
    selector = MAKERS[name]()
    play(selector, 10)
    selection = selector.select(np.repeat(contexts(1), 20_000, axis=0))
    frequencies = np.bincount(selection.arms_M, minlength=K) / 20_000
    np.testing.assert_allclose(frequencies, selection.probabilities_MK[0], atol=0.015)


@pytest.mark.parametrize("name", LEARNERS)
def test_states_of_other_pools_are_refused(name):
    state = MAKERS[name]().state_dict()
    with pytest.raises(ValueError, match="state is of"):
        MAKERS[name]().load_state_dict({**state, "num_arms": K + 1})
    with pytest.raises(ValueError, match="state is of"):
        MAKERS[name]().load_state_dict({**state, "kind": "other"})
    if "dim" in state:
        with pytest.raises(ValueError, match="state is of a selector with dim"):
            MAKERS[name]().load_state_dict({**state, "dim": D + 1})


@pytest.mark.parametrize("name", MAKERS)
def test_a_state_of_another_version_is_reported_as_one_whatever_else_it_holds(name):
    state = {**MAKERS[name]().state_dict(), "version": 99, "num_arms": K + 1}
    with pytest.raises(StateVersionError, match="has version 99 and this laser reads version 1; use the laser that"):
        MAKERS[name]().load_state_dict(state)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Exp3(K, gamma=1.5), "gamma"),
        (lambda: Exp3(K, eta=0), "eta"),
        (lambda: EpsilonGreedy(K, epsilon=-1), "epsilon"),
        (lambda: UCB1(K, alpha=-1), "alpha"),
        (lambda: LinearThompson(K, D, scale=0), "scale"),
        (lambda: LinearThompson(K, D, prior_KD=np.ones((K, D + 1))), "prior"),
        (lambda: ForgettingLinUCB(K, D, gamma=0), "gamma"),
        (lambda: ForgettingLinUCB(K, D, gamma=1.0), "gamma"),  # it would never forget
        (lambda: NeuralUCB(K, D, memory=0), "memory"),
        (lambda: NeuralUCB(K, D, hidden=()), "hidden"),
        (lambda: Sequential(K, []), "order"),
        (lambda: MultiplicativeWeights(K, eta=2), "eta"),
        (lambda: LinUCB(0, D), "num_arms"),
    ],
)
def test_arguments_out_of_range_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def check_finite(selector):
    selection = selector.select(np.zeros((1, D)))
    assert np.isfinite(selection.values_MK).all()
    assert np.isfinite(selection.probabilities_MK).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exp3", "ucb1", "epsilon_greedy"])
def test_a_million_updates_keep_finite_numbers(name):
    """10,000 at a time, drawn here by the selector's probabilities: a selector draws row by row, which takes longer."""
    selector, generator = MAKERS[name](), np.random.default_rng(0)
    for _ in range(100):
        selection = selector.select(np.zeros((1, D)))
        selector.expire(selection.id)
        (probabilities_K,) = selection.probabilities_MK
        arms = generator.choice(K, size=10_000, p=probabilities_K)
        selector.observe(np.zeros((10_000, D)), arms, np.ones(10_000), probabilities_K[arms])
    assert selector.pulls_K.sum() == 1_000_000
    check_finite(selector)


@pytest.mark.slow
def test_a_million_rows_keep_finite_weights():
    """The costs of the ensemble, 0 for the first reward model and 1 for the others, add up to 1,000."""
    selector = MultiplicativeWeights(K)
    for _ in range(2_000):
        selection = selector.select(np.zeros((500, D)))
        selector.update(selection.id, np.tile(np.arange(K) == 0, 500))
    check_finite(selector)
    assert selector.select(np.zeros((1, D))).weights_MK[0, 0] == 1.0


def num_bytes(selector):
    """Bytes of the arrays a checkpoint would hold."""
    return sum(value.nbytes for value in selector.state_dict().values() if isinstance(value, np.ndarray))


LONG = {  # a selector that has met its bound after the first third of the rows, and how many rows that are
    "linucb": (lambda: LinUCB(2, 3), 3_000),
    "thompson": (lambda: LinearThompson(2, 3), 1_500),
    "discount": (lambda: ForgettingLinUCB(2, 3, rule="discount", gamma=0.95), 3_000),
    "window": (lambda: ForgettingLinUCB(2, 3, rule="window", window=200), 3_000),
    "decay": (lambda: ForgettingLinUCB(2, 3, rule="decay", gamma=0.95), 3_000),
    "adaptive": (lambda: ForgettingLinUCB(2, 3, rule="adaptive"), 3_000),
    "neural_full": (lambda: NeuralUCB(2, 3, hidden=(8, 4), train_steps=1, memory=100), 900),
    "neural_diagonal": (
        lambda: NeuralUCB(2, 3, hidden=(8, 4), train_steps=1, memory=100, confidence="diagonal"),
        900,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_long_runs_stay_small_and_finite(name, monkeypatch):
    """The arrays of a state are all that a selector holds, and the cost of a step grows with nothing else.

    For adaptive with shorter memories than its own, of which the longest holds 27,624 observations.
    """
    monkeypatch.setattr(forgetting, "EXPERTS", (0.95, 0.9))
    make, num_rows = LONG[name]
    selector, generator = make(), np.random.default_rng(0)
    chunk = max(num_rows // 300, 1)
    sizes = []
    for _ in range(num_rows // chunk):
        selection = selector.select(generator.normal(size=(chunk, 3)))
        selector.update(selection.id, generator.uniform(size=chunk))
        sizes.append(num_bytes(selector))
    assert max(sizes[len(sizes) // 3 :]) <= 1.2 * max(sizes[: len(sizes) // 3])
    assert selector.pulls_K.sum() == num_rows
    selection = selector.select(generator.normal(size=(5, 3)))
    assert np.isfinite(selection.values_MK).all()
    np.testing.assert_allclose(selection.probabilities_MK.sum(axis=1), 1.0)
    assert all(np.isfinite(v).all() for v in selector.state_dict().values() if isinstance(v, np.ndarray))


@pytest.mark.slow
def test_a_hundred_thousand_rank_one_updates_are_still_ridge_regression():
    """Why a million stay finite too: A^-1 only shrinks (each step subtracts a positive matrix of smaller norm), theta
    moves by at most |A^-1 c| |r - mean|, and rounding errors shrink with A^-1, as this comparison with the closed form
    shows: were they to grow with the number of steps, it would be off.
    """
    generator = np.random.default_rng(0)
    selector, gram, right = LinUCB(1, 5), np.eye(5), np.zeros(5)
    for _ in range(100):
        rows, rewards = generator.normal(size=(1_000, 5)) + 0.3, generator.uniform(size=1_000)
        selector.update(selector.select(rows).id, rewards)
        gram, right = gram + rows.T @ rows, right + rows.T @ rewards
    rows = generator.normal(size=(4, 5))
    widths = np.sqrt(np.einsum("md,md->m", rows, np.linalg.solve(gram, rows.T).T))
    expected = rows @ np.linalg.solve(gram, right) + selector.alpha * widths
    np.testing.assert_allclose(selector.select(rows).values_MK[:, 0], expected, rtol=1e-9)

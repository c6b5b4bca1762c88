"""What every selector keeps, and the mathematics of each one."""

import numpy as np
import pytest
from pareto_bandit.policy import DisjointLinUCBPolicy

from laser.bandits import forgetting
from laser.bandits.base import StateVersionError
from laser.bandits.baselines import Fixed, Frozen, Sequential, UniformRandom
from laser.bandits.classifier import ClassifierSelector, QueryClassifier, fit_prior, label_queries
from laser.bandits.context_free import UCB1, EpsilonGreedy, Exp3
from laser.bandits.ensembles import MultiplicativeWeights, UniformEnsemble
from laser.bandits.forgetting import EXPERTS, ForgettingLinUCB
from laser.bandits.linucb import LinUCB
from laser.bandits.neural import NeuralUCB
from laser.bandits.thompson import LinearThompson, probability_of_largest
from laser.statefiles import load_state, save_state

K, D = 4, 6
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


def contexts(num, seed=0):
    return np.random.default_rng(seed).normal(size=(num, D)) + 0.3


def play(selector, rounds, seed=0):
    """Arms chosen over some rounds of two rows; the bandit reward is a fixed function of context and arm."""
    rows = contexts(2 * rounds, seed).reshape(rounds, 2, D)
    theta = np.random.default_rng(9).normal(size=(K, D))
    arms = []
    for pair in rows:
        selection = selector.select(pair)
        arms.append(selection.arms_M.tolist())
        rewards = [1 / (1 + np.exp(-pair[row] @ theta[arm])) for row, arm in selection.charged_E]
        selector.update(selection.id, np.array(rewards))
    return arms


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
def test_a_state_of_another_version_is_told_as_one_whatever_else_it_holds(name):
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
        (lambda: ForgettingLinUCB(K, D, gamma=1.0), "gamma"),  # it would remember all observations for ever
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


@pytest.mark.parametrize("name", ["exp3", "ucb1", "epsilon_greedy", "multiplicative_weights"])
def test_a_million_updates_keep_finite_numbers(name):
    selector = MAKERS[name]()
    for _ in range(100):  # 100 selections of 10,000 rows
        selection = selector.select(np.zeros((10_000, D)))
        selector.update(selection.id, np.ones(len(selection.charged_E)))
    selection = selector.select(np.zeros((1, D)))
    assert np.isfinite(selection.values_MK).all()
    assert np.isfinite(selection.probabilities_MK).all()


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


def test_exp3_is_equations_3_and_4():
    """S starts at 0, so p = 1/4 each; a reward of 0.5 adds 0.5 / 0.25 = 2 to the drawn arm."""
    selector = Exp3(4, gamma=0.2)
    selection = selector.select(np.zeros((1, 1)))
    selector.update(selection.id, np.array([0.5]))
    weights = np.where(np.arange(4) == selection.arms_M[0], np.exp(2.0), 1.0)
    expected = 0.8 * weights / weights.sum() + 0.2 / 4
    np.testing.assert_allclose(selector.select(np.zeros((1, 1))).probabilities_MK[0], expected)


def test_a_late_exp3_update_divides_by_the_probability_of_its_draw():
    selector = Exp3(2, gamma=0.0)
    late = selector.select(np.zeros((1, 1)))
    for _ in range(5):
        selector.update(selector.select(np.zeros((1, 1))).id, np.array([1.0]))
    before = selector._log_weights_K[late.arms_M[0]] - selector._log_weights_K[1 - late.arms_M[0]]
    selector.update(late.id, np.array([1.0]))
    after = selector._log_weights_K[late.arms_M[0]] - selector._log_weights_K[1 - late.arms_M[0]]
    assert after - before == pytest.approx(2.0)  # 1 / 0.5


def test_probability_of_the_largest_normal_matches_draws():
    means, deviations = np.array([0.0, 0.3, 0.25, -5.0]), np.array([1.0, 0.2, 1e-14, 0.1])
    draws = np.random.default_rng(0).normal(means, deviations, size=(200_000, 4)).argmax(axis=1)
    expected = np.bincount(draws, minlength=4) / 200_000
    np.testing.assert_allclose(probability_of_largest(means, deviations), expected, atol=4e-3)


def test_two_equal_arms_are_equally_probable():
    np.testing.assert_allclose(probability_of_largest(np.zeros(2), np.full(2, 0.3)), 0.5)


def test_a_prior_is_where_thompson_starts():
    prior = np.random.default_rng(1).normal(size=(K, D))
    selector = LinearThompson(K, D, ridge=5.0, prior_KD=prior)
    rows = contexts(3)
    np.testing.assert_allclose(selector.select(rows).values_MK, rows @ prior.T)


@pytest.mark.parametrize("rule", ["discount", "decay"])
def test_without_discount_forgetting_is_linucb(rule):
    for dim in (3, 40):
        rows = np.random.default_rng(2).normal(size=(120, dim))
        plain = LinUCB(3, dim, alpha=0.6)
        forgetting = ForgettingLinUCB(3, dim, rule=rule, gamma=1 - 1e-13, alpha=0.6)
        for row in rows:
            one, other = plain.select(row[None]), forgetting.select(row[None])
            np.testing.assert_allclose(other.values_MK, one.values_MK, atol=1e-9)
            reward = np.array([np.tanh(row[0] + 0.1 * one.arms_M[0])])
            plain.update(one.id, reward)
            # the same arm for both: ties at the start are drawn from streams that stand alike
            assert other.arms_M[0] == one.arms_M[0]
            forgetting.update(other.id, reward)


@pytest.mark.parametrize("dim", [3, 30])
def test_discounting_equals_the_published_recursion(dim):
    """Russac et al. 2019, Sec. 3: V <- gamma V + c c' + (1 - gamma) lambda I, the second matrix with gamma^2."""
    gamma, ridge, alpha = 0.97, 0.7, 0.9
    selector = ForgettingLinUCB(2, dim, rule="discount", gamma=gamma, ridge=ridge, alpha=alpha)
    V = [ridge * np.eye(dim) for _ in range(2)]
    W = [ridge * np.eye(dim) for _ in range(2)]
    b = [np.zeros(dim) for _ in range(2)]
    generator = np.random.default_rng(4)
    for _ in range(80):
        c = generator.normal(size=dim)
        selection = selector.select(c[None])
        inverses = [np.linalg.inv(matrix) for matrix in V]
        expected = [c @ inv @ b[k] + alpha * np.sqrt(c @ inv @ W[k] @ inv @ c) for k, inv in enumerate(inverses)]
        np.testing.assert_allclose(selection.values_MK[0], expected, rtol=1e-8)
        arm, reward = int(selection.arms_M[0]), float(generator.uniform())
        selector.update(selection.id, np.array([reward]))
        for k in range(2):
            seen = np.outer(c, c) if k == arm else 0.0
            V[k] = gamma * V[k] + seen + (1 - gamma) * ridge * np.eye(dim)
            W[k] = gamma**2 * W[k] + seen + (1 - gamma**2) * ridge * np.eye(dim)
            b[k] = gamma * b[k] + (reward * c if k == arm else 0.0)


def test_adaptive_forgetting_trusts_the_gamma_that_predicts_best():
    """Rewards that stay favour the longest memory; rewards that flip every 60 rounds favour the shortest."""
    favourites = []
    for period in (10**9, 60):
        selector = ForgettingLinUCB(2, 3, rule="adaptive", alpha=0.5)
        generator = np.random.default_rng(0)
        for step in range(900):
            selection = selector.select(generator.normal(size=(1, 3)))
            sign = 1 if (step // period) % 2 == 0 else -1
            context = selector._open._open[selection.id].contexts_MD[0]
            selector.update(selection.id, np.array([0.5 + 0.3 * sign * np.tanh(context[0])]))
        favourites.append(EXPERTS[int(selector._log_weights_G.argmax())])
    assert favourites[0] > favourites[1] == min(EXPERTS)


def test_decay_makes_the_choices_of_paretobandit():
    """Its floor on staleness, a factor 200, is out of reach here: 0.995^500 = 0.08."""
    library = DisjointLinUCBPolicy([str(k) for k in range(4)], dim=12, alpha=0.5, forgetting_factor=0.995)
    selector = ForgettingLinUCB(4, 12, rule="decay", gamma=0.995, alpha=0.5, floor=1e-9)
    generator = np.random.default_rng(7)
    theta = generator.normal(size=(4, 12))
    equal = 0
    for step in range(500):
        c = generator.normal(size=12)
        c /= np.linalg.norm(c)
        mask = np.arange(4) == step if step < 4 else None
        selection = selector.select(c[None], mask)
        arm = int(selection.arms_M[0])
        equal += step < 4 or library.select_arm(c)[0] == str(arm)
        reward = float(1 / (1 + np.exp(-c @ theta[arm])))
        selector.update(selection.id, np.array([reward]))
        library.update(str(arm), c, reward)
    assert equal >= 495  # not 500: its clock counts from its own first step


def test_a_forgotten_observation_is_out_of_the_width_and_out_of_training():
    """Of 41 observations, memory 40 keeps 35: the oldest eighth goes with the one too many."""
    selector = NeuralUCB(1, D, hidden=(7, 5), ridge=0.8, train_steps=2, memory=40)
    arm, gradients = selector._arms[0], []
    rows = contexts(41)
    for row in rows:
        _, _, at = arm.estimate(row[None])
        parts = zip(at.hidden, at.deltas, strict=True)
        gradients.append(np.concatenate([np.append(np.outer(h[0], d[0]).ravel(), d[0]) for h, d in parts]))
        selector.update(selector.select(row[None]).id, np.array([np.sin(row[0])]))
    np.testing.assert_array_equal(arm.contexts_ND, rows[6:])
    G = np.array(gradients[6:])
    np.testing.assert_allclose(arm.factor_NN @ arm.factor_NN.T, 0.8 * np.eye(35) + G @ G.T / 7, rtol=1e-9)
    again = NeuralUCB(1, D, hidden=(7, 5), ridge=0.8, train_steps=2, memory=40)
    again.load_state_dict(selector.state_dict())
    np.testing.assert_array_equal(again.select(rows[:3]).values_MK, selector.select(rows[:3]).values_MK)


@pytest.mark.parametrize("confidence", ["full", "diagonal"])
def test_the_width_of_neural_ucb_is_that_of_explicit_gradients(confidence):
    selector = NeuralUCB(1, D, hidden=(7, 5), ridge=0.8, confidence=confidence, train_steps=4)
    network = selector._arms[0].network

    def gradient(c):
        layers = network.forward(c[None])
        deltas = network.deltas(layers, np.ones((1, 1)))
        return np.concatenate(
            [part for h, d in zip(layers[:-1], deltas, strict=True) for part in (np.outer(h[0], d[0]).ravel(), d[0])]
        )

    rows, gradients = contexts(30), []
    for row in rows:
        gradients.append(gradient(row))
        selector.update(selector.select(row[None]).id, np.array([np.sin(row[0])]))
    G = np.array(gradients)
    Z = 0.8 * np.eye(G.shape[1]) + G.T @ G / 7
    if confidence == "diagonal":
        Z = np.diag(np.diag(Z))
    query = contexts(1, seed=8)[0]
    g = gradient(query)
    _, variance, _ = selector._arms[0].estimate(query[None])
    assert variance[0] == pytest.approx(g @ np.linalg.solve(Z, g) / 7, rel=1e-7)


def test_gradients_of_the_network_match_finite_differences():
    from laser.bandits.mlp import MLP

    network = MLP((3, 5, 4, 2), np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(1, 3))
    layers = network.forward(x)
    deltas = network.deltas(layers, np.array([[1.0, -2.0]]))
    for layer, weight in enumerate(network.weights):
        numeric = np.zeros_like(weight)
        for index in np.ndindex(weight.shape):
            values = []
            for step in (1e-6, -1e-6):
                weight[index] += step
                output = network.forward(x)[-1][0]
                values.append(output[0] - 2 * output[1])
                weight[index] -= step
            numeric[index] = (values[0] - values[1]) / 2e-6
        np.testing.assert_allclose(np.outer(layers[layer][0], deltas[layer][0]), numeric, atol=1e-7)


def test_neural_ucb_learns_what_is_not_linear():
    generator = np.random.default_rng(0)
    selector = NeuralUCB(2, 2, hidden=(32, 16), alpha=0.1, train_steps=30)
    right = []
    for _ in range(400):
        c = generator.choice([-1.0, 1.0], size=2)
        selection = selector.select(c[None])
        best = int(c[0] * c[1] > 0)  # exclusive or: no linear model knows it
        right.append(selection.arms_M[0] == best)
        selector.update(selection.id, np.array([float(right[-1])]))
    assert np.mean(right[-200:]) > 0.9


def test_sequential_takes_turns_and_skips_the_unavailable():
    selector = Sequential(3, [2, 0, 1], every=2)
    turns = [int(selector.select(np.zeros((1, 1))).arms_M[0]) for _ in range(7)]
    assert turns == [2, 2, 0, 0, 1, 1, 2]
    assert int(selector.select(np.zeros((1, 1)), np.array([True, True, False])).arms_M[0]) == 0


def test_frozen_learns_nothing():
    trained = LinUCB(K, D)
    play(trained, 30)
    frozen = Frozen(trained)
    rows = contexts(9, seed=4)
    before = frozen.select(rows).values_MK
    play(frozen, 20)
    np.testing.assert_array_equal(frozen.select(rows).values_MK, before)


def test_multiplicative_weights_are_arora_hazan_and_kale():
    """Costs 0 and 0.5 with eta 0.4: weights 1 and exp(-0.2)."""
    selector = MultiplicativeWeights(2, eta=0.4)
    selection = selector.select(np.zeros((1, 1)))
    assert selection.charged_E == ((0, 0), (0, 1))
    selector.update(selection.id, np.array([1.0, 0.5]))
    weights = np.array([1.0, np.exp(-0.2)])
    np.testing.assert_allclose(selector.select(np.zeros((1, 1))).weights_MK[0], weights / weights.sum())


def test_an_ensemble_that_does_not_learn_is_charged_for_nothing():
    selection = UniformEnsemble(3).select(np.zeros((2, 1)))
    assert selection.charged_E == ()
    np.testing.assert_allclose(selection.weights_MK, 1 / 3)


def test_the_classifier_learns_the_labelling_rule():
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(400, 10)) * 3 + 1
    differences = np.stack([embeddings[:, 0] - 1, 1 - embeddings[:, 0], np.full(400, -1.0)], axis=1)
    differences[:5] = -1.0
    queries = label_queries(embeddings, differences)
    assert queries.num_unlabelled == 5
    assert set(queries.labels_N) == {0, 1}
    classifier = QueryClassifier(10, 3, hidden=(32,))
    classifier.fit(queries)
    held_out = generator.normal(size=(200, 10)) * 3 + 1
    arms = ClassifierSelector(classifier).select(held_out).arms_M
    assert np.mean(arms == (held_out[:, 0] < 1)) > 0.9


def test_labels_of_one_kind_are_refused():
    with pytest.raises(ValueError, match="fewer than two labels"):
        label_queries(np.ones((5, 2)), np.tile([1.0, -1.0], (5, 1)))


def test_the_prior_is_ridge_regression_on_being_right():
    embeddings = np.random.default_rng(0).normal(size=(50, 3))
    differences = np.stack([embeddings[:, 0], -embeddings[:, 0]], axis=1)
    theta = fit_prior(embeddings, differences, ridge=0.5)
    right = (differences[:, 0] > 0).astype(float)
    expected = np.linalg.solve(embeddings.T @ embeddings + 0.5 * np.eye(3), embeddings.T @ right)
    np.testing.assert_allclose(theta[0], expected)

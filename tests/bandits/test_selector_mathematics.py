"""The mathematics of each selector, against its equations, other code or draws."""

import subprocess
import sys

import numpy as np
import pytest
from pareto_bandit.policy import DisjointLinUCBPolicy

from laser.bandits.baselines import Frozen, Sequential
from laser.bandits.classifier import ClassifierSelector, QueryClassifier, fit_prior, label_queries
from laser.bandits.context_free import Exp3
from laser.bandits.ensembles import MultiplicativeWeights, UniformEnsemble
from laser.bandits.forgetting import EXPERTS, ForgettingLinUCB
from laser.bandits.linucb import LinUCB
from laser.bandits.neural import NeuralUCB
from laser.bandits.thompson import LinearThompson, probability_of_largest
from playing import D, K, contexts, play


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_adaptive_forgetting_trusts_the_gamma_that_predicts_best():
    """Rewards that stay favor the longest memory; rewards that flip every 60 rounds favor the shortest."""
    favorites = []
    for period in (10**9, 60):
        selector = ForgettingLinUCB(2, 3, rule="adaptive", alpha=0.5)
        generator = np.random.default_rng(0)
        for step in range(900):
            selection = selector.select(generator.normal(size=(1, 3)))
            sign = 1 if (step // period) % 2 == 0 else -1
            context = selector._open._open[selection.id].contexts_MD[0]
            selector.update(selection.id, np.array([0.5 + 0.3 * sign * np.tanh(context[0])]))
        favorites.append(EXPERTS[int(selector._log_weights_G.argmax())])
    assert favorites[0] > favorites[1] == min(EXPERTS)


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
        factors = network.factors(c[None])
        layers = zip(factors.inputs, factors.deltas, strict=True)
        return np.concatenate([part for h, d in layers for part in (np.outer(h[0], d[0]).ravel(), d[0])])

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
    factors, state = network.factors(x), network.state_dict()
    for layer in range(3):
        weight = state[f"weight.{layer}"]
        numeric = np.zeros_like(weight)
        for index in np.ndindex(weight.shape):
            values = []
            for step in (1e-6, -1e-6):
                weight[index] += step
                network.load_state_dict(state)
                values.append(network.outputs(x).sum())
                weight[index] -= step
            numeric[index] = (values[0] - values[1]) / 2e-6
        np.testing.assert_allclose(np.outer(factors.inputs[layer][0], factors.deltas[layer][0]), numeric, atol=1e-7)


def test_a_fit_takes_the_steps_of_adam_with_decoupled_decay():
    """Two steps of a 1-1 network by hand: arXiv 1711.05101, Algorithm 2, with beta 0.9, 0.999 and epsilon 1e-8."""
    from laser.bandits.mlp import MLP, half_squared_error

    network = MLP((1, 1), np.random.default_rng(0))
    network.load_state_dict({"weight.0": np.array([[2.0]]), "bias.0": np.array([0.5])})
    inputs, targets, rate, decay = np.array([[1.0], [3.0]]), np.array([0.0, 1.0]), 0.1, 0.3
    settings = {"steps": 2, "learning_rate": rate, "weight_decay": decay, "generator": np.random.default_rng(0)}
    network.fit(inputs, targets, half_squared_error, **settings)
    parameters, first, second = np.array([2.0, 0.5]), np.zeros(2), np.zeros(2)
    for step in (1, 2):
        errors = inputs[:, 0] * parameters[0] + parameters[1] - targets
        gradient = np.array([(errors * inputs[:, 0]).mean(), errors.mean()])
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        parameters *= 1 - rate * decay
        parameters -= rate * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    state = network.state_dict()
    np.testing.assert_allclose([state["weight.0"][0, 0], state["bias.0"][0]], parameters, rtol=1e-12)


def test_networks_leave_torchs_settings_alone_and_work_in_inference_mode():
    import torch

    from laser.bandits.mlp import MLP, half_squared_error

    network, x = MLP((3, 5, 1), np.random.default_rng(0)), np.ones((2, 3))
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    settings = {"steps": 1, "learning_rate": 0.1, "weight_decay": 0.0, "generator": np.random.default_rng(0)}
    with torch.inference_mode():
        network.fit(x, np.ones(2), half_squared_error, **settings)
        assert network.factors(x).deltas[0].shape == (2, 5)
        assert torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.slow
def test_selectors_come_without_torch_until_a_network_is_made():
    source = "import sys, laser.bandits.neural as n, laser.bandits.classifier; assert 'torch' not in sys.modules\n"
    source += "n.NeuralUCB(2, 3); assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", source], check=True)


@pytest.mark.slow
def test_neural_ucb_learns_what_is_not_linear():
    generator = np.random.default_rng(0)
    selector = NeuralUCB(2, 2, hidden=(32, 16), alpha=1.0, train_steps=30)
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


def test_the_classifier_learns_the_labeling_rule():
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(400, 10)) * 3 + 1
    differences = np.stack([embeddings[:, 0] - 1, 1 - embeddings[:, 0], np.full(400, -1.0)], axis=1)
    differences[:5] = -1.0
    queries = label_queries(embeddings, differences)
    assert queries.num_unlabeled == 5
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

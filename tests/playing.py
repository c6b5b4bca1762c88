"""Rounds that selectors play in tests: K arms, D features, bandit rewards of a fixed function."""

import numpy as np

K, D = 4, 6


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

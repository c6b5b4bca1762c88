"""Corrupted reward models."""

import numpy as np
import pytest

from laser.core.types import Prompt
from laser.rewards.function import FunctionRM
from laser.rewards.wrappers import CorruptedRM

PROMPTS = [Prompt(str(index), ({"role": "user", "content": "?"},)) for index in range(200)]
RESPONSES = [["a", "bb", "ccc", "dddd"] for _ in PROMPTS]


def length(prompts, responses):
    return [len(text) for text in responses]


def scores(**options):
    return np.array(CorruptedRM(FunctionRM(length, "length"), **options).score(PROMPTS, RESPONSES))


def test_inversion_reverses_every_order():
    assert (scores(corruption="inverted") == -np.array([[1, 2, 3, 4]] * 200)).all()


def test_constant_orders_nothing_and_random_agrees_half_of_the_time():
    assert not scores(corruption="constant").any()
    random = scores(corruption="random")
    assert (random[:, 0] < random[:, 3]).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("sigma", [0.1, 0.4])
def test_noise_counts_in_deviations_of_the_prompts_scores(sigma):
    noise = scores(noise=sigma) - np.array([1, 2, 3, 4])
    assert noise.std() == pytest.approx(sigma * np.std([1, 2, 3, 4]), rel=0.1)
    assert abs(noise.mean()) < 0.05


def test_noise_is_a_function_of_seed_and_texts():
    np.testing.assert_array_equal(scores(noise=0.3, seed=1), scores(noise=0.3, seed=1))
    assert (scores(noise=0.3, seed=1) != scores(noise=0.3, seed=2)).all()

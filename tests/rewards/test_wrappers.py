"""Corrupted reward models."""

import numpy as np
import pytest

from laser.core.types import Prompt
from laser.rewards.base import Counts, NoWeights
from laser.rewards.custom import CustomRM
from laser.rewards.function import FunctionRM
from laser.rewards.pool import Arm, RewardPool
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


def test_a_factor_changes_the_unit_of_what_noise_and_inversion_made():
    np.testing.assert_array_equal(scores(factor=100.0), 100.0 * scores())
    np.testing.assert_array_equal(scores(factor=100.0, noise=0.3), 100.0 * scores(noise=0.3))
    np.testing.assert_array_equal(scores(factor=30.0, corruption="inverted"), -30.0 * scores())


def test_noise_is_a_function_of_seed_and_texts():
    np.testing.assert_array_equal(scores(noise=0.3, seed=1), scores(noise=0.3, seed=1))
    assert (scores(noise=0.3, seed=1) != scores(noise=0.3, seed=2)).all()


class Counting(NoWeights):
    """A custom reward model that is billed by the token and leaves out what is longer than its window."""

    def __init__(self):
        self.counts = Counts()

    def score(self, prompts, responses):
        self.counts.tokens += 7
        self.counts.too_long += 2
        return [np.arange(len(row), dtype=float) for row in responses]

    def release(self):
        pass


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: CorruptedRM(inner, noise=0.1),
        lambda inner: CorruptedRM(inner, corruption="inverted"),
        lambda inner: CustomRM(inner, "counting"),
        lambda inner: CorruptedRM(CustomRM(inner, "counting"), noise=0.1),
    ],
    ids=["noise", "inverted", "custom", "noise around custom"],
)
def test_a_wrapped_reward_model_keeps_its_bill_and_its_window(wrap):
    pool = RewardPool([Arm("counting", lambda: wrap(Counting()))])
    for calls in (1, 2):
        pool.score(0, PROMPTS[:2], RESPONSES[:2])
        used = pool.usage()["counting"]
        assert (used["tokens"], used["too_long"]) == (7 * calls, 2 * calls)

"""Signs of over-optimization: seen where they are, not seen where answers only vary or become better."""

import numpy as np
import pytest

from laser.training.over_optimization import Look, find_signs, make_look, repetition

PROMPTS = [f"prompt {number}" for number in range(16)]
CATEGORIES = ("a", "b", "c", "d")
CHOSEN = {category: ["length", "judge"] for category in CATEGORIES}


def by_prompt(values):
    return dict(zip(PROMPTS, np.asarray(values, dtype=np.float64), strict=True))


def look(rng, *, length=60.0, right=0.4, accuracy=0.75, repeated=0.02):
    """Noisy measurements of 16 prompts with eight samples each."""
    lengths = length * rng.lognormal(0, 0.3, len(PROMPTS))
    return Look(
        length=by_prompt(lengths),
        repeated=by_prompt(np.clip(repeated + 0.02 * rng.normal(size=16), 0, 1)),
        shared=by_prompt(rng.binomial(8, 0.1, 16) / 8),
        right=by_prompt(rng.binomial(8, right, 16) / 8),
        accuracy={name: by_prompt(rng.binomial(12, accuracy, 16) / 12) for name in ("length", "judge")},
        leaning={"length": 1.0, "judge": 0.1},
    )


def share_of_runs(first, now, expected, runs=60):
    """Share of simulated runs with four categories in which signs of one kind are all that is found."""
    hits = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        looks = [{category: look(rng, **options) for category in CATEGORIES} for options in (first, now)]
        hits += {sign.what for sign in find_signs(*looks, CHOSEN)} == expected
    return hits / runs


@pytest.mark.slow
def test_runs_without_any_change_are_left_alone():
    assert share_of_runs({}, {}, set()) >= 0.93


@pytest.mark.slow
def test_longer_answers_that_are_no_better_are_seen():
    assert share_of_runs({}, {"length": 110}, {"length"}) >= 0.9


@pytest.mark.slow
def test_longer_answers_that_are_better_and_answers_that_are_a_little_longer_are_left_alone():
    assert share_of_runs({}, {"length": 110, "right": 0.85}, set()) >= 0.9
    assert share_of_runs({}, {"length": 64}, set()) >= 0.93


@pytest.mark.slow
def test_a_reward_model_that_falls_to_chance_is_seen_and_one_that_stays_useful_is_left_alone():
    assert share_of_runs({"accuracy": 0.8}, {"accuracy": 0.5}, {"accuracy"}) >= 0.9
    assert share_of_runs({"accuracy": 0.95}, {"accuracy": 0.75}, set()) >= 0.9


@pytest.mark.slow
def test_answers_that_repeat_are_seen():
    assert share_of_runs({}, {"repeated": 0.4}, {"repetition"}) >= 0.9


def test_the_reward_model_that_prefers_longer_answers_is_named():
    rng = np.random.default_rng(0)
    (sign,) = find_signs({"a": look(rng)}, {"a": look(rng, length=200)}, {"a": ["judge", "length"]})
    assert sign.reward_models == ("length",)
    assert str(sign).startswith("over-optimised: answers to a grew from ")
    assert "while length was chosen, and no more of them are known to be right; read some samples" in str(sign)
    (sign,) = find_signs({"a": look(rng)}, {"a": look(rng, length=200)}, {"a": ["judge"]})
    assert sign.reward_models == ("judge",), "the only one that was chosen"
    assert find_signs({"a": look(rng)}, {"a": look(rng, length=200)}, {}) == [], "nothing was chosen there"


VARIED = "".join(map(chr, range(40, 110)))


@pytest.mark.parametrize(("text", "share"), [("", 0.0), ("short", 0.0), ("ab" * 40, 1 - 2 / 65), (VARIED, 0.0)])
def test_repetition_is_the_share_of_stretches_that_came_before(text, share):
    assert repetition(text) == pytest.approx(share)


def test_a_look_by_hand():
    samples = {"p": ["aa", "aa", "bbbb", "b"], "q": ["aa", "cc", "cc", "cc"]}
    scores = {
        "long": {"p": np.array([2.0, 4.0, 1.0]), "q": np.array([5.0, 5.0])},
        "none": {"p": np.array([np.nan] * 3)},
    }
    found = make_look(samples, {"p": 0.5}, {"p": ["aa", "bbbb", "b"], "q": ["aa", "cc"]}, scores, {})
    assert found.length == {"p": 9 / 4, "q": 2.0}
    assert found.shared == {"p": 0.5, "q": 0.25}
    assert found.leaning == {"long": pytest.approx(1.0), "none": 0.0}

"""Reference log-probs that come from sampling: the same step without the pass, and not used where they are not the
reference's."""

import dataclasses

import pytest

from laser.core.types import Pair
from laser.policy.generation import TransformersGenerator
from laser.policy.policy import Policy
from laser.training.learner import Learner
from laser.training.losses import Objective
from tiny import make_model, make_prompt, make_tokenizer

PROMPTS = [make_prompt("what is 3 + 4?", id="0"), make_prompt("and 2 + 2?", id="1")]
PAIRS = [Pair(0, 0, 1, 1.0, 0.0), Pair(0, 2, 1, 1.0, 0.0), Pair(1, 1, 0, 1.0, 0.0)]


def step(replies=None, *, sampled, spoil=0.0):
    """Loss of a second step, and how many passes the reference made."""
    policy = Policy(make_model(), make_tokenizer(), lora_rank=4)
    if replies is None:
        replies = TransformersGenerator(policy).generate(
            PROMPTS, num_responses=3, temperature=1.0, top_p=1.0, max_new_tokens=8, seeds=[1, 2]
        )
    replies = [
        [dataclasses.replace(r, sampling_logps=tuple(x + spoil for x in r.sampling_logps)) for r in row]
        for row in replies
    ]
    learner = Learner(policy, Objective("dpo"), learning_rate=1e-2, sampled_by_reference=sampled)
    passes = []
    logps = policy.logps
    policy.logps = lambda ids, *rest, which: passes.append((which, len(ids))) or logps(ids, *rest, which=which)
    ids = policy.encode(PROMPTS)
    results = [learner.learn(ids, replies, PAIRS) for _ in range(2)]
    return results[1].losses_B, [count for which, count in passes if which != "policy"]


def test_the_step_is_the_same_and_one_prompt_is_checked():
    plain, passes = step(sampled=False)
    fast, checked = step(sampled=True)
    assert fast == pytest.approx(plain, abs=1e-4)
    assert passes == [2, 2]
    assert checked == [1, 1]


def test_log_probs_of_other_weights_are_not_used():
    plain, _ = step(sampled=False)
    spoiled, passes = step(sampled=True, spoil=-0.3)
    assert spoiled == pytest.approx(plain, abs=1e-6)
    assert passes == [1, 2, 1, 2]

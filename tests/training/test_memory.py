"""Running out of memory: the same step in smaller micro-batches, or a sentence. The device is made to run out by a
limit on the tokens of one forward pass; a CPU cannot run out for real."""

import numpy as np
import pytest
import torch

from laser.errors import TrainingError
from laser.policy.policy import Policy
from laser.training.learner import Learner
from laser.training.losses import Objective
from laser.types import Pair, Response
from tiny import make_model, make_tokenizer

PROMPTS = [[5, 6, 7], [8, 9, 10, 11], [12, 13], [14, 15, 16]]
RESPONSES = [
    [Response((40 + row, 2), "a", (), True), Response((50, 51 + row, 2), "b", (), True)] for row in range(len(PROMPTS))
]
PAIRS = [Pair(row, row % 2, 1 - row % 2, 1.0, 0.0) for row in range(len(PROMPTS))]


def make_learner(monkeypatch, limit):
    policy = Policy(make_model(), make_tokenizer(), lora_rank=2)
    learner = Learner(policy, Objective("nll+dpo"), learning_rate=1e-2, max_batch_tokens=64)
    forward, sizes = policy.trainable_logps, []

    def limited(prompt_ids, response_ids):
        tokens = sum(map(len, prompt_ids)) + sum(len(ids) for row in response_ids for ids in row)
        if tokens > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(tokens)
        return forward(prompt_ids, response_ids)

    monkeypatch.setattr(policy, "trainable_logps", limited)
    return learner, sizes


def weights(learner):
    return torch.cat([parameter.detach().flatten() for parameter in learner.policy.trainable_parameters()])


def test_the_step_is_the_same_in_smaller_micro_batches(monkeypatch):
    plenty, _ = make_learner(monkeypatch, 1000)
    scarce, sizes = make_learner(monkeypatch, 20)
    whole, halved = (learner.learn(PROMPTS, RESPONSES, PAIRS) for learner in (plenty, scarce))
    np.testing.assert_allclose(halved.losses_B, whole.losses_B, rtol=1e-5)
    torch.testing.assert_close(weights(scarce), weights(plenty), rtol=1e-4, atol=1e-6)
    assert max(sizes) <= 20
    sizes.clear()
    scarce.learn(PROMPTS, RESPONSES, PAIRS)
    assert sizes == [8, 16, 8], "the smaller budget is remembered: nothing is tried twice"


def test_out_of_memory_with_one_prompt_is_a_sentence(monkeypatch):
    learner, _ = make_learner(monkeypatch, 3)
    before = weights(learner)
    with pytest.raises(TrainingError, match=r"out of memory.*lower generation.num_responses"):
        learner.learn(PROMPTS, RESPONSES, PAIRS)
    assert torch.equal(weights(learner), before)

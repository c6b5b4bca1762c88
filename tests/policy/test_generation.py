"""Sampling: greedy parity, frequencies, seeds, log-probs, stopping."""

import numpy as np
import pytest
import torch

from laser.policy.generation import TransformersGenerator, _draw, _nucleus
from laser.policy.policy import Policy
from tiny import make_model, make_prompt, make_tokenizer

PROMPTS = [make_prompt("2+2=", id="a"), make_prompt("name a long list of colours", id="b"), make_prompt("?", id="c")]


@pytest.fixture(scope="module")
def policy():
    return Policy(make_model(), make_tokenizer(), lora_rank=4)


def generate(policy, prompts=PROMPTS, n=4, budget=16384, **options):
    settings = {"temperature": 0.8, "top_p": 1.0, "max_new_tokens": 12, "seeds": range(len(prompts)), **options}
    return TransformersGenerator(policy, max_batch_tokens=budget).generate(prompts, num_responses=n, **settings)


def test_greedy_equals_hugging_face_generate(policy):
    for prompt, (response,) in zip(PROMPTS, generate(policy, n=1, temperature=0.0), strict=True):
        ids = torch.tensor(policy.encode([prompt]))
        expected = policy.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert list(response.token_ids) == expected[0, ids.shape[1] :].tolist()


def test_responses_do_not_depend_on_the_chunk(policy):
    together = generate(policy)
    small_chunks = generate(policy, budget=1)
    alone = [generate(policy, [prompt], seeds=[row])[0] for row, prompt in enumerate(PROMPTS)]
    for replies in (small_chunks, alone):
        assert [[r.token_ids for r in row] for row in replies] == [[r.token_ids for r in row] for row in together]


def test_seeds_decide(policy):
    assert generate(policy) == generate(policy)
    assert generate(policy, seeds=[7, 8, 9]) != generate(policy)
    responses = generate(policy, PROMPTS[:1], n=16)[0]
    assert len({response.token_ids for response in responses}) > 1


def test_sampling_logps_are_those_of_the_policy(policy):
    replies = generate(policy, temperature=1.3, top_p=0.9)
    ids = policy.encode(PROMPTS)
    expected = policy.logps(ids, [[r.token_ids for r in row] for row in replies], which="policy")
    for row, logps in zip(replies, expected, strict=True):
        found = torch.tensor([sum(response.sampling_logps) for response in row])
        torch.testing.assert_close(found, logps, atol=1e-4, rtol=0)
        assert all(len(response.sampling_logps) == len(response.token_ids) for response in row)


def test_a_response_ends_with_the_stop_token_or_at_the_limit(policy):
    for row in generate(policy, n=16, max_new_tokens=40, temperature=1.5):
        for response in row:
            assert response.finished == (response.token_ids[-1] == 2)
            assert 2 not in response.token_ids[:-1]
            assert len(response.token_ids) == 40 or response.finished
            assert "<|im_end|>" not in response.text
    finished = [r.finished for row in generate(policy, n=16, max_new_tokens=40, temperature=1.5) for r in row]
    assert 0 < sum(finished) < len(finished)


def test_frequencies_match_the_softmax():
    """60,000 draws over five tokens; the standard error of a frequency is at most 0.002."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -50.0])
    uniforms = torch.from_numpy(np.random.default_rng(0).random(60_000))
    for temperature in (1.0, 0.5):
        tokens, logps = _draw(logits.expand(60_000, 5), uniforms, temperature, 1.0)
        frequencies = torch.bincount(tokens, minlength=5) / 60_000
        torch.testing.assert_close(frequencies, torch.softmax(logits / temperature, -1), atol=0.01, rtol=0)
        torch.testing.assert_close(logps, logits.log_softmax(-1)[tokens])


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2**-53])
def test_extreme_uniforms_stay_within_the_support(uniform):
    logits = torch.tensor([[-1000.0, 1.0, 0.0, -1000.0]])
    token, _ = _draw(logits, torch.tensor([uniform]), 1.0, 1.0)
    assert token.item() in (1, 2)


def test_nucleus_keeps_the_smallest_set_that_reaches_its_mass():
    probabilities = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    assert _nucleus(probabilities, 0.7).tolist() == [[0.0, 0.5, 0.0, 0.25]]
    assert (_nucleus(probabilities, 0.01) > 0).sum() == 1


def test_tokens_are_reported_as_they_come(policy):
    counts = []
    replies = TransformersGenerator(policy, on_tokens=counts.append).generate(
        PROMPTS, num_responses=3, temperature=1.5, top_p=1.0, max_new_tokens=20, seeds=[0, 1, 2]
    )
    assert sum(counts) == sum(len(response.token_ids) for row in replies for response in row)
    assert counts[0] == 9

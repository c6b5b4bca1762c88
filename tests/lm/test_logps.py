"""Packed, tiled log-probs against a plain full-logits forward, on many architectures."""

import math

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from laser.core.errors import ModelError
from laser.lm.logps import Layout, choose_layout, packed_logps, response_logps
from laser.lm.packing import pack
from laser.parallel.memory import Budget

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
KV = {"num_key_value_heads": 2}
ARCHITECTURES = {
    "llama": KV,
    "mistral": {**KV, "sliding_window": None},
    "qwen2": KV,
    "qwen3": {**KV, "head_dim": 8},
    "gemma2": {**KV, "head_dim": 8, "final_logit_softcapping": 5.0, "sliding_window": 64},
    "gemma3_text": {**KV, "head_dim": 8, "sliding_window": 64},
    "phi3": {**KV},
    "olmo2": KV,
    "granite": {**KV, "logits_scaling": 4.0},
    "cohere": {**KV, "logit_scale": 0.25},
    "gpt_neox": {},
    "gpt2": {},
}
PROMPTS = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [20]]
RESPONSES = [[[30, 31, 32], [33], [34, 35, 36, 37, 38]], [[40, 41], [], [42, 43, 44]], [[50, 51, 52, 53]]]


def tiny(name):
    torch.manual_seed(0)
    config = CONFIG_MAPPING[name](**SMALL, **ARCHITECTURES[name])
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return model.requires_grad_(False)


def plain(model, prompt, response):
    """log pi(y | x) as anyone would write it: one sequence, full logits."""
    if not response:
        return torch.zeros(())
    logits = model(torch.tensor([prompt + response])).logits[0].float()
    logps = logits.log_softmax(-1)
    return sum(logps[len(prompt) - 1 + t, token] for t, token in enumerate(response))


def flat_plain(model):
    return torch.stack([plain(model, p, r) for p, row in zip(PROMPTS, RESPONSES, strict=True) for r in row])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_chosen_layout_equals_a_plain_forward(name):
    model = tiny(name)
    layout = choose_layout(model)
    found = packed_logps(model, PROMPTS, RESPONSES, layout=layout, max_batch_tokens=64)
    torch.testing.assert_close(found, flat_plain(model), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "granite", "cohere", "olmo2", "phi3"])
def test_common_architectures_get_the_fast_layout(name):
    layout = choose_layout(tiny(name))
    assert layout == Layout(64 if name == "gemma2" else math.inf, "tiled")


@pytest.mark.parametrize("share_up_to", [math.inf, 6, 0])
@pytest.mark.parametrize("budget", [1, 12, 1000])
def test_no_budget_or_layout_changes_a_logp(share_up_to, budget):
    model = tiny("llama")
    layout = Layout(share_up_to, "tiled")
    found = packed_logps(model, PROMPTS, RESPONSES, layout=layout, max_batch_tokens=budget)
    torch.testing.assert_close(found, flat_plain(model), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite"])
def test_gradients_equal_those_of_a_plain_forward(name):
    model = tiny(name)
    weight = model.model.layers[0].mlp.down_proj.weight.requires_grad_()
    factors = torch.linspace(-1, 1, 7)
    (factors * flat_plain(model)).sum().backward()
    expected = weight.grad.clone()
    weight.grad = None
    layout = Layout(math.inf, "tiled")
    (factors * packed_logps(model, PROMPTS, RESPONSES, layout=layout, max_batch_tokens=24)).sum().backward()
    torch.testing.assert_close(weight.grad, expected, atol=1e-4, rtol=1e-4)


def test_tiles_smaller_than_the_batch_change_nothing(monkeypatch):
    model = tiny("llama")
    layout = Layout(math.inf, "tiled")
    whole = packed_logps(model, PROMPTS, RESPONSES, layout=layout, max_batch_tokens=64)
    monkeypatch.setattr("laser.lm.logps._TILE_ELEMENTS", 97 * 2)
    torch.testing.assert_close(packed_logps(model, PROMPTS, RESPONSES, layout=layout, max_batch_tokens=64), whole)


def test_a_model_that_ignores_4d_masks_falls_back():
    """A backbone that sees every token of the row would mix responses up; the probe must notice."""
    model = tiny("llama")
    inner = model.model.forward

    def careless(*args, attention_mask=None, **kwargs):
        mask = attention_mask if attention_mask is None or attention_mask.ndim == 2 else None
        return inner(*args, attention_mask=mask, **kwargs)

    model.model.forward = careless
    assert choose_layout(model) == Layout(0, "tiled")


def test_eager_attention_takes_the_same_mask():
    model = tiny("llama")
    model.set_attn_implementation("eager")
    assert choose_layout(model) == Layout(math.inf, "tiled")


def test_response_logps_are_split_by_prompt_and_zero_for_empty_ones():
    model = tiny("llama")
    budget = Budget(64, ModelError("out of memory"))
    rows = response_logps(model, PROMPTS, RESPONSES, layout=Layout(math.inf, "tiled"), budget=budget)
    assert [len(row) for row in rows] == [3, 3, 1]
    assert rows[1][1] == 0


def test_packing_counts_every_response_token_once_and_shares_prompts():
    batches = list(pack(PROMPTS, RESPONSES, max_batch_tokens=1000))
    owners = torch.cat([batch.owners for batch in batches]).tolist()
    lengths = [len(ids) for row in RESPONSES for ids in row]
    assert [owners.count(number) for number in range(7)] == lengths
    assert sum(len(batch.input_ids) for batch in batches) == len(PROMPTS)
    rows = list(pack(PROMPTS, RESPONSES, max_batch_tokens=1000, share_up_to=0))
    assert sum(len(batch.input_ids) for batch in rows) == sum(length > 0 for length in lengths)


def test_the_budget_bounds_every_batch_that_can_be_split():
    for batch in pack(PROMPTS, RESPONSES, max_batch_tokens=16):
        assert batch.num_tokens <= 16 or len(batch.input_ids) == 1

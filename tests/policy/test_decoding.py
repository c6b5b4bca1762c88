"""Decoders: shared prompts give the logits of whole rows, whatever rows leave, and are used only where they do."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto import CONFIG_MAPPING

from laser.policy import shared_attention
from laser.policy.decoding import CapturedSteps, SharedPrompts, WholeRows, choose_decoder

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make(kind, **options):
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**SMALL, **options)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # initial weights are so small that attention hardly matters
        parameter.data.mul_(4)
    return model


class Uncaptured(CapturedSteps):
    """What a GPU does around its graphs, and no graph."""

    _segment = 3
    _step = SharedPrompts._step


def logits_of(kind, model, ids, repeats, schedule):
    decoder = kind(model, ids, repeats, len(schedule) + 1)
    with torch.no_grad():
        found = [decoder.start().clone()]
        found += [decoder.advance(tokens, keep).clone() for tokens, keep in schedule]
    return found


def draw_schedule(rows, steps, seed, stay=0.85):
    """Random tokens, and rows that leave one after the other until none is left."""
    generator = np.random.default_rng(seed)
    schedule = []
    for _ in range(steps):
        keep = np.flatnonzero(generator.random(rows) < stay)
        if len(keep) == 0:
            break
        rows = len(keep)
        schedule.append((torch.from_numpy(generator.integers(3, 64, rows)), torch.from_numpy(keep)))
    return schedule


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", [SharedPrompts, Uncaptured])
def test_shared_prompts_give_the_logits_of_whole_rows(kind, seed):
    model = make("llama")
    generator = np.random.default_rng(seed)
    ids = [generator.integers(3, 64, length).tolist() for length in generator.integers(1, 12, 1 + seed)]
    schedule = draw_schedule(4 * len(ids), 10, seed)
    expected = logits_of(WholeRows, model, ids, 4, schedule)
    for found, wanted in zip(logits_of(kind, model, ids, 4, schedule), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("llama", {}, SharedPrompts),
        ("qwen2", {}, SharedPrompts),
        ("qwen3", {"head_dim": 16}, SharedPrompts),
        ("mistral", {"sliding_window": None}, SharedPrompts),
        ("mistral", {"sliding_window": 4}, WholeRows),
        ("gemma2", {"head_dim": 8, "sliding_window": 4}, WholeRows),
        ("phi3", {}, SharedPrompts),
        ("olmo2", {}, SharedPrompts),
        ("gpt_neox", {}, SharedPrompts),
        ("gpt2", {"n_positions": 128}, SharedPrompts),
    ],
)
def test_what_a_model_does_decides(kind, options, expected):
    """Prompts of the probe are longer than these windows; other architectures are left to themselves."""
    assert choose_decoder(make(kind, **options)) is expected


def test_soft_caps_are_kept():
    """Gemma 2 without its windows: the capped scores must be those of the model's own attention."""
    model = make("gemma2", head_dim=8, attn_logit_softcapping=0.5, layer_types=["full_attention"] * 2)
    model.set_attn_implementation("eager")
    schedule = draw_schedule(4, 5, 0, stay=1.0)
    ids = [[5, 6, 7], [8, 9, 10, 11, 12]]
    expected = logits_of(WholeRows, model, ids, 2, schedule)
    for found, wanted in zip(logits_of(SharedPrompts, model, ids, 2, schedule), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)


def test_a_shortcut_that_is_wrong_is_not_used(monkeypatch):
    model = make("llama")
    joined = shared_attention._joined
    monkeypatch.setattr(shared_attention, "_joined", lambda one, other: joined(one, other) * 1.01)
    assert choose_decoder(model) is WholeRows


def test_the_model_is_left_as_it_was():
    model = make("llama")
    before = model.config._attn_implementation
    assert choose_decoder(model) is SharedPrompts
    assert model.config._attn_implementation == before


def test_a_shared_prompt_is_held_once():
    assert SharedPrompts.tokens_held(1000, 30, 60) == 1000 + 30 * 60
    assert WholeRows.tokens_held(1000, 30, 60) == 30 * 1060

"""The policy: adapters over one set of weights, log-probs, embeddings, saving."""

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from laser.config import parse_config
from laser.core.errors import DataError, ModelError
from laser.data.store import StoredPrompts
from laser.lm.sources import load_causal_lm
from laser.policy.policy import Policy
from laser.wiring import build_policy
from runs import make_table
from tiny import make_model, make_prompt, make_tokenizer, save_model

PROMPTS = [make_prompt("2+2=", id="a"), make_prompt("name a colour", id="b")]
RESPONSES = [[[40, 41, 2], [50]], [[60, 61, 62, 63]]]


def make_policy(seed=0, **options):
    return Policy(make_model(), make_tokenizer(), lora_rank=4, seed=seed, **options)


def move(policy, scale=0.5):
    """Give the trained adapter weights that change the model."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def flat(policy, which):
    return torch.cat(policy.logps(policy.encode(PROMPTS), RESPONSES, which=which))


def test_a_fresh_adapter_leaves_the_model_as_it_was():
    policy = make_policy()
    plain = torch.cat(
        [_plain(make_model(), ids, row) for ids, row in zip(policy.encode(PROMPTS), RESPONSES, strict=True)]
    )
    for which in ("policy", "reference", "base"):
        torch.testing.assert_close(flat(policy, which), plain, atol=1e-4, rtol=0)


def _plain(model, prompt, responses):
    values = []
    for response in responses:
        logps = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        values.append(sum(logps[len(prompt) - 1 + t, token] for t, token in enumerate(response)))
    return torch.stack(values)


def test_reference_stays_while_the_policy_moves_until_it_is_updated():
    policy = make_policy()
    before = flat(policy, "policy")
    move(policy)
    assert not torch.allclose(flat(policy, "policy"), before, atol=1e-2)
    torch.testing.assert_close(flat(policy, "reference"), before)
    policy.update_reference()
    torch.testing.assert_close(flat(policy, "reference"), flat(policy, "policy"))
    torch.testing.assert_close(flat(policy, "base"), before)


def test_only_the_trained_adapter_has_gradients_whatever_was_active_in_between():
    policy = make_policy()
    policy.logps(policy.encode(PROMPTS), RESPONSES, which="reference")
    policy.logps(policy.encode(PROMPTS), RESPONSES, which="base")
    trainable = {id(p) for p in policy.model.parameters() if p.requires_grad}
    assert trainable == {id(p) for p in policy.trainable_parameters()}
    policy.trainable_logps(policy.encode(PROMPTS), RESPONSES).sum().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in policy.trainable_parameters())
    assert all(p.grad is None for p in policy.model.parameters() if id(p) not in trainable)


def test_trainable_logps_equal_logps():
    policy = make_policy()
    move(policy)
    found = policy.trainable_logps(policy.encode(PROMPTS), RESPONSES)
    torch.testing.assert_close(found.detach(), flat(policy, "policy"), atol=1e-5, rtol=0)


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        policy = make_policy(gradient_checkpointing=checkpointing)
        move(policy)
        policy.trainable_logps(policy.encode(PROMPTS), RESPONSES).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.trainable_parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_embeddings_are_last_token_states_in_any_batch():
    policy = make_policy()
    contexts = policy.embed(PROMPTS)
    assert contexts.shape == (2, policy.context_dim)
    assert contexts.dtype == np.float64
    for row, ids in enumerate(policy.encode(PROMPTS)):
        hidden = make_model().model(torch.tensor([ids])).last_hidden_state[0, -1]
        np.testing.assert_allclose(contexts[row], hidden.numpy(), atol=1e-5)
    np.testing.assert_allclose(make_policy(max_batch_tokens=1).embed(PROMPTS), contexts, atol=1e-5)


def test_embeddings_follow_the_current_policy():
    policy = make_policy()
    before = policy.embed(PROMPTS)
    move(policy)
    assert not np.allclose(policy.embed(PROMPTS), before, atol=1e-3)


def test_state_round_trip_restores_both_adapters():
    policy = make_policy()
    move(policy)
    policy.update_reference()
    move(policy)
    other = make_policy(seed=9)
    other.load_state_dict(policy.state_dict())
    for which in ("policy", "reference"):
        assert torch.equal(flat(other, which), flat(policy, which))


def test_state_of_another_rank_is_refused():
    other = Policy(make_model(), make_tokenizer(), lora_rank=2)
    with pytest.raises(ValueError, match="another shape"):
        other.load_state_dict(make_policy().state_dict())


def test_the_seed_alone_decides_the_initial_adapter():
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    first = make_policy(seed=5)
    assert torch.equal(torch.rand(1), expected)
    second, third = make_policy(seed=5), make_policy(seed=6)
    states = [np.concatenate([v.ravel() for v in p.state_dict().values()]) for p in (first, second, third)]
    assert np.array_equal(states[0], states[1])
    assert not np.array_equal(states[0], states[2])


@pytest.mark.slow
def test_saved_adapter_loads_with_peft(tmp_path):
    base = save_model(tmp_path / "base")
    load = lambda: load_causal_lm(str(base), device=torch.device("cpu"), dtype=torch.float32)  # noqa: E731
    policy = Policy(load(), make_tokenizer(), lora_rank=4)
    move(policy)
    policy.save_adapter(tmp_path / "adapter")
    again = PeftModel.from_pretrained(load(), tmp_path / "adapter").eval()
    ids = policy.encode(PROMPTS)
    expected = torch.cat([_plain(again, prompt, row) for prompt, row in zip(ids, RESPONSES, strict=True)])
    torch.testing.assert_close(flat(policy, "policy"), expected.detach(), atol=1e-4, rtol=0)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "adapter" / "reference").exists()


def test_too_long_prompts_are_named():
    policy = make_policy(max_context=60)
    policy.check_fits(PROMPTS, 10)
    with pytest.raises(DataError, match=r"'b' has .* context of 60"):
        policy.check_fits(PROMPTS, 30)


def test_system_prompt_is_put_first():
    with_system = make_policy(system_prompt="be brief").encode(PROMPTS)[0]
    text = make_tokenizer().decode(with_system)
    assert text.startswith("<|im_start|>system be brief<|im_end|><|im_start|>user 2+2=")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("modules", "culprit"),
    [(["q_proj", "lm_head"], "lm_head"), (r".*(q_proj|lm_head)", "lm_head"), (["embed_tokens"], "model.embed_tokens")],
)
def test_an_adapter_that_would_not_be_trained_is_refused(modules, culprit, tied):
    model = make_model()
    if tied:
        model.config.tie_word_embeddings = True
        model.lm_head.weight = model.model.embed_tokens.weight
    with pytest.raises(ModelError, match=f"an adapter on {culprit}, which laser cannot train; leave out"):
        Policy(model, make_tokenizer(), target_modules=modules)


def test_unknown_target_modules_are_named():
    with pytest.raises(ModelError, match=r"names no layer.*q_proj"):
        make_policy(target_modules=["qproj"])


@pytest.mark.parametrize(("option", "value"), [("lora_alpha", 1.0), ("target_modules", ["q_proj"])])
def test_adapter_knobs_change_the_policy(option, value):
    policies = [make_policy(), make_policy(**{option: value})]
    for policy in policies:
        move(policy)
    assert not torch.allclose(*(flat(policy, "policy") for policy in policies), atol=1e-3)


def test_dropout_acts_only_while_training():
    policy = make_policy(lora_dropout=0.5)
    move(policy)
    assert torch.equal(flat(policy, "policy"), flat(policy, "policy"))
    ids = policy.encode(PROMPTS)
    torch.rand(1)  # whatever else draws
    first, again, later = (policy.trainable_logps(ids, RESPONSES, moment=(step, 0)) for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    other = make_policy(lora_dropout=0.5, seed=1)
    other.load_state_dict(policy.state_dict())
    assert not torch.equal(first, other.trainable_logps(ids, RESPONSES, moment=(1, 0)))


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("gpt2", {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3}),
        ("opt", {"dropout": 0.3, "attention_dropout": 0.3, "word_embed_proj_dim": 32, "ffn_dim": 48}),
        ("llama", {"attention_dropout": 0.3}),
        ("falcon", {"hidden_dropout": 0.3, "attention_dropout": 0.3}),
    ],
)
def test_a_base_model_brings_no_dropout_into_training(kind, rates):
    """Noise in pi and not in pi_ref would change the loss: the first batch of DPO has exactly ln 2."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99, "eos_token_id": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **rates, bos_token_id=1))
    policy = Policy(model.eval().requires_grad_(False), make_tokenizer(), lora_rank=4)
    ids = policy.encode(PROMPTS)
    frozen = torch.cat(policy.logps(ids, RESPONSES, which="base"))
    torch.testing.assert_close(policy.trainable_logps(ids, RESPONSES), frozen, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("template", "text"), [("plain", "Sum?\n"), ("{{ messages[0]['content'] }}!", "Sum?!")])
def test_a_base_model_becomes_a_policy_with_a_template(tmp_path, template, text):
    make_model().save_pretrained(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "run").mkdir()
    table = make_table(tmp_path / "run")
    bare = parse_config({**table, "policy": {"model": str(tmp_path)}})
    with pytest.raises(ModelError, match="no chat template"):
        build_policy(bare).encode([make_prompt("Sum?")])
    policy = build_policy(parse_config({**table, "policy": {"model": str(tmp_path), "chat_template": template}}))
    assert policy.tokenizer.decode(policy.encode([make_prompt("Sum?")])[0]) == text


def test_prompts_on_disk_are_encoded_as_those_in_memory():
    """Each pass over them makes new objects, so that none is found again by its identity."""
    policy, prompts = make_policy(), [make_prompt(f"question {number}", id=str(number)) for number in range(5)]
    assert policy.encode(StoredPrompts.write(prompts)) == policy.encode(prompts)

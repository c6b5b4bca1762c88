"""What processes that hold a model between them can see of it; test_sharding.py calls `check` in several processes.

Every check raises where it fails; each process leaves what it measured as JSON in the folder it was given.
"""

import json

import torch
from peft import LoraConfig, get_peft_model
from torch.distributed.tensor import DTensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    MixtralConfig,
    Qwen2Config,
)

from laser.core.errors import ModelError, TrainingError
from laser.lm.sharding import Sharding, layers_of, shard
from laser.lm.sources import load_causal_lm
from laser.parallel.ranks import joined
from tiny import make_model

CPU = torch.device("cpu")
SMALL = {"vocab_size": 99, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3}
NARROW = {"num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
ARCHITECTURES = {
    "tied": Qwen2Config(**SMALL, **NARROW, tie_word_embeddings=True),
    "capped": Gemma2Config(**SMALL, **NARROW, head_dim=8),
    "experts": MixtralConfig(**SMALL, **NARROW, num_local_experts=4),
    "old": GPT2Config(vocab_size=99, n_embd=32, n_head=4, n_layer=3, n_positions=64),
}


def tokens(seed, length=12):
    return torch.randint(3, 90, (2, length), generator=torch.Generator().manual_seed(seed))


def adapted(model, recompute=False, rank=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lora = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        get_peft_model(model, lora)
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
        model.train()
    return model


def gradients(model, batches):
    """One backward pass through the graphs of several forward passes."""
    for parameter in model.parameters():
        parameter.grad = None
    sum(model(ids).logits.log_softmax(-1)[..., 5].sum() for ids in batches).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def base_weights(module):
    return [weight for name, weight in module.named_parameters() if "lora_" not in name]


def bytes_here(tensors):
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def same(ours, theirs):
    assert len(ours) == len(theirs) > 10
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def each(ranks, work):
    """Everyone does something, at its own pace."""
    return ranks.together(lambda part: [work()] * (part.stop - part.start), ranks.size)


def check_uneven_passes(ranks, recompute=False, **options):
    """The first process goes through three batches and backward, then once more; the others through fewer, or none."""
    plain = adapted(make_model(layers=4), recompute)
    model = make_model(layers=4, seed=0 if ranks.rank == 0 else 5)  # whose weights count is the first's
    layers = layers_of(model)
    shard(model, CPU, Sharding(ranks, **options))
    adapted(model, recompute)
    at_once = []
    weights = [lambda layer=layer: next(layer.parameters()) for layer in layers]
    for layer in layers:
        layer.register_forward_pre_hook(
            lambda *_: at_once.append(sum(not isinstance(one(), DTensor) for one in weights))
        )

    def work():
        passes = max(0, 3 - 2 * ranks.rank)
        if passes:
            batches = [tokens(seed) for seed in range(passes)]
            same(gradients(model, batches), gradients(plain, batches))
            assert max(at_once) == 1  # the next one is on its way, but not in its place
        if ranks.rank == 0:
            with torch.no_grad():
                assert torch.equal(model(tokens(9)).logits, plain(tokens(9)).logits)

    for _ in range(2):
        each(ranks, work)
    whole = sum(weight.nbytes for layer in layers_of(plain) for weight in base_weights(layer))
    shared = [weight for layer in layers for weight in base_weights(layer)]
    assert all(isinstance(weight, DTensor) for weight in shared), "a layer stayed whole after the phase"
    elsewhere = [weight for weight in base_weights(model) if not isinstance(weight, DTensor)]
    held = sum(weight.to_local().nbytes for weight in shared)
    return {"layers": whole, "held": held, "whole_everywhere": bytes_here(elsewhere)}


def mixed(seed):
    """A bfloat16 model with one float32 matrix in each layer, as routers and gates are kept."""
    model = make_model(layers=3, seed=seed).to(torch.bfloat16)
    for layer in layers_of(model):
        layer.mlp.down_proj.float()
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
        layer.mlp.down_proj.register_forward_hook(lambda _, inputs, output: output.bfloat16())
    return model


def check_mixed_types(ranks):
    """Layers whose weights differ in type, with adapters of rank 1."""
    plain, model = adapted(mixed(0), rank=1), mixed(ranks.rank)
    shard(model, CPU, Sharding(ranks))
    adapted(model, rank=1)
    each(ranks, lambda: same(gradients(model, [tokens(1)]), gradients(plain, [tokens(1)])))


def check_failures(ranks):
    """An error in the middle of a pass on one process; memory that runs out there, and a second try."""
    plain, model = adapted(make_model(layers=4)), make_model(layers=4)
    layers = layers_of(model)
    shard(model, CPU, Sharding(ranks))
    adapted(model)
    failing = []

    def interrupt(*_):
        if failing:
            raise failing.pop()

    layers[2].mlp.register_forward_pre_hook(interrupt)

    def fail():
        if ranks.rank == ranks.size - 1:
            failing.append(TrainingError("this rank cannot continue"))
        return gradients(model, [tokens(1)])

    try:
        each(ranks, fail)
    except TrainingError as error:
        assert str(error) == "this rank cannot continue"  # noqa: PT017
    else:
        raise AssertionError("no error was raised")

    def try_again():
        if ranks.rank == 0:
            failing.append(torch.OutOfMemoryError())
            try:
                gradients(model, [tokens(1), tokens(2)])
            except torch.OutOfMemoryError:
                same(gradients(model, [tokens(1), tokens(2)]), gradients(plain, [tokens(1), tokens(2)]))
                return True
        same(gradients(model, [tokens(3)]), gradients(plain, [tokens(3)]))
        return False

    assert each(ranks, try_again) == [True] + [False] * (ranks.size - 1)


def check_loading(ranks, folder):
    """Only the main process reads weights, and every architecture computes what it computes alone."""
    for name, config in ARCHITECTURES.items():
        options = {"device": CPU, "dtype": torch.bfloat16 if name == "capped" else torch.float32}
        path = folder / name
        if ranks.rank == 0:
            torch.manual_seed(1)
            AutoModelForCausalLM.from_config(config).save_pretrained(path)
        each(ranks, lambda: None)
        plain = load_causal_lm(str(path), **options)
        model = load_causal_lm(str(path) if ranks.rank == 0 else "nowhere", **options, sharding=Sharding(ranks))
        assert {tensor.device for tensor in (*model.parameters(), *model.buffers())} == {CPU}
        assert not any(weight.requires_grad for weight in model.parameters())
        assert (model.lm_head.weight is model.get_input_embeddings().weight) == (
            plain.lm_head.weight is plain.get_input_embeddings().weight
        )
        assert model.generation_config.to_dict() == plain.generation_config.to_dict()
        with torch.no_grad():
            each(ranks, lambda p=plain, m=model: torch.equal(p(tokens(4)).logits, m(tokens(4)).logits) or 1 / 0)
    try:
        load_causal_lm(str(folder / "missing"), **options, sharding=Sharding(ranks))
    except ModelError as error:
        assert "missing does not exist" in str(error)  # noqa: PT017
    else:
        raise AssertionError("no error was raised")


def check(folder):
    """All checks, in one of several processes; writes what they measured."""
    torch.set_num_threads(1)
    with joined() as ranks:
        measured = {
            "all": check_uneven_passes(ranks),
            "recompute": check_uneven_passes(ranks, recompute=True),
            "groups": check_uneven_passes(ranks, group=2, offload=True),
        }
        check_mixed_types(ranks)
        check_failures(ranks)
        check_loading(ranks, folder)
        (folder / f"rank-{ranks.rank}.json").write_text(json.dumps(measured))

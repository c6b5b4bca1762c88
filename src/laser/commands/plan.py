"""``laser train --dry-run``: the resolved configuration and a plan, without loading weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from laser.commands.plan_steps import is_ensemble, steps_table
from laser.config import rewards as reward_sections
from laser.config import schema
from laser.core.errors import ConfigError, LaserError
from laser.core.types import Prompt
from laser.data.split import Splits
from laser.lm.chat import encode_prompt
from laser.lm.footprint import SAMPLED, TRAINED, Footprint, attention_widths, footprint
from laser.lm.sharding import layers_of
from laser.lm.sources import choose_device, choose_dtype, load_model_config
from laser.training.batch import num_candidates
from laser.training.costs import MACHINES, BatchSize, LmShape, Machine, batch_costs, measure_machine
from laser.training.loop import draw_batches
from laser.wiring import build_splits, build_tokenizer, check_dev, check_reward_model
from laser.wiring.checks import check_answers, check_used, nothing_to_choose
from laser.wiring.probe import split_off_probe

_FLOAT32 = 4  # bytes
_ADAPTER_COPIES = 5  # policy, its gradient, two moments of AdamW, and the reference


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Size of one model.

    Attributes:
        num_parameters: All of its parameters.
        num_bytes: Bytes of its weights in the configured precision.
        linear_shapes: (in, out) of its linear layers, without the output head.
        hidden_size: Width of its hidden states; 0 for a model without layers.
        num_layers: Its depth.
        num_head_parameters: Weights of the output head.
        attention_width: Features of all attention heads together.
        kv_width: The same of keys and values, both together.
        sharded_bytes: Bytes of the layers that are sharded over the processes of a run.
    """

    num_parameters: int
    num_bytes: int
    linear_shapes: tuple[tuple[int, int], ...] = ()
    hidden_size: int = 0
    num_layers: int = 0
    num_head_parameters: int = 0
    attention_width: int = 0
    kv_width: int = 0
    sharded_bytes: int = 0

    @property
    def bytes_each(self) -> float:
        """Bytes of a weight."""
        return self.num_bytes / max(1, self.num_parameters)

    def bytes_on_each(self, devices: int) -> int:
        """Bytes of its weights on a device: a shard, up to three whole layers (`laser.lm.sharding`), and the rest."""
        if devices == 1 or self.sharded_bytes == 0:
            return self.num_bytes
        whole = 3 * self.sharded_bytes // max(self.num_layers, 1)
        return self.num_bytes - self.sharded_bytes + self.sharded_bytes // devices + whole


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Estimate of the bytes that a run holds on its device at once.

    Attributes:
        policy: Base weights.
        adapters: Policy and reference adapters, gradient and optimizer moments, float32.
        rewards: The largest `max_resident` reward models together.
        activations: Activations kept for the backward pass of one micro-batch.
        generation: Keys, values and logits of one generation chunk.
    """

    policy: int
    adapters: int
    rewards: int
    activations: int
    generation: int

    @property
    def peak(self) -> int:
        """The sum, where sampling and training take turns."""
        return self.policy + self.adapters + self.rewards + max(self.activations, self.generation)


def measure_model(
    section: schema.PolicyConfig | reward_sections.ModelRewardBase | reward_sections.TextMetricReward,
    kind: type,
    *,
    needs_weights: bool = True,
) -> ModelSize:
    """Size a model from its configuration, on the meta device. Raises ModelError if there is none."""
    assert section.model is not None
    config = load_model_config(
        section.model,
        revision=section.revision,
        trust_remote_code=section.trust_remote_code,
        needs_weights=needs_weights,
    )
    with torch.device("meta"):
        model = kind.from_config(config, trust_remote_code=section.trust_remote_code)  # type: ignore[attr-defined]
    dtype = choose_dtype(section.precision, choose_device(section.device))
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head]
    count = sum(parameter.numel() for parameter in model.parameters())
    text = config.get_text_config()
    attention_width, kv_width = attention_widths(text)
    shards = isinstance(section, schema.PolicyConfig | reward_sections.LogLikelihoodReward) and section.shard
    layers = [weight.numel() for layer in layers_of(model) for weight in layer.parameters()] if shards else []
    return ModelSize(
        num_parameters=count,
        num_bytes=count * dtype.itemsize,
        linear_shapes=tuple((layer.in_features, layer.out_features) for layer in linear),
        hidden_size=int(getattr(text, "hidden_size", 0)),
        num_layers=int(getattr(text, "num_hidden_layers", 0)),
        num_head_parameters=head.weight.numel() if head is not None else 0,
        attention_width=attention_width,
        kv_width=kv_width,
        sharded_bytes=sum(layers) * dtype.itemsize,
    )


def lm_shape(size: ModelSize) -> LmShape:
    """The sizes that decide the cost of a causal LM."""
    return LmShape(
        linear=sum(width_in * width_out for width_in, width_out in size.linear_shapes),
        head=size.num_head_parameters,
        layers=size.num_layers,
        width=size.attention_width,
        kv_width=size.kv_width,
        bytes_each=round(size.bytes_each),
    )


def measure_reward_model(section: reward_sections.RewardModelConfig, *, needs_weights: bool = True) -> ModelSize:
    """Size a reward model; 0 for one without weights in this process."""
    kind: type
    match section:
        case (
            reward_sections.LogLikelihoodReward()
            | reward_sections.ClassifierReward(family="token_logit")
            | reward_sections.PairwiseReward(family="pair_lm")
            | reward_sections.TextMetricReward(model=str(), metric="perplexity_step" | "perplexity_chain")
        ):
            kind = AutoModelForCausalLM
        case reward_sections.ClassifierReward(family="auto" | "standard"):
            kind = AutoModelForSequenceClassification
        case reward_sections.ModelRewardBase() | reward_sections.TextMetricReward(model=str()):
            kind = AutoModel
        case _:
            return ModelSize(0, 0)
    size = measure_model(section, kind, needs_weights=needs_weights)
    if isinstance(section, reward_sections.LogLikelihoodReward) and section.reference:
        return replace(size, num_bytes=2 * size.num_bytes, sharded_bytes=2 * size.sharded_bytes)
    return size


def estimate_memory(
    config: schema.RunConfig,
    policy: ModelSize,
    rewards: list[ModelSize],
    size: BatchSize | None = None,
    devices: int = 1,
) -> MemoryEstimate:
    """Estimate the memory of a run.

    Activations are counted as in `laser.lm.footprint`; generation as keys, values and two copies of a step's logits.
    The logits of scoring and training, which exist one tile at a time, and the memory of libraries are not counted.

    Args:
        config: The run.
        policy: Size of the policy.
        rewards: Sizes of the reward models.
        size: A batch; None: micro-batches and chunks as large as their budgets.
        devices: Devices of the run, over which models with `shard` are sharded.
    """
    rank = config.policy.lora.rank
    adapter = sum(rank * (width_in + width_out) for width_in, width_out in policy.linear_shapes)
    token = _footprint(config, policy)
    largest = sorted((model.bytes_on_each(devices) for model in rewards), reverse=True)[: config.rewards.max_resident]
    trained, sampled = config.training.max_batch_tokens or TRAINED, config.generation.max_batch_tokens or SAMPLED
    rows = sampled // config.generation.max_new_tokens
    if size is not None:
        row = size.prompt_tokens + size.needed * size.response_tokens
        trained = round(max(row, min(trained, size.prompts * row)))
        sampled = min(sampled, size.prompts * (size.prompt_tokens + size.responses * size.response_tokens))
        rows = min(rows, size.prompts * size.responses)
    logits = 2 * rows * policy.num_head_parameters / max(1, policy.hidden_size) * policy.bytes_each
    return MemoryEstimate(
        policy=policy.bytes_on_each(devices),
        adapters=_ADAPTER_COPIES * _FLOAT32 * adapter,
        rewards=sum(largest),
        activations=trained * token.kept,
        generation=round(sampled * token.cached + logits),
    )


def with_budgets(config: schema.RunConfig, policy: ModelSize, memory: float, devices: int = 1) -> schema.RunConfig:
    """The run with the token budgets that apply on devices with `memory` bytes; 0: unknown."""
    token, room = _footprint(config, policy), max(0.0, memory - policy.bytes_on_each(devices))
    sampled = config.generation.max_batch_tokens or token.sampling_tokens(room)
    trained = config.training.max_batch_tokens or token.training_tokens(room)
    return config.model_copy(
        update={
            "generation": config.generation.model_copy(update={"max_batch_tokens": sampled}),
            "training": config.training.model_copy(update={"max_batch_tokens": trained}),
        }
    )


def _footprint(config: schema.RunConfig, policy: ModelSize) -> Footprint:
    return footprint(
        linear_features=sum(width_in + width_out for width_in, width_out in policy.linear_shapes),
        hidden_size=policy.hidden_size,
        num_layers=policy.num_layers,
        kv_width=policy.kv_width,
        bytes_each=choose_dtype(config.policy.precision, choose_device(config.policy.device)).itemsize,
        checkpointing=config.training.gradient_checkpointing,
    )


def print_plan(config: schema.RunConfig, console: Console, machine: str = "here", devices: int = 1) -> None:
    """Print the resolved configuration and the plan of a run.

    Args:
        config: The run.
        console: Prints.
        machine: The machine to estimate time for: "here", measured now, or one of `laser.training.costs.MACHINES`,
            for which models are sized from their config.json alone.
        devices: Devices of that kind, one process each.

    Raises:
        LaserError: Something the run needs is missing; a run would fail the same way.
    """
    check_used(config)
    if machine != "here" and machine not in MACHINES:
        raise ConfigError(f"{machine!r} is not a known machine; choose here, {', '.join(MACHINES)}")
    console.print_json(json.dumps(config.model_dump(mode="json")))
    if note := nothing_to_choose(config):
        console.print(note)
    splits = build_splits(config)
    check_dev(splits.dev)
    check_answers(config.signal, splits)
    splits, probe = split_off_probe(splits, config.signal, config.data)
    if machine == "here":  # another machine may have models that this one has not
        for model in config.rewards.models:
            check_reward_model(model)
    policy = measure_model(config.policy, AutoModelForCausalLM, needs_weights=machine == "here")
    rewards = [measure_reward_model(model, needs_weights=machine == "here") for model in config.rewards.models]
    console.print(_models_table(config, policy, rewards))
    console.print(steps_table(config, splits, probe))
    target = _machine(config, machine)
    config = with_budgets(config, policy, target.memory, devices)
    size = batch_size(config, splits)
    console.print(_memory_table(estimate_memory(config, policy, rewards, size, devices), target))
    console.print(_time_table(size, policy, rewards, target, devices))


def _models_table(config: schema.RunConfig, policy: ModelSize, rewards: list[ModelSize]) -> Table:
    table = Table("role", "name", "source", "parameters", "cost of a response", title="Models")
    table.add_row("policy", "", escape(config.policy.model), _count(policy.num_parameters), "")
    for section, size in zip(config.rewards.models, rewards, strict=True):
        source = escape(_source(section))
        cost = "measured" if section.cost is None else f"{section.cost:g}"
        table.add_row(f"RM ({section.type})", escape(section.name), source, _count(size.num_parameters), cost)
    return table


def _source(section: reward_sections.RewardModelConfig) -> str:
    match section:
        case reward_sections.FunctionReward(function=spec) | reward_sections.PythonReward(factory=spec):
            return spec
        case _:
            return section.model or ""


def _machine(config: schema.RunConfig, name: str) -> Machine:
    if name in MACHINES:
        return MACHINES[name]
    device = choose_device(config.policy.device)
    return measure_machine(device, choose_dtype(config.policy.precision, device))


def batch_size(config: schema.RunConfig, splits: Splits) -> BatchSize:
    """A batch of the run: prompts of mean length, responses of the longest length."""
    from_sampler = config.training.sampling == "per_iteration" and config.training.reference == "previous_iteration"
    return BatchSize(
        prompts=max(map(len, draw_batches(config, splits.train, 0))),
        responses=config.generation.num_responses,
        pairs=config.training.pairs_per_prompt,
        candidates=num_candidates(config),
        prompt_tokens=_prompt_tokens(config.policy, splits.train),
        response_tokens=config.generation.max_new_tokens,
        chunk_tokens=config.generation.max_batch_tokens or SAMPLED,
        micro_tokens=config.training.max_batch_tokens or TRAINED,
        needs_reference=config.training.loss != "nll" and not from_sampler,
        asked=len(config.rewards.models) if is_ensemble(config) else 1,
    )


def _prompt_tokens(section: schema.PolicyConfig, prompts: Sequence[Prompt]) -> int:
    """Mean tokens of a sample of rendered prompts; a quarter of their characters without the tokenizer."""
    sample = [prompts[row] for row in range(0, len(prompts), -(-len(prompts) // 64))]
    try:
        tokenizer = build_tokenizer(section)
        lengths = [
            len(encode_prompt(tokenizer, prompt.messages, system_prompt=section.system_prompt, tools=prompt.tools))
            for prompt in sample
        ]
    except LaserError:
        lengths = [sum(len(message["content"]) for message in prompt.messages) // 4 for prompt in sample]
    return max(1, round(sum(lengths) / len(lengths)))


def _time_table(size: BatchSize, policy: ModelSize, rewards: list[ModelSize], machine: Machine, devices: int) -> Table:
    scoring = [model for model in rewards if model.num_layers]
    largest = max(scoring, key=lambda model: model.num_parameters, default=None)
    size = replace(size, prompts=-(-size.prompts // devices))  # the largest share of a process
    costs = batch_costs(lm_shape(policy), lm_shape(largest) if largest is not None else None, size)
    where = machine.name if devices == 1 else f"{devices} x {machine.name}"
    table = Table("phase", "TFLOP each", f"seconds on {escape(where)}", title="A batch, estimated")
    sharded = dict.fromkeys(costs, policy.sharded_bytes) | {"score": largest.sharded_bytes if largest else 0}
    others = (devices - 1) / devices
    seconds = {name: cost.seconds(machine, sharded[name] * others) for name, cost in costs.items()}
    for name, cost in costs.items():
        table.add_row(name, f"{cost.flops / 1e12:.3g}", f"{seconds[name]:.3g}")
    table.add_section()
    total = sum(seconds.values())
    table.add_row("all", f"{sum(cost.flops for cost in costs.values()) / 1e12:.3g}", f"{total:.3g}", style="bold")
    table.caption = (
        f"prompts of about {size.prompt_tokens} tokens, responses of {size.response_tokens} (the longest allowed), "
        f"{size.scored:.1f} of {size.responses} scored, {size.needed:.1f} trained on; loading reward models not counted"
    )
    return table


def _memory_table(estimate: MemoryEstimate, machine: Machine) -> Table:
    table = Table("on the device", "GiB", title="Memory, estimated")
    if machine.memory and estimate.peak > machine.memory:
        table.caption = f"more than {machine.name} has ({machine.memory / 2**30:.0f} GiB)"
    for name in ("policy", "adapters", "rewards", "activations", "generation"):
        table.add_row(name, f"{getattr(estimate, name) / 2**30:.2f}")
    table.add_section()
    table.add_row("peak", f"{estimate.peak / 2**30:.2f}", style="bold")
    return table


def _count(number: int) -> str:
    if number == 0:
        return "-"
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.0f} M"

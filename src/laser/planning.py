"""``laser train --dry-run``: the resolved configuration and a plan, from configurations alone, no weights loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from laser.build import build_plan, build_splits, check_reward_model
from laser.config import rewards as reward_sections
from laser.config import schema
from laser.data.split import Splits
from laser.lm.sources import choose_device, choose_dtype, load_model_config

_FLOAT32 = 4  # bytes
_ADAPTER_COPIES = 5  # policy, its gradient, two moments of AdamW, and the reference


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Size of one model.

    Attributes:
        num_parameters: All of its parameters.
        num_bytes: Of its weights in the precision asked for.
        linear_shapes: (in, out) of its linear layers, the output head excluded.
        hidden_size: Width of its hidden states, 0 where it has no layers.
        num_layers: Its depth.
    """

    num_parameters: int
    num_bytes: int
    linear_shapes: tuple[tuple[int, int], ...] = ()
    hidden_size: int = 0
    num_layers: int = 0


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes a run is expected to hold on its device at once; an estimate, not a promise.

    Attributes:
        policy: Base weights.
        adapters: Policy and reference adapters, gradient and optimizer moments, float32.
        rewards: The largest `max_resident` reward models together.
        activations: Kept for the backward pass of one micro-batch, without gradient checkpointing.
        generation: Keys and values of one generation chunk.
    """

    policy: int
    adapters: int
    rewards: int
    activations: int
    generation: int

    @property
    def peak(self) -> int:
        """Sampling and training take turns; the rest stays."""
        return self.policy + self.adapters + self.rewards + max(self.activations, self.generation)


def measure_model(section: schema.PolicyConfig | reward_sections.ModelRewardBase, kind: type) -> ModelSize:
    """Size a model from its configuration, on the meta device. Raises ModelError if there is none."""
    config = load_model_config(section.model, revision=section.revision, trust_remote_code=section.trust_remote_code)
    with torch.device("meta"):
        model = kind.from_config(config, trust_remote_code=section.trust_remote_code)  # type: ignore[attr-defined]
    dtype = choose_dtype(section.precision, choose_device(section.device))
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head]
    count = sum(parameter.numel() for parameter in model.parameters())
    text = config.get_text_config()
    return ModelSize(
        num_parameters=count,
        num_bytes=count * dtype.itemsize,
        linear_shapes=tuple((layer.in_features, layer.out_features) for layer in linear),
        hidden_size=int(getattr(text, "hidden_size", 0)),
        num_layers=int(getattr(text, "num_hidden_layers", 0)),
    )


def measure_reward_model(section: reward_sections.RewardModelConfig) -> ModelSize:
    """Size a reward model; one without weights in this process counts nothing."""
    match section:
        case reward_sections.ClassifierReward():
            return measure_model(section, AutoModelForSequenceClassification)
        case reward_sections.SimilarityReward():
            return measure_model(section, AutoModel)
        case reward_sections.LogLikelihoodReward():
            size = measure_model(section, AutoModelForCausalLM)
            return ModelSize(size.num_parameters, size.num_bytes * (2 if section.reference else 1))
        case _:
            return ModelSize(0, 0)


def estimate_memory(config: schema.RunConfig, policy: ModelSize, rewards: list[ModelSize]) -> MemoryEstimate:
    """Estimate the memory of a run.

    Activations are counted as the inputs of every linear layer, which LoRA keeps for its gradients, plus as much
    again for norms and attention; generation as keys and values at full width.
    """
    rank = config.policy.lora.rank
    adapter = sum(rank * (width_in + width_out) for width_in, width_out in policy.linear_shapes)
    bytes_each = choose_dtype(config.policy.precision, choose_device(config.policy.device)).itemsize
    per_token = 2 * bytes_each * sum(width_in for width_in, _ in policy.linear_shapes)
    if config.training.gradient_checkpointing:
        per_token = 2 * bytes_each * policy.hidden_size * (policy.num_layers + 8)
    largest = sorted((size.num_bytes for size in rewards), reverse=True)[: config.rewards.max_resident]
    return MemoryEstimate(
        policy=policy.num_bytes,
        adapters=_ADAPTER_COPIES * _FLOAT32 * adapter,
        rewards=sum(largest),
        activations=config.training.max_batch_tokens * per_token,
        generation=config.generation.max_batch_tokens * 2 * policy.num_layers * policy.hidden_size * bytes_each,
    )


def print_plan(config: schema.RunConfig, console: Console) -> None:
    """Print the resolved configuration and what a run would do.

    Raises:
        LaserError: Something the run needs cannot be had; a run would fail the same way.
    """
    console.print_json(json.dumps(config.model_dump(mode="json")))
    splits = build_splits(config)
    for model in config.rewards.models:
        check_reward_model(model)
    policy = measure_model(config.policy, AutoModelForCausalLM)
    rewards = [measure_reward_model(model) for model in config.rewards.models]
    console.print(_models_table(config, policy, rewards))
    console.print(_steps_table(config, splits))
    console.print(_memory_table(estimate_memory(config, policy, rewards)))


def _models_table(config: schema.RunConfig, policy: ModelSize, rewards: list[ModelSize]) -> Table:
    table = Table("role", "name", "source", "parameters", title="Models")
    table.add_row("policy", "", escape(config.policy.model), _count(policy.num_parameters))
    for section, size in zip(config.rewards.models, rewards, strict=True):
        source = escape(_source(section))
        table.add_row(f"RM ({section.type})", escape(section.name), source, _count(size.num_parameters))
    return table


def _source(section: reward_sections.RewardModelConfig) -> str:
    match section:
        case reward_sections.FunctionReward(function=spec) | reward_sections.PythonReward(factory=spec):
            return spec
        case _:
            return section.model or ""


def _steps_table(config: schema.RunConfig, splits: Splits) -> Table:
    training = config.training
    batches = len(build_plan(config, splits.train).draw_batches(0))
    steps = training.iterations * batches * training.epochs * training.optimizer_steps
    responses = training.iterations * batches * training.batch_size * config.generation.num_responses
    table = Table("what", "how many", title="Plan")
    for name, value in (
        ("prompts: train / dev / test", f"{len(splits.train)} / {len(splits.dev)} / {len(splits.test)}"),
        ("iterations x batches", f"{training.iterations} x {batches}"),
        ("optimizer steps, at most", str(steps)),
        ("responses sampled, at most", str(responses)),
        ("pairs, at most", str(training.iterations * batches * training.batch_size * training.pairs_per_prompt)),
    ):
        table.add_row(name, value)
    return table


def _memory_table(estimate: MemoryEstimate) -> Table:
    table = Table("on the device", "GiB", title="Memory, estimated")
    for name in ("policy", "adapters", "rewards", "activations", "generation"):
        table.add_row(name, f"{getattr(estimate, name) / 2**30:.2f}")
    table.add_section()
    table.add_row("peak", f"{estimate.peak / 2**30:.2f}", style="bold")
    return table


def _count(number: int) -> str:
    if number == 0:
        return "-"
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.0f} M"

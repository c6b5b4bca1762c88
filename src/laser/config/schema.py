"""The configuration: frozen models, closed unions, the paper's defaults (arXiv 2410.01735, Sec. 4.1 and A.1).

Imports neither torch nor any other part of the library. A field's description says where its default is from.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from laser.config.data import Data
from laser.config.evaluation import BestOfNConfig, EvaluationConfig
from laser.config.presets import UNLEARNING
from laser.config.rewards import RewardsConfig
from laser.config.section import Device, Factory, PositiveInt, Section, Source
from laser.config.selection import (
    AgreementSignal,
    Feedback,
    FixedSelector,
    FrozenSelector,
    LinUCBSelector,
    NoSignal,
    ProbeSignal,
    QuantileFeedback,
    SelectorConfig,
    SequentialSelector,
    SignalConfig,
)
from laser.config.servers import ServerConfig
from laser.config.tracking import TrackingConfig


class LoraConfig(Section):
    """Low-rank adapters (peft). The paper: rank 16, alpha 32."""

    rank: PositiveInt = Field(16, description="Rank of the adapters (paper: 16).")
    alpha: float = Field(32.0, gt=0, description="Scale of the adapters, applied as alpha / rank (paper: 32).")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout inside the adapters while training.")
    target_modules: str | tuple[str, ...] = Field(
        "all-linear", description="Which linear layers get an adapter: 'all-linear', a regular expression, or names."
    )


class PolicyConfig(Section):
    """The language model that is trained."""

    model: Source = Field(
        description="Hub id, local folder, .gguf file, or 'package:NAME' for weights inside an installed package."
    )
    revision: str | None = Field(None, description="Hub revision (branch, tag or commit).")
    trust_remote_code: bool = Field(False, description="Run model code from the hub; off unless you trust the author.")
    device: Device = Field("auto", description="auto, cpu, mps, cuda or cuda:N.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of forward passes; auto is bf16 on GPUs that have it and fp32 elsewhere."
    )
    system_prompt: str | None = Field(None, description="System message put before every prompt that has none.")
    chat_template: str = Field(
        "own", description="The model's own, 'plain' (messages line by line, for a base model without one), or Jinja."
    )
    max_context: PositiveInt | None = Field(None, description="Token limit of prompt + response; None: the model's.")
    overlong: Literal["refuse", "cut_middle"] = Field(
        "refuse",
        description="A prompt that leaves no room for a response: stop, or cut the middle of its last message.",
    )
    shard: bool = Field(
        False,
        description="Shard the weights of the layers over the processes of the run (FSDP2), for a policy that does not "
        "fit on one device; a run of one process holds them all. See docs/scale.md.",
    )
    shard_group: PositiveInt | None = Field(
        None,
        description="Processes that hold one copy of the layers between them, as those of one node (hybrid sharding); "
        "None: all.",
    )
    shard_offload: bool = Field(
        False, description="Keep the shards in CPU memory; layers are copied when they compute."
    )
    lora: LoraConfig = Field(default_factory=LoraConfig, description="Low-rank adapters.")

    @model_validator(mode="after")
    def _has_a_template(self) -> PolicyConfig:
        if self.chat_template not in ("own", "plain") and not re.search(r"\{[{%]", self.chat_template):
            raise ValueError(
                f"policy.chat_template = {self.chat_template!r} shows no message; set 'own', 'plain' or the text of a "
                "Jinja template, not its path"
            )
        return self

    @model_validator(mode="after")
    def _can_be_sharded(self) -> PolicyConfig:
        if self.shard and self.trust_remote_code:
            raise ValueError(
                "policy.shard makes the model in every process from a class of transformers, which cannot be done with "
                "trust_remote_code; set one of the two to false"
            )
        if not self.shard and (self.shard_group is not None or self.shard_offload):
            raise ValueError("policy.shard_group and policy.shard_offload need policy.shard = true")
        return self


class GenerationConfig(Section):
    """How responses are sampled. The paper: n = 30, temperature 0.8."""

    num_responses: int = Field(30, ge=2, description="Responses sampled per prompt, n (paper: 30).")
    temperature: float = Field(0.8, gt=0, description="Sampling temperature (paper: 0.8).")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling; 1 keeps the whole distribution.")
    max_new_tokens: PositiveInt = Field(512, description="Longest response in tokens.")
    max_batch_tokens: PositiveInt | None = Field(
        None,
        description="Budget of one generation chunk, in tokens whose keys and values are held: those of a prompt once "
        "(models with sliding windows: for every response) and of its responses; halved where memory runs out. "
        "null: 16,384, or on a GPU what fits into three tenths of the memory that the policy leaves free.",
    )
    engine: Literal["transformers", "vllm", "python"] = Field(
        "transformers",
        description="Sample in this process, through a vLLM server that `laser serve` starts, or by `factory`.",
    )
    factory: Factory | None = Field(
        None, description="'path.py:function' ``(policy) -> Generator`` for engine = 'python'; see docs/extend.md."
    )
    server: ServerConfig = Field(default_factory=ServerConfig, description="The server of engine = 'vllm'.")


class SplitConfig(Section):
    """Split sizes, and how batches are drawn."""

    train: int | None = Field(None, ge=0, description="Number of training prompts; None: all that remain.")
    dev: int = Field(64, ge=0, description="Number of development prompts.")
    test: int = Field(0, ge=0, description="Number of test prompts.")
    shrink: bool = Field(
        False, description="With too few prompts, keep the proportions of train, dev and test instead of stopping."
    )
    batching: Literal["shuffled", "by_category"] = Field(
        "shuffled", description="Batches over all prompts (the paper's reasoning), or of one category (its WildChat)."
    )


class ContextConfig(Section):
    """Bandit contexts: where they come from, and how they are prepared."""

    source: Literal["policy", "encoder", "category", "none"] = Field(
        "policy",
        description="policy: the policy's hidden state (paper); encoder: a sentence encoder; category: the prompt's "
        "category, one-hot; none: a constant.",
    )
    encoder: Source | None = Field(None, description="Hub id or folder of the text encoder of source = 'encoder'.")
    categories: tuple[str, ...] | None = Field(
        None, min_length=1, description="The categories of source = 'category'; all others share one more feature."
    )
    normalization: Literal["none", "l2", "standardize", "unit"] = Field(
        "none",
        description="none (paper); l2: unit length; standardize: by running moments; unit: both, and a constant.",
    )
    scale: float = Field(1.0, gt=0, description="Factor on the prepared context; gives alpha its meaning.")
    projection: PositiveInt | None = Field(None, description="Seeded random projection to this many features.")

    @model_validator(mode="after")
    def _has_what_its_source_needs(self) -> ContextConfig:
        needs = {"encoder": "encoder", "category": "categories"}
        for source, name in needs.items():
            given = getattr(self, name) is not None
            if self.source == source and not given:
                raise ValueError(f"context.source = {source!r} needs context.{name}; set it")
            if self.source != source and given:
                raise ValueError(f"context.{name} is for context.source = {source!r}; set that, or drop context.{name}")
        return self


class TrainingConfig(Section):
    """The loop of Algorithm 1."""

    loss: Literal["dpo", "nll", "nll+dpo", "kto"] = Field("nll+dpo", description="Preference loss (Sec. 3.1).")
    beta: float = Field(0.1, gt=0, description="Strength of the reference in DPO and KTO.")
    nll_weight: float = Field(1.0, ge=0, description="Weight of NLL in nll+dpo (paper: 1).")
    reference: Literal["previous_iteration", "initial"] = Field(
        "previous_iteration", description="Reference policy of DPO and KTO (paper: the previous iteration's policy)."
    )
    iterations: PositiveInt = Field(10, description="Iterations M (paper: 10).")
    batches_per_iteration: PositiveInt | None = Field(
        None, description="Batches T of an iteration; None: one pass over the training prompts."
    )
    batch_size: PositiveInt = Field(16, description="Prompts per batch (paper: 16).")
    pairs_per_prompt: PositiveInt = Field(10, description="Pairs drawn at random per prompt, P (paper: 10).")
    sampling: Literal["per_iteration", "per_batch"] = Field(
        "per_batch", description="Sample responses for the whole iteration at its start, or fresh for every batch."
    )
    granularity: Literal["per_batch", "per_prompt"] = Field(
        "per_batch", description="One selection for the batch with its mean context (paper), or one per prompt."
    )
    epochs: PositiveInt = Field(1, description="Passes over a batch's pairs.")
    optimizer_steps: PositiveInt = Field(1, description="Optimizer steps per pass; the batch is split evenly.")
    learning_rate: float = Field(5e-6, gt=0, le=1e30, description="AdamW learning rate (paper: 5e-6).")
    warmup_steps: int = Field(0, ge=0, description="Optimizer steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    max_batch_tokens: PositiveInt | None = Field(
        None,
        description="Budget of one training micro-batch, in tokens; halved where memory runs out. null: 4,096, or on a "
        "GPU what fits into three tenths of the memory that the policy leaves free.",
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations to save memory.")
    convergence_threshold: float = Field(
        0.1, ge=0, description="Stop when the dev metric moves by less, in percentage points (paper: 0.1); 0: never."
    )
    convergence_patience: PositiveInt = Field(2, description="Checks in a row below the threshold before stopping.")
    bandit_loss: Literal["train", "post_update", "decrease"] = Field(
        "train",
        description="The loss the bandit is fed: while training, after the update, or after minus before the update "
        "(negative where the update lowered the loss). A learning ensemble's members always get the loss before the "
        "update.",
    )


class SftConfig(Section):
    """`laser sft`: fine-tuning on gold answers before preference training. [training] has the rest of the optimizer."""

    epochs: PositiveInt = Field(3, description="Passes over the training prompts.")
    batch_size: PositiveInt = Field(16, description="Prompts per optimizer step.")
    learning_rate: float = Field(1e-4, gt=0, le=1e30, description="AdamW learning rate.")


class CheckpointConfig(Section):
    """When state is written to the run directory."""

    every: PositiveInt = Field(10, description="Batches between checkpoints; the end of an iteration always has one.")
    keep: PositiveInt = Field(2, description="Newest checkpoints kept.")
    log_contexts: bool = Field(
        False, description="Write the bandit's contexts into steps.jsonl too, for laser simulate --replay."
    )


def checked_names(rewards: RewardsConfig, selector: SelectorConfig) -> list[str]:
    """Names of the reward models, by arm; raises ValueError where they or the selector's cannot be used."""
    names = [model.name for model in rewards.models]
    if not names:
        raise ValueError("rewards.models is empty (K = 0); add at least one [[rewards.models]] table")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two reward models are named {name!r}; give each [[rewards.models]] its own name")
    named = selector.arm if isinstance(selector, FixedSelector) else None
    order = selector.order if isinstance(selector, SequentialSelector) else None
    for name in [*([named] if named is not None else []), *(order or [])]:
        if name not in names:
            raise ValueError(f"the selector names {name!r}, but the pool holds {', '.join(names)}")
    return names


class RunConfig(Section):
    """A whole run."""

    preset: Literal["paper", "recommended"] = Field(
        "paper", description="Defaults to start from: the paper's, or what our measurements recommend."
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="The one seed of every random stream.")
    policy: PolicyConfig
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    data: Data
    split: SplitConfig = Field(default_factory=SplitConfig)
    rewards: RewardsConfig
    context: ContextConfig = Field(default_factory=ContextConfig)
    selector: SelectorConfig = Field(default_factory=LinUCBSelector)
    feedback: Feedback = Field(default_factory=QuantileFeedback)
    signal: SignalConfig = Field(default_factory=NoSignal)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    sft: SftConfig = Field(default_factory=SftConfig)
    best_of_n: BestOfNConfig = Field(default_factory=BestOfNConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="Experiment trackers.")

    @model_validator(mode="after")
    def _possible(self) -> RunConfig:
        names = checked_names(self.rewards, self.selector)
        is_frozen = isinstance(self.selector, FrozenSelector)  # leaves out pairs that a probe says are doubtful
        if isinstance(self.signal, ProbeSignal) and self.selector.type in UNLEARNING and not is_frozen:
            raise ValueError(
                f"selector.type = {self.selector.type!r} learns nothing, so signal.type = 'probe' has no effect; "
                "drop [signal] or choose a bandit"
            )
        if isinstance(self.signal, AgreementSignal) and len(names) == 1:
            raise ValueError(
                "signal.type = 'agreement' compares reward models and the pool has one; add one or drop [signal]"
            )
        num_possible = self.generation.num_responses * (self.generation.num_responses - 1) // 2
        if self.training.pairs_per_prompt > num_possible:
            raise ValueError(
                f"training.pairs_per_prompt is {self.training.pairs_per_prompt}, but "
                f"{self.generation.num_responses} responses make only {num_possible} pairs; "
                "lower it or raise generation.num_responses"
            )
        if (self.generation.engine == "python") != (self.generation.factory is not None):
            raise ValueError("generation.engine = 'python' and generation.factory go together; set both or neither")
        if isinstance(self.feedback, QuantileFeedback) and self.feedback.low >= self.feedback.high:
            raise ValueError("feedback.low must be below feedback.high")
        if self.training.optimizer_steps > self.training.batch_size:
            raise ValueError(
                "training.optimizer_steps is larger than training.batch_size; a step needs at least one prompt"
            )
        return self

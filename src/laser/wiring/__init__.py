"""The only place where configuration becomes objects: one match per union, one function per role."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from laser.config import schema
from laser.core.seeding import stream_seed
from laser.core.types import Prompt
from laser.data.split import Splits
from laser.evaluation.accuracy import accuracy
from laser.evaluation.metrics import check_gold
from laser.lm.chat import PLAIN_TEMPLATE
from laser.lm.limits import check_vocabulary
from laser.lm.sharding import Sharding
from laser.lm.sources import load_causal_lm
from laser.parallel.ranks import Alone, Ranks
from laser.policy.generation import Generator, TransformersGenerator
from laser.policy.policy import Policy
from laser.policy.sharded_generation import ShardedGenerator
from laser.policy.vllm_generation import VllmGenerator
from laser.training.batch import Parts, all_pairs
from laser.training.findings import Findings
from laser.training.learner import Learner
from laser.training.loop import Evaluate, draw_batches
from laser.training.losses import Objective
from laser.training.probe import Probe
from laser.wiring.accelerate import as_launched, check_layers
from laser.wiring.checks import check_answers
from laser.wiring.contexts import build_contexts, build_embedder
from laser.wiring.custom import custom_generator
from laser.wiring.data import build_splits
from laser.wiring.fitting import make_room
from laser.wiring.probe import split_off_probe
from laser.wiring.rewards import build_pool, check_reward_model, reward_fingerprints
from laser.wiring.selection import build_feedback, build_selector, build_signal
from laser.wiring.servers import build_endpoint
from laser.wiring.tracking import build_tracking, check_tracking
from laser.wiring.weights import load_weights, tokenizer_of

__all__ = [
    "Built",
    "build",
    "build_contexts",
    "build_embedder",
    "build_feedback",
    "build_generator",
    "build_policy",
    "build_pool",
    "build_selector",
    "build_splits",
    "build_tracking",
    "check_dev",
    "check_reward_model",
    "reward_fingerprints",
]


@dataclass(frozen=True, slots=True)
class Built:
    """A configuration as objects.

    Attributes:
        parts: The objects of Algorithm 1.
        splits: Training, development and test prompts.
        loaded: The prompts as they were read, before some were left out or went to the probe.
        evaluate: Measures the dev metric; None where there is none to measure.
        num_prompts: Counts of prompts by split, for run.json.
    """

    parts: Parts
    splits: Splits
    loaded: Splits
    evaluate: Evaluate | None
    num_prompts: dict[str, int]


def build(
    config: schema.RunConfig,
    *,
    on_tokens: Callable[[int], None] | None = None,
    on_probe: Callable[[Findings], None] = lambda findings: None,
    keep: Callable[[Sequence[Prompt]], Sequence[Prompt]] = lambda prompts: prompts,
    ranks: Ranks | None = None,
) -> Built:
    """Load data and models and wire them together.

    Args:
        config: The resolved configuration.
        on_tokens: Called with the number of tokens sampled, while sampling.
        on_probe: Called with what a probe finds, before training with the reward models.
        keep: Gives the training prompts that are used, of those that the split and the probe leave.
        ranks: The processes of the run; None: this one alone.

    Raises:
        LaserError: Something named in the configuration is missing or cannot be used.
    """
    ranks, config = ranks or Alone(), as_launched(config, os.environ)
    check_tracking(config)
    loaded = splits = build_splits(config)
    check_dev(splits.dev)
    check_answers(config.signal, splits)
    splits, probe = split_off_probe(splits, config.signal, config.data)
    splits = replace(splits, train=keep(splits.train))
    pool = build_pool(config, ranks)
    policy = build_policy(config, ranks)
    room = make_room(config, policy, splits, probe)
    splits = room.splits
    generator = build_generator(config.generation, policy, on_tokens, ranks)
    embedder = build_embedder(config.context, policy)
    contexts = build_contexts(config, dim=embedder.context_dim)
    evaluate = build_evaluation(config, generator, splits.dev)
    signal = build_signal(
        config,
        pool,
        generator,
        room.probe,
        partial(build_evaluation, config, generator),
        splits.dev,
        on_probe=on_probe,
    )
    parts = Parts(
        policy=policy,
        generator=generator,
        pool=pool,
        embedder=embedder,
        contexts=contexts,
        selector=build_selector(
            config,
            contexts,
            batches_per_iteration=lambda: len(draw_batches(config, splits.train, 0)),
            costs=pool.costs,
        ),
        feedback=build_feedback(config.feedback),
        signal=signal,
        learner=build_learner(config.training, policy, ranks),
        ranks=ranks,
        filter_pairs=signal.drop_doubtful if isinstance(signal, Probe) else all_pairs,
    )
    return Built(parts, splits, loaded, evaluate, room.as_record())


def build_policy(config: schema.RunConfig, ranks: Ranks | None = None) -> Policy:
    """Load the policy and add its adapters; with `policy.shard`, each process of the run holds a shard of it."""
    section = config.policy
    sharding = Sharding(ranks, section.shard_group, section.shard_offload) if section.shard and ranks else None
    load = partial(load_causal_lm, sharding=sharding)
    model = load_weights(section, load, section.model, section.revision)
    check_layers(model, os.environ)
    tokenizer = build_tokenizer(section)
    check_vocabulary(tokenizer, model.config, section.model)
    return Policy(
        model,
        tokenizer,
        lora_rank=section.lora.rank,
        lora_alpha=section.lora.alpha,
        lora_dropout=section.lora.dropout,
        target_modules=section.lora.target_modules,
        max_context=section.max_context,
        system_prompt=section.system_prompt,
        gradient_checkpointing=config.training.gradient_checkpointing,
        seed=config.seed,
    )


def build_tokenizer(section: schema.PolicyConfig) -> PreTrainedTokenizerBase:
    """Load the policy's tokenizer with the configured chat template."""
    tokenizer = tokenizer_of(section, section.model)
    if section.chat_template != "own":
        tokenizer.chat_template = PLAIN_TEMPLATE if section.chat_template == "plain" else section.chat_template
    return tokenizer


def build_generator(
    section: schema.GenerationConfig,
    policy: Policy,
    on_tokens: Callable[[int], None] | None = None,
    ranks: Ranks | None = None,
) -> Generator:
    """Make the generator of `generation.engine`, which samples for all processes of the run."""
    generator: Generator
    match section.engine:
        case "transformers":
            generator = TransformersGenerator(policy, max_batch_tokens=section.max_batch_tokens, on_tokens=on_tokens)
        case "python":
            generator = custom_generator(section.factory or "", policy)
        case "vllm":
            server = section.server
            generator = VllmGenerator(
                policy,
                build_endpoint(server),
                model=server.model,
                adapter_folder=Path(server.adapter_folder) if server.adapter_folder else None,
                tolerance=server.logp_tolerance,
                on_tokens=on_tokens,
            )
    if ranks is None or ranks.size == 1:
        return generator
    return ShardedGenerator(generator, ranks, only_main=section.engine == "vllm")


def build_learner(section: schema.TrainingConfig, policy: Policy, ranks: Ranks | None = None) -> Learner:
    """Make the optimizer and loss."""
    return Learner(
        policy,
        Objective(section.loss, beta=section.beta, nll_weight=section.nll_weight),
        learning_rate=section.learning_rate,
        reference=section.reference,
        warmup_steps=section.warmup_steps,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        epochs=section.epochs,
        optimizer_steps=section.optimizer_steps,
        max_batch_tokens=section.max_batch_tokens,
        bandit_loss=section.bandit_loss,
        sampled_by_reference=section.sampling == "per_iteration" and section.reference == "previous_iteration",
        ranks=ranks,
    )


def check_dev(dev: Sequence[Prompt]) -> None:
    """Raise DataError if only some dev prompts have gold answers; if none has one, nothing is measured."""
    if any(prompt.answer is not None for prompt in dev):
        check_gold(dev, "accuracy", "dev")


def build_evaluation(config: schema.RunConfig, generator: Generator, dev: Sequence[Prompt]) -> Evaluate | None:
    """A function that measures accuracy on the dev prompts; None without prompts or gold answers."""
    if not dev or all(prompt.answer is None for prompt in dev):
        return None

    def answer(prompts: Sequence[Prompt]) -> list[str]:
        return [text for row in dev_answers(config, generator, prompts, range(len(prompts))) for text in row]

    return partial(accuracy, answer, dev, config.evaluation.answer, samples=config.evaluation.dev_samples)


def dev_answers(
    config: schema.RunConfig, generator: Generator, prompts: Sequence[Prompt], rows: Sequence[int]
) -> list[list[str]]:
    """Answers to dev prompts, `evaluation.dev_samples` each, as the dev metric draws them.

    Args:
        config: The configuration of the run.
        generator: Samples them.
        prompts: The prompts, fitted to the policy's window.
        rows: Their places in the dev split, which decide the seeds.
    """
    replies = generator.generate(
        prompts,
        num_responses=config.evaluation.dev_samples,
        temperature=config.evaluation.temperature,
        top_p=1.0,
        max_new_tokens=config.evaluation.max_new_tokens or config.generation.max_new_tokens,
        seeds=[stream_seed(config.seed, "evaluation", row) for row in rows],
    )
    return [[reply.text for reply in row] for row in replies]

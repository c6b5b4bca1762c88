"""The only place where configuration becomes objects: one match per union, plain arguments to every constructor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from laser.bandits.context import ContextPreparer
from laser.config import schema
from laser.core.seeding import stream_seed
from laser.core.types import Prompt
from laser.data.batches import Batching, batches
from laser.data.split import Splits
from laser.evaluation.accuracy import Accuracy, accuracy
from laser.evaluation.metrics import check_gold
from laser.lm.chat import PLAIN_TEMPLATE
from laser.lm.sources import choose_device, choose_dtype, load_causal_lm, load_tokenizer
from laser.parallel.ranks import Alone, Ranks
from laser.policy.generation import Generator, TransformersGenerator
from laser.policy.policy import Policy
from laser.policy.sharded_generation import ShardedGenerator
from laser.policy.vllm_generation import VllmGenerator
from laser.serving.endpoint import Endpoint
from laser.training.batch import BatchSettings, Parts
from laser.training.learner import Learner
from laser.training.loop import Plan
from laser.training.losses import Objective
from laser.wiring.checks import check_answers
from laser.wiring.custom import custom_generator
from laser.wiring.data import build_splits
from laser.wiring.fitting import make_room
from laser.wiring.rewards import build_pool, check_reward_model, reward_fingerprints
from laser.wiring.selection import build_feedback, build_selector, build_signal, signal_weight, split_off_probe
from laser.wiring.tracking import build_tracking, check_tracking

__all__ = [
    "Built",
    "build",
    "build_contexts",
    "build_feedback",
    "build_generator",
    "build_plan",
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
    """Everything `laser.training.loop.train` needs."""

    parts: Parts
    splits: Splits
    plan: Plan
    evaluate: Callable[[], Accuracy] | None
    prompts: dict[str, int]


def build(
    config: schema.RunConfig, *, on_tokens: Callable[[int], None] | None = None, ranks: Ranks | None = None
) -> Built:
    """Load data and models and wire them together.

    Args:
        config: The resolved configuration.
        on_tokens: Told how many tokens were sampled, while sampling.
        ranks: The processes of the run; None: this one alone.

    Raises:
        LaserError: Something named in the configuration cannot be had.
    """
    check_tracking(config)
    splits = build_splits(config)
    check_dev(splits.dev)
    check_answers(config.signal, splits)
    splits, probe = split_off_probe(splits, config.signal)
    ranks = ranks or Alone()
    pool = build_pool(config, ranks)
    policy = build_policy(config, ranks)
    room = make_room(config, policy, splits, probe)
    splits = room.splits
    generator: Generator = build_generator(config.generation, policy, on_tokens)
    if ranks.size > 1:
        generator = ShardedGenerator(generator, ranks, only_main=config.generation.engine == "vllm")
    contexts = build_contexts(config, dim=policy.context_dim)
    plan = build_plan(config, splits.train)
    evaluate = build_evaluation(config, generator, splits.dev)
    parts = Parts(
        policy=policy,
        generator=generator,
        pool=pool,
        contexts=contexts,
        selector=build_selector(config, contexts, batches_per_iteration=len(plan.draw_batches(0))),
        feedback=build_feedback(config.feedback),
        signal=build_signal(
            config, pool, generator, room.probe, lambda dev: build_evaluation(config, generator, dev), splits.dev
        ),
        learner=build_learner(config.training, policy, ranks),
        ranks=ranks,
    )
    return Built(parts, splits, plan, evaluate, room.as_record())


def build_contexts(config: schema.RunConfig, *, dim: int) -> ContextPreparer:
    """Make the preparation of embeddings of `dim` features."""
    section = config.context
    return ContextPreparer(
        dim,
        normalization=section.normalization,
        scale=section.scale,
        projection=section.projection,
        seed=config.seed,
    )


def build_policy(config: schema.RunConfig, ranks: Ranks | None = None) -> Policy:
    """Load the policy and put adapters on it; with `policy.shard`, the processes of a run hold it between them."""
    section = config.policy
    device = choose_device(section.device)
    model = load_causal_lm(
        section.model,
        revision=section.revision,
        trust_remote_code=section.trust_remote_code,
        device=device,
        dtype=choose_dtype(section.precision, device),
        ranks=ranks if section.shard else None,
    )
    return Policy(
        model,
        build_tokenizer(section),
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
    """Load the policy's tokenizer, with the chat template that the configuration wants."""
    tokenizer = load_tokenizer(section.model, revision=section.revision, trust_remote_code=section.trust_remote_code)
    if section.chat_template != "own":
        tokenizer.chat_template = PLAIN_TEMPLATE if section.chat_template == "plain" else section.chat_template
    return tokenizer


def build_generator(
    section: schema.GenerationConfig, policy: Policy, on_tokens: Callable[[int], None] | None = None
) -> Generator:
    """Make what samples with the policy."""
    if section.engine == "transformers":
        return TransformersGenerator(policy, max_batch_tokens=section.max_batch_tokens, on_tokens=on_tokens)
    if section.engine == "python":
        return custom_generator(section.factory or "", policy)
    server = section.server
    endpoint = Endpoint(
        server.url,
        api_key_env=server.api_key_env,
        timeout=server.timeout,
        retries=server.retries,
        concurrency=server.concurrency,
    )
    return VllmGenerator(
        policy,
        endpoint,
        model=server.model,
        adapter_folder=Path(server.adapter_folder) if server.adapter_folder else None,
        tolerance=server.logp_tolerance,
        on_tokens=on_tokens,
    )


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
        sampled_by_reference=section.sampling == "per_iteration" and section.reference == "previous_iteration",
        ranks=ranks,
    )


def build_plan(config: schema.RunConfig, train: Sequence[Prompt]) -> Plan:
    """Lengths and intervals of the loop."""
    training = config.training
    draw = partial(
        _draw,
        train,
        batch_size=training.batch_size,
        num_batches=training.batches_per_iteration,
        batching=config.split.batching,
        seed=config.seed,
    )
    return Plan(
        iterations=training.iterations,
        draw_batches=draw,
        batch=BatchSettings(
            seed=config.seed,
            num_responses=config.generation.num_responses,
            temperature=config.generation.temperature,
            top_p=config.generation.top_p,
            max_new_tokens=config.generation.max_new_tokens,
            pairs_per_prompt=training.pairs_per_prompt,
            granularity=training.granularity,
            bandit_loss=training.bandit_loss,
            combination=config.rewards.combine,
            candidate_pairs=config.rewards.candidate_pairs,
            signal_weight=signal_weight(config.signal),
            log_contexts=config.checkpoint.log_contexts,
        ),
        sampling=training.sampling,
        reference=training.reference,
        evaluate_every=config.evaluation.every,
        convergence_threshold=training.convergence_threshold,
        convergence_patience=training.convergence_patience,
        checkpoint_every=config.checkpoint.every,
        keep_checkpoints=config.checkpoint.keep,
    )


def _draw(
    prompts: Sequence[Prompt],
    iteration: int,
    *,
    batch_size: int,
    num_batches: int | None,
    batching: Batching,
    seed: int,
) -> list[list[int]]:
    return batches(
        prompts, batch_size=batch_size, num_batches=num_batches, batching=batching, seed=seed, iteration=iteration
    )


def check_dev(dev: Sequence[Prompt]) -> None:
    """Raises DataError where only some of the dev prompts have gold answers; without any nothing is measured."""
    if any(prompt.answer is not None for prompt in dev):
        check_gold(dev, "accuracy", "dev")


def build_evaluation(
    config: schema.RunConfig, generator: Generator, dev: Sequence[Prompt]
) -> Callable[[], Accuracy] | None:
    """Accuracy of answers on the dev prompts; None where there are none or they have no gold answers."""
    if not dev or all(prompt.answer is None for prompt in dev):
        return None
    longest = config.evaluation.max_new_tokens or config.generation.max_new_tokens

    def answer(prompts: Sequence[Prompt]) -> list[str]:
        replies = generator.generate(
            prompts,
            num_responses=1,
            temperature=config.evaluation.temperature,
            top_p=1.0,
            max_new_tokens=longest,
            seeds=[stream_seed(config.seed, "evaluation", row) for row in range(len(prompts))],
        )
        return [reply[0].text for reply in replies]

    return partial(accuracy, answer, dev, config.evaluation.answer)

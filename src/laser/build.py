"""The only place where configuration becomes objects: one match per union, plain arguments to every constructor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from laser.bandits.base import Selector
from laser.bandits.baselines import Fixed, UniformRandom
from laser.bandits.context import ContextPreparer
from laser.bandits.feedback import QuantileFeedback
from laser.bandits.linucb import LinUCB
from laser.config import schema
from laser.data.batches import Batching, batches
from laser.data.embedded import generate
from laser.data.files import Fields, load_file
from laser.data.hub import load_hub
from laser.data.split import Splits, split
from laser.errors import LaserError, RewardModelError
from laser.evaluation.accuracy import Accuracy, accuracy
from laser.lm.chat import has_chat_template
from laser.lm.sources import (
    choose_device,
    choose_dtype,
    fingerprint,
    load_causal_lm,
    load_classifier,
    load_encoder,
    load_model_config,
    load_tokenizer,
)
from laser.policy.generation import TransformersGenerator
from laser.policy.policy import Policy
from laser.rewards.base import RewardModel
from laser.rewards.classifier import ClassifierRM
from laser.rewards.function import FunctionRM, function_fingerprint, load_function
from laser.rewards.loglik import LogLikelihoodRM
from laser.rewards.pool import Arm, RewardPool
from laser.rewards.similarity import SimilarityRM
from laser.training.batch import BatchSettings, Parts
from laser.training.learner import Learner
from laser.training.loop import Plan
from laser.training.losses import Objective
from laser.types import Prompt


@dataclass(frozen=True, slots=True)
class Built:
    """Everything `laser.training.loop.train` needs."""

    parts: Parts
    splits: Splits
    plan: Plan
    evaluate: Callable[[], Accuracy] | None


def build(config: schema.RunConfig, *, on_tokens: Callable[[int], None] | None = None) -> Built:
    """Load data and models and wire them together.

    Args:
        config: The resolved configuration.
        on_tokens: Told how many tokens were sampled, while sampling.

    Raises:
        LaserError: Something named in the configuration cannot be had.
    """
    splits = build_splits(config)
    pool = build_pool(config)
    policy = build_policy(config)
    longest = config.generation.max_new_tokens
    policy.check_fits([*splits.train, *splits.dev], longest)
    generator = TransformersGenerator(policy, max_batch_tokens=config.generation.max_batch_tokens, on_tokens=on_tokens)
    contexts = ContextPreparer(
        policy.context_dim,
        normalization=config.context.normalization,
        scale=config.context.scale,
        projection=config.context.projection,
        seed=config.seed,
    )
    parts = Parts(
        policy=policy,
        generator=generator,
        pool=pool,
        contexts=contexts,
        selector=build_selector(config, dim=contexts.output_dim),
        feedback=QuantileFeedback(low=config.feedback.low, high=config.feedback.high, window=config.feedback.window),
        learner=build_learner(config.training, policy),
    )
    return Built(parts, splits, build_plan(config, splits.train), build_evaluation(config, generator, splits.dev))


def build_splits(config: schema.RunConfig) -> Splits:
    """Load the prompts and split them."""
    sizes = config.split
    match config.data:
        case schema.EmbeddedData(categories=categories):
            wanted = (sizes.train or 256) + sizes.dev + sizes.test
            prompts = generate(wanted, categories=categories, seed=config.seed)
            return split(prompts, train=sizes.train, dev=sizes.dev, test=sizes.test, seed=config.seed)
        case schema.JsonlData() as data:
            fields = _fields(data)
            files = (("dev", data.dev), ("test", data.test))
            given = {name: load_file(path, fields) for name, path in files if path is not None}
            return _splits(load_file(data.train, fields), given, config)
        case schema.HubData() as data:
            read = partial(load_hub, data.name, fields=_fields(data), config=data.config, revision=data.revision)
            named = (("dev", data.dev_split), ("test", data.test_split))
            given = {name: read(chosen) for name, chosen in named if chosen is not None}
            return _splits(read(data.train_split), given, config)


def _fields(data: schema.JsonlData | schema.HubData) -> Fields:
    return Fields(data.prompt_field, data.answer_field, data.category_field, data.template)


def _splits(train: list[Prompt], given: dict[str, list[Prompt]], config: schema.RunConfig) -> Splits:
    """Split off what has no file of its own; cut given splits to the size asked for."""
    sizes = config.split
    rest = split(
        train,
        train=sizes.train,
        dev=0 if "dev" in given else sizes.dev,
        test=0 if "test" in given else sizes.test,
        seed=config.seed,
    )
    return Splits(
        train=rest.train,
        dev=given["dev"][: sizes.dev] if "dev" in given else rest.dev,
        test=given["test"][: sizes.test] if "test" in given else rest.test,
    )


def build_policy(config: schema.RunConfig) -> Policy:
    """Load the policy and put adapters on it."""
    section = config.policy
    device = choose_device(section.device)
    model = load_causal_lm(
        section.model,
        revision=section.revision,
        trust_remote_code=section.trust_remote_code,
        device=device,
        dtype=choose_dtype(section.precision, device),
    )
    tokenizer = load_tokenizer(section.model, revision=section.revision, trust_remote_code=section.trust_remote_code)
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


def build_pool(config: schema.RunConfig) -> RewardPool:
    """Name the reward models; each is loaded when it is first chosen, but checked now."""
    for model in config.rewards.models:
        check_reward_model(model)
    arms = [Arm(model.name, _reward_builder(model)) for model in config.rewards.models]
    return RewardPool(arms, max_resident=config.rewards.max_resident)


def check_reward_model(model: schema.RewardModelConfig) -> None:
    """Find out without its weights whether a reward model can be used.

    Raises:
        RewardModelError: It cannot; the message names it.
    """
    try:
        match model:
            case schema.FunctionReward(function=spec):
                load_function(spec)
            case schema.LogLikelihoodReward() | schema.ClassifierReward():
                load_model_config(model.model, revision=model.revision, trust_remote_code=model.trust_remote_code)
                tokenizer = load_tokenizer(
                    model.model, revision=model.revision, trust_remote_code=model.trust_remote_code
                )
                other = "plain" if isinstance(model, schema.LogLikelihoodReward) else "pair"
                if model.template == "chat" and not has_chat_template(tokenizer):
                    raise RewardModelError(f"{model.model} has no chat template; set template = '{other}' for it")
            case schema.SimilarityReward():
                load_model_config(model.model, revision=model.revision, trust_remote_code=model.trust_remote_code)
    except LaserError as error:
        raise RewardModelError(f"reward model {model.name!r}: {error}") from error


def _reward_builder(model: schema.RewardModelConfig) -> Callable[[], RewardModel]:
    match model:
        case schema.FunctionReward(name=name, function=spec):
            function = load_function(spec)
            return lambda: FunctionRM(function, name)
        case schema.LogLikelihoodReward():
            return partial(_build_loglik, model)
        case schema.ClassifierReward():
            return partial(_build_classifier, model)
        case schema.SimilarityReward():
            return partial(_build_similarity, model)


def _build_loglik(section: schema.LogLikelihoodReward) -> RewardModel:
    device = choose_device(section.device)
    load = partial(
        load_causal_lm,
        trust_remote_code=section.trust_remote_code,
        device=device,
        dtype=choose_dtype(section.precision, device),
    )
    return LogLikelihoodRM(
        load(section.model, revision=section.revision),
        load_tokenizer(section.model, revision=section.revision, trust_remote_code=section.trust_remote_code),
        normalization=section.normalization,
        reference_model=load(section.reference) if section.reference is not None else None,
        end_of_turn=section.end_of_turn,
        template=section.template,
        plain_format=section.plain_format,
        max_batch_tokens=section.max_batch_tokens,
    )


def _build_classifier(section: schema.ClassifierReward) -> RewardModel:
    device = choose_device(section.device)
    model = load_classifier(
        section.model,
        revision=section.revision,
        trust_remote_code=section.trust_remote_code,
        device=device,
        dtype=choose_dtype(section.precision, device),
    )
    tokenizer = load_tokenizer(section.model, revision=section.revision, trust_remote_code=section.trust_remote_code)
    return ClassifierRM(
        model, tokenizer, label=section.label, template=section.template, max_batch_tokens=section.max_batch_tokens
    )


def _build_similarity(section: schema.SimilarityReward) -> RewardModel:
    device = choose_device(section.device)
    model = load_encoder(
        section.model,
        revision=section.revision,
        trust_remote_code=section.trust_remote_code,
        device=device,
        dtype=choose_dtype(section.precision, device),
    )
    tokenizer = load_tokenizer(section.model, revision=section.revision, trust_remote_code=section.trust_remote_code)
    return SimilarityRM(model, tokenizer, max_batch_tokens=section.max_batch_tokens)


def build_selector(config: schema.RunConfig, *, dim: int) -> Selector:
    """Make the selector over the pool's arms for contexts of `dim` features."""
    names = [model.name for model in config.rewards.models]
    match config.selector:
        case schema.LinUCBSelector() as section:
            return LinUCB(
                len(names),
                dim,
                alpha=section.alpha,
                ridge=section.ridge,
                initial_b_scale=section.initial_b_scale,
                forced_pulls=section.forced_pulls,
                seed=config.seed,
            )
        case schema.FixedSelector(arm=name):
            return Fixed(len(names), names.index(name))
        case schema.RandomSelector():
            return UniformRandom(len(names), seed=config.seed)


def build_learner(section: schema.TrainingConfig, policy: Policy) -> Learner:
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
    )


def build_plan(config: schema.RunConfig, train: list[Prompt]) -> Plan:
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
    prompts: list[Prompt], iteration: int, *, batch_size: int, num_batches: int | None, batching: Batching, seed: int
) -> list[list[int]]:
    return batches(
        prompts, batch_size=batch_size, num_batches=num_batches, batching=batching, seed=seed, iteration=iteration
    )


def build_evaluation(
    config: schema.RunConfig, generator: TransformersGenerator, dev: list[Prompt]
) -> Callable[[], Accuracy] | None:
    """Accuracy of greedy answers on the dev prompts; None where there are none or they have no gold answers."""
    if not dev or all(prompt.answer is None for prompt in dev):
        return None
    longest = config.evaluation.max_new_tokens or config.generation.max_new_tokens

    def greedy(prompts: Sequence[Prompt]) -> list[str]:
        replies = generator.generate(
            prompts, num_responses=1, temperature=0.0, top_p=1.0, max_new_tokens=longest, seeds=[0] * len(prompts)
        )
        return [reply[0].text for reply in replies]

    return partial(accuracy, greedy, dev)


def reward_fingerprints(config: schema.RunConfig) -> dict[str, str]:
    """Identity of each reward model's weights or code, by name; a resumed run must find the same."""
    return {model.name: _fingerprint(model) for model in config.rewards.models}


def _fingerprint(model: schema.RewardModelConfig) -> str:
    if isinstance(model, schema.FunctionReward):
        return function_fingerprint(model.function)
    return fingerprint(model.model, model.revision)

"""Reward models from configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from laser.config import schema
from laser.errors import LaserError, RewardModelError
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
from laser.rewards.base import RewardModel
from laser.rewards.classifier import ClassifierRM
from laser.rewards.function import FunctionRM, function_fingerprint, load_function
from laser.rewards.loglik import LogLikelihoodRM
from laser.rewards.pool import Arm, RewardPool
from laser.rewards.similarity import SimilarityRM
from laser.rewards.wrappers import CorruptedRM


def build_pool(config: schema.RunConfig) -> RewardPool:
    """Name the reward models; each is loaded when it is first chosen, but checked now."""
    for model in config.rewards.models:
        check_reward_model(model)
    arms = [Arm(model.name, _corrupted(model, _reward_builder(model), config.seed)) for model in config.rewards.models]
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


def _corrupted(
    model: schema.RewardModelConfig, build: Callable[[], RewardModel], seed: int
) -> Callable[[], RewardModel]:
    if model.corruption == "none" and model.noise == 0:
        return build
    return lambda: CorruptedRM(build(), corruption=model.corruption, noise=model.noise, seed=seed)


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


def reward_fingerprints(config: schema.RunConfig) -> dict[str, str]:
    """Identity of each reward model's weights or code, by name; a resumed run must find the same."""
    return {model.name: _fingerprint(model) for model in config.rewards.models}


def _fingerprint(model: schema.RewardModelConfig) -> str:
    if isinstance(model, schema.FunctionReward):
        return function_fingerprint(model.function)
    return fingerprint(model.model, model.revision)

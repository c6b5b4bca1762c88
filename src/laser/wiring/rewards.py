"""Reward models from configuration."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from laser.config import RouterConfig, RunConfig
from laser.config import rewards as section_of
from laser.core.errors import LaserError, RewardModelError
from laser.lm.chat import has_chat_template
from laser.lm.sharding import Sharding
from laser.lm.sources import fetch, fingerprint, load_causal_lm, load_encoder, load_tokenizer
from laser.parallel.ranks import Ranks
from laser.rewards.base import RewardModel, TrainingStep
from laser.rewards.costs import ScoringCosts
from laser.rewards.function import FunctionRM
from laser.rewards.http import HttpRM
from laser.rewards.judge import RUBRIC, JudgeRM
from laser.rewards.loglik import LogLikelihoodRM, ResponseEncoder
from laser.rewards.pool import Arm, RewardPool
from laser.rewards.quarantine import Quarantine
from laser.rewards.served_loglik import ServedLogLikelihoodRM
from laser.rewards.signatures import calling
from laser.rewards.similarity import SimilarityRM
from laser.rewards.user_code import UserCode
from laser.rewards.user_files import folder_of, forget_files, function_fingerprint, load_function
from laser.rewards.wrappers import CorruptedRM
from laser.serving.cache import CachedEndpoint
from laser.wiring.custom import custom_reward_model
from laser.wiring.scorers import (
    build_classifier,
    build_pairwise,
    build_text_metric,
    check_classifier,
    check_pairwise,
    check_text_metric,
    check_tokenizer,
)
from laser.wiring.servers import build_endpoint, request_fields
from laser.wiring.weights import load_weights, tokenizer_of


def build_pool(config: RunConfig | RouterConfig, ranks: Ranks | None = None) -> RewardPool:
    """Name the reward models of a run that begins; each is loaded when it is first chosen, but checked now."""
    forget_files()
    at = TrainingStep()
    for model in config.rewards.models:
        check_reward_model(model)
    section = config.rewards
    arms = [
        Arm(model.name, _corrupted(model, _reward_builder(model, ranks, at), config.seed), _fetcher(model, ranks))
        for model in section.models
    ]
    return RewardPool(
        arms,
        max_resident=section.max_resident,
        max_parked=section.max_parked,
        quarantine=Quarantine(len(arms), max_failures=section.max_failures, recovery_batches=section.recovery_batches),
        ranks=ranks,
        at=at,
        costs=build_costs(section),
    )


def build_costs(section: section_of.RewardsConfig) -> ScoringCosts:
    """Make the costs of a pool, of which either every reward model has one or none."""
    prices = [model.cost for model in section.models if model.cost is not None]
    return ScoringCosts(len(section.models), prices or None)


def check_reward_model(model: section_of.RewardModelConfig) -> None:
    """Find out without its weights whether a reward model can be used.

    Raises:
        RewardModelError: It cannot; the message names it.
    """
    try:
        match model:
            case section_of.FunctionReward(function=spec):
                function = load_function(spec)
                if not inspect.isclass(function):
                    calling(function, "it")
            case section_of.PythonReward(factory=spec):
                load_function(spec)
            case section_of.LogLikelihoodReward():
                tokenizer = check_tokenizer(model.model, model)
                if model.template == "chat" and not has_chat_template(tokenizer):
                    raise RewardModelError(f"{model.model} has no chat template; set template = 'plain' for it")
            case section_of.ClassifierReward():
                check_classifier(model)
            case section_of.PairwiseReward():
                check_pairwise(model)
            case section_of.TextMetricReward():
                check_text_metric(model)
            case section_of.SimilarityReward():
                check_tokenizer(model.model, model)
            case section_of.HttpReward() | section_of.JudgeReward() | section_of.ServedLogLikelihoodReward():
                _reward_builder(model)().release()
    except LaserError as error:
        raise RewardModelError(f"reward model {model.name!r}: {error}") from error


def _reward_builder(
    model: section_of.RewardModelConfig, ranks: Ranks | None = None, at: TrainingStep | None = None
) -> Callable[[], RewardModel]:
    match model:
        case section_of.FunctionReward():
            subject, folder = f"reward function {model.name!r}", folder_of(model.function)
            code = UserCode(subject, folder=folder, timeout=model.timeout)  # one, however often it is built
            return partial(FunctionRM, load_function(model.function), model.name, code=code, at=at)
        case section_of.PythonReward():
            subject, folder = f"reward model {model.name!r}", folder_of(model.factory)
            code = UserCode(subject, folder=folder, timeout=model.timeout)
            return partial(custom_reward_model, model.name, model.factory, code)
        case section_of.LogLikelihoodReward():
            return partial(_build_loglik, model, Sharding(ranks) if model.shard and ranks else None)
        case section_of.ClassifierReward():
            return partial(build_classifier, model)
        case section_of.PairwiseReward():
            return partial(build_pairwise, model)
        case section_of.TextMetricReward():
            return partial(build_text_metric, model)
        case section_of.SimilarityReward():
            return partial(_build_similarity, model)
        case section_of.HttpReward():
            return partial(_build_http, model)
        case section_of.JudgeReward():
            return partial(_build_judge, model)
        case section_of.ServedLogLikelihoodReward():
            return partial(_build_served_loglik, model)


def _fetcher(model: section_of.RewardModelConfig, ranks: Ranks | None) -> Callable[[], None]:
    if isinstance(model, section_of.LogLikelihoodReward) and model.shard and ranks is not None and ranks.rank > 0:
        return lambda: None  # the main process reads it for all
    if isinstance(model, section_of.ModelRewardBase | section_of.TextMetricReward) and model.model is not None:
        return partial(fetch, model.model, model.revision)
    return lambda: None


def _corrupted(
    model: section_of.RewardModelConfig, build: Callable[[], RewardModel], seed: int
) -> Callable[[], RewardModel]:
    if model.corruption == "none" and model.noise == 0 and model.factor == 1:
        return build
    return lambda: CorruptedRM(build(), corruption=model.corruption, noise=model.noise, factor=model.factor, seed=seed)


def _build_loglik(section: section_of.LogLikelihoodReward, sharding: Sharding | None) -> RewardModel:
    load, reference = partial(load_causal_lm, sharding=sharding), section.reference
    return LogLikelihoodRM(
        load_weights(section, load, section.model, section.revision),
        tokenizer_of(section, section.model),
        normalization=section.normalization,
        reference_model=load_weights(section, load, reference, None) if reference is not None else None,
        end_of_turn=section.end_of_turn,
        template=section.template,
        plain_format=section.plain_format,
        overflow=section.overflow,
        max_batch_tokens=section.max_batch_tokens,
    )


def _build_similarity(section: section_of.SimilarityReward) -> RewardModel:
    model = load_weights(section, load_encoder, section.model, section.revision)
    return SimilarityRM(model, tokenizer_of(section, section.model), max_batch_tokens=section.max_batch_tokens)


def _build_http(section: section_of.HttpReward) -> RewardModel:
    return HttpRM(
        build_endpoint(section),
        format=section.format,
        path=section.path,
        model=section.model,
        max_batch=section.max_batch,
    )


def _build_judge(section: section_of.JudgeReward) -> RewardModel:
    cache = Path(section.cache) if section.cache is not None else None
    return JudgeRM(
        CachedEndpoint(build_endpoint(section), cache),
        model=section.model,
        rubric=section.rubric or RUBRIC,
        scale=section.scale,
        use_logprobs=section.use_logprobs,
        fields=request_fields(section),
    )


def _build_served_loglik(section: section_of.ServedLogLikelihoodReward) -> RewardModel:
    encoder = ResponseEncoder(
        load_tokenizer(section.tokenizer, revision=section.revision, trust_remote_code=section.trust_remote_code),
        context_length=section.max_context - 1,  # the server insists on sampling a token, and counts it
        end_of_turn=section.end_of_turn,
        template=section.template,
        plain_format=section.plain_format,
        overflow=section.overflow,
    )
    return ServedLogLikelihoodRM(
        build_endpoint(section), encoder, model=section.model, normalization=section.normalization
    )


def reward_fingerprints(config: RunConfig | RouterConfig) -> dict[str, str]:
    """Identity of each reward model's weights or code, by name; a resumed run must find the same."""
    return {model.name: _fingerprint(model) for model in config.rewards.models}


def changed_names(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of what has another identity than it had, such as reward models with another fingerprint."""
    return [name for name, identity in now.items() if then.get(name) != identity]


def _fingerprint(model: section_of.RewardModelConfig) -> str:
    match model:
        case section_of.FunctionReward():
            return function_fingerprint(model.function)
        case section_of.PythonReward():
            return function_fingerprint(model.factory)
        case section_of.ClassifierReward(factory=str(factory)):
            return f"{fingerprint(model.model, model.revision)}:{function_fingerprint(factory)}"
        case section_of.TextMetricReward():
            source = model.model or model.tokenizer
            return f"text_metric:{fingerprint(source, model.revision) if source is not None else model.metric}"
        case section_of.JudgeReward():
            asked = json.dumps([model.rubric or RUBRIC, model.use_logprobs, request_fields(model)], sort_keys=True)
            return f"judge:{model.model}:{hashlib.sha256(asked.encode()).hexdigest()[:16]}:{model.scale}"
        case section_of.HttpReward():
            return f"http:{model.format}:{model.model}:{model.path}"  # the server may move
        case section_of.ServedLogLikelihoodReward():
            return f"vllm:{model.model}:{fingerprint(model.tokenizer, model.revision)}"
        case _:
            return fingerprint(model.model, model.revision)

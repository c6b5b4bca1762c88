"""Reward models of hub families and text metrics from configuration."""

from __future__ import annotations

from collections.abc import Callable

from transformers import PreTrainedTokenizerBase

from laser.config import rewards as section_of
from laser.core.errors import RewardModelError
from laser.lm.chat import encode_text
from laser.lm.limits import check_vocabulary
from laser.lm.sources import choose_device, choose_dtype, load_causal_lm, load_encoder
from laser.rewards.base import RewardModel
from laser.rewards.classifier import ClassifierRM
from laser.rewards.conversation import ConversationEncoder, check_template
from laser.rewards.families.base import Checkpoint, FamilyModel, Outputs, check_outputs, output_names
from laser.rewards.families.custom import load_custom
from laser.rewards.families.pair_lm import QUESTION, check_judge, load_pair_lm
from laser.rewards.families.pairrm import load_pairrm
from laser.rewards.families.table import FAMILIES, PAIRWISE, family_of
from laser.rewards.families.token_logit import tokens_of
from laser.rewards.families.tokens import token_of
from laser.rewards.function import FunctionRM
from laser.rewards.metrics.embedded import RoscoeRM
from laser.rewards.metrics.perplexity import PerplexityRM
from laser.rewards.metrics.text import DistinctNgrams, Format, Language, Length, TextMetric, count_words, on_responses
from laser.rewards.pairwise import PairwiseRM
from laser.rewards.user_files import load_function
from laser.wiring.weights import load_weights, model_config_of, tokenizer_of


def check_classifier(section: section_of.ClassifierReward) -> None:
    """Find out without its weights whether a classifier can be used. Raises LaserError."""
    if section.factory is not None:
        load_function(section.factory)
    family, outputs = _family(section), _outputs(section.label)
    tokenizer = check_tokenizer(section.model, section)
    check_template(tokenizer, section.template)
    if section.reward_token is not None:
        token_of(tokenizer, section.reward_token)
    if family == "token_logit":
        tokens_of(tokenizer, outputs)
    if family == "standard" and section.family == "auto":  # else config.json may be of another kind of model
        config = model_config_of(section, section.model)
        check_outputs(output_names(config, config.num_labels), outputs)


def check_pairwise(section: section_of.PairwiseReward) -> None:
    """Find out without its weights whether a pairwise model can be used. Raises LaserError."""
    family = _pairwise_family(section)
    tokenizer = check_tokenizer(section.model, section)
    if family == "pair_lm":
        check_judge(tokenizer, section.answers)


def check_text_metric(section: section_of.TextMetricReward) -> None:
    """Find out without its weights whether a text metric can be used. Raises LaserError."""
    if section.model is None:
        build_text_metric(section).release()
        return
    check_tokenizer(section.model, section)


def check_tokenizer(source: str, section: section_of.WeightsRewardBase) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer and check that the model can read all it gives. Raises ModelError."""
    config, tokenizer = model_config_of(section, source), tokenizer_of(section, source)
    check_vocabulary(tokenizer, config, source)
    return tokenizer


def build_classifier(section: section_of.ClassifierReward) -> RewardModel:
    """Load a model that scores conversations. Raises LaserError."""
    checkpoint = _checkpoint(section)
    model = _load_family(section, checkpoint)
    encoder = ConversationEncoder(
        checkpoint.tokenizer,
        template=section.template,
        window=section.max_context or model.window,
        overflow=section.overflow,
        reward_token=section.reward_token,
    )
    return ClassifierRM(model, encoder, max_batch_tokens=section.max_batch_tokens)


def build_pairwise(section: section_of.PairwiseReward) -> RewardModel:
    """Load a model that compares responses. Raises LaserError."""
    checkpoint = _checkpoint(section)
    if _pairwise_family(section) == "pairrm":
        model = load_pairrm(checkpoint)
    else:
        model = load_pair_lm(checkpoint, section.question or QUESTION, section.answers)
    return PairwiseRM(model, max_batch_tokens=section.max_batch_tokens)


def build_text_metric(section: section_of.TextMetricReward) -> RewardModel:
    """Load what a text metric needs. Raises LaserError."""
    if section.model is None:
        return FunctionRM(on_responses(_text_metric(section)), section.name)
    load = load_causal_lm if section.metric in section_of.PERPLEXITY_METRICS else load_encoder
    model = load_weights(section, load, section.model, section.revision)
    tokenizer = tokenizer_of(section, section.model)
    match section.metric:
        case "perplexity_step" | "perplexity_chain":
            return PerplexityRM(
                model,
                tokenizer,
                unit="step" if section.metric == "perplexity_step" else "chain",
                max_batch_tokens=section.max_batch_tokens,
            )
        case _:
            return RoscoeRM(
                model,
                tokenizer,
                metric=section.metric,
                reference_key=section.reference_key,
                max_batch_tokens=section.max_batch_tokens,
            )


def _text_metric(section: section_of.TextMetricReward) -> TextMetric:
    match section.metric:
        case "length":
            return Length(_counter(section), section.prefer, section.target)
        case "format":
            return Format(section.pattern or "", section.expect)
        case "distinct_ngrams":
            return DistinctNgrams(section.ngram)
        case _:
            return Language(section.language or "")


def _counter(section: section_of.TextMetricReward) -> Callable[[str], int]:
    if section.tokenizer is None:
        return {"words": count_words, "characters": len}[section.unit]
    tokenizer = tokenizer_of(section, section.tokenizer)
    return lambda text: len(encode_text(tokenizer, text))


def _load_family(section: section_of.ClassifierReward, checkpoint: Checkpoint) -> FamilyModel:
    outputs = _outputs(section.label)
    if section.factory is not None:
        return load_custom(section.factory, checkpoint, outputs)
    return FAMILIES[_family(section)](checkpoint, outputs)


def _outputs(label: str | dict[str, float] | None) -> Outputs | None:
    return {label: 1.0} if isinstance(label, str) else label


def _family(section: section_of.ClassifierReward) -> str:
    """The family, from the checkpoint's config.json where it is not named."""
    if section.family != "auto":
        return section.family
    return family_of(section.model, _architectures(section), remote_code=section.trust_remote_code)


def _pairwise_family(section: section_of.PairwiseReward) -> str:
    if section.family != "auto":
        return section.family
    architectures = _architectures(section)
    if architectures and architectures[0] in PAIRWISE:
        return "pairrm"
    if architectures and architectures[0].endswith("ForCausalLM"):
        return "pair_lm"
    raise RewardModelError(
        f"{section.model} is a {', '.join(architectures) or 'model of no named architecture'}, which does not compare "
        "responses; set type = 'classifier', or family = 'pairrm' or 'pair_lm'"
    )


def _architectures(section: section_of.ModelRewardBase) -> list[str]:
    return list(model_config_of(section, section.model).architectures or [])


def _checkpoint(section: section_of.ModelRewardBase) -> Checkpoint:
    device = choose_device(section.device)
    return Checkpoint(
        section.model,
        tokenizer_of(section, section.model),
        device=device,
        dtype=choose_dtype(section.precision, device),
        revision=section.revision,
        trust_remote_code=section.trust_remote_code,
    )

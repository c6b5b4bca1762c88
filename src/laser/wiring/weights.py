"""Models and tokenizers, loaded as a section of the configuration says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.config.rewards import WeightsRewardBase
from laser.config.schema import PolicyConfig
from laser.lm.sources import choose_device, choose_dtype, load_model_config, load_tokenizer

Section = PolicyConfig | WeightsRewardBase


def load_weights(
    section: Section, load: Callable[..., PreTrainedModel], source: str, revision: str | None
) -> PreTrainedModel:
    """Load a model with a loader of `laser.lm.sources`, on the section's device and in its precision."""
    device = choose_device(section.device)
    return load(
        source,
        revision=revision,
        trust_remote_code=section.trust_remote_code,
        device=device,
        dtype=choose_dtype(section.precision, device),
    )


def tokenizer_of(section: Section, source: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model that the section names."""
    return load_tokenizer(source, revision=section.revision, trust_remote_code=section.trust_remote_code)


def model_config_of(section: Section, source: str) -> Any:
    """Load the config.json of a model that the section names."""
    return load_model_config(source, revision=section.revision, trust_remote_code=section.trust_remote_code)

"""Identities of kept results, derived from the resolved configuration and from what it only names.

A field counts unless it is listed here as one that changes nothing: a field that is added later changes the identity
until it is listed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from laser.config import RunConfig, selection
from laser.config.data import EmbeddedData, JsonlData
from laser.core.errors import ConfigError
from laser.core.files import file_digest
from laser.core.types import Prompt, StateDict
from laser.lm.sources import fingerprint
from laser.rewards.user_files import function_fingerprint
from laser.training.checkpoint import newest_checkpoint
from laser.wiring.rewards import changed_names, reward_fingerprints
from laser.wiring.trained import find_weights, weights_digest

_WITHOUT_EFFECT = {
    "policy": (
        *("model", "revision", "trust_remote_code", "device", "lora.dropout"),
        *("shard", "shard_group", "shard_offload"),
    ),
    "generation": (
        *("num_responses", "temperature", "top_p", "max_new_tokens"),  # evaluation has its own
        *("factory", "max_batch_tokens"),
        *(f"server.{name}" for name in ("url", "urls", "model", "adapter_folder", "logp_tolerance")),
        *(f"server.{name}" for name in ("api_key_env", "timeout", "retries", "concurrency")),
    ),
}
"""Fields that change no answer of an evaluation, or whose effect is in the identity under another name."""


def answer_identity(policy: RunConfig, run: Path | None, asking: RunConfig) -> str:
    """What an answer to a prompt depends on: weights and the way of asking, as 16 hexadecimal digits.

    Args:
        policy: The configuration of the policy that answers.
        run: Its run directory; None: its untrained model.
        asking: The configuration whose `evaluation` says how it is asked.
    """
    section = asking.evaluation
    is_seeded = section.temperature > 0 or policy.generation.engine == "python"
    parts = {
        **{name: _without(policy.model_dump(mode="json")[name], names) for name, names in _WITHOUT_EFFECT.items()},
        "sources": policy_sources(policy),
        "weights": weights_digest(find_weights(run)) if run is not None else None,
        "max_new_tokens": section.max_new_tokens or asking.generation.max_new_tokens,
        "temperature": section.temperature,
        "seed": asking.seed if is_seeded else None,
    }
    return _digest(parts)[:16]


def policy_sources(config: RunConfig) -> dict[str, str | None]:
    """Identities of the files that sample: the policy's base model and a custom generator."""
    factory = config.generation.factory if config.generation.engine == "python" else None
    return {
        "policy": fingerprint(config.policy.model, config.policy.revision),
        "generator": function_fingerprint(factory) if factory is not None else None,
    }


def run_sources(config: RunConfig) -> dict[str, str | None]:
    """Identities of the files that a run's result depends on, reward models aside: policy, generator and data."""
    paths = {name: path.resolve() for name, path in _data_paths(config).items() if path.exists()}
    files = {name: fingerprint(str(path)) if path.is_dir() else file_digest(path) for name, path in paths.items()}
    return {**policy_sources(config), **files}


def prompt_sources(config: RunConfig, prompts: Mapping[str, Iterable[Prompt]]) -> dict[str, str]:
    """Identities of the prompts by split, where they come from the hub or a folder; files are in `run_sources`."""
    paths = _data_paths(config).values()
    if isinstance(config.data, EmbeddedData) or (paths and all(path.is_file() for path in paths)):
        return {}
    return {f"{split} prompts": _prompts_digest(rows) for split, rows in prompts.items()}


def _data_paths(config: RunConfig) -> dict[str, Path]:
    data = config.data
    named = (("train", data.train), ("dev", data.dev), ("test", data.test)) if isinstance(data, JsonlData) else ()
    return {f"data.{name}": Path(path) for name, path in named if path is not None}


def scored_sources(config: RunConfig, prompts: Mapping[str, Iterable[Prompt]]) -> dict[str, Any]:
    """Identities of what scored responses depend on and the configuration only names."""
    return {
        **policy_sources(config),
        **{f"{split} prompts": _prompts_digest(rows) for split, rows in prompts.items()},
        "reward models": reward_fingerprints(config),
    }


def state_digest(state: StateDict) -> str:
    """Identity of a state: 32 hexadecimal digits of its SHA-256."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode() + (value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()))
    return digest.hexdigest()[:32]


def selector_source(config: RunConfig) -> str | None:
    """Identity of the files that a frozen selector or a classifier comes from; None for other selectors."""
    match config.selector:
        case selection.FrozenSelector(run=run):
            checkpoint = newest_checkpoint(Path(run) / "checkpoints", ("selector", "contexts"))
            files = sorted(checkpoint.iterdir()) if checkpoint is not None else []
        case selection.ClassifierSelector(path=path) if Path(path).is_dir():
            files = sorted(Path(path).iterdir())
        case _:
            return None
    return _digest({file.name: file_digest(file) for file in files if file.is_file()})[:32]


def check_sources(kept: Mapping[str, Any], sources: Mapping[str, Any], since: str) -> None:
    """Make sure that kept results have the sources of the results to come.

    Raises:
        ConfigError: Some differ; the message names them.
    """
    if changed := changed_names(kept, sources):
        raise ConfigError(f"{', '.join(changed)} changed since {since}; restore them, or choose a new --out")


def _prompts_digest(prompts: Iterable[Prompt]) -> str:
    digest = hashlib.sha256()
    for prompt in prompts:
        messages, metadata = [dict(message) for message in prompt.messages], dict(prompt.metadata)
        row = (prompt.id, messages, prompt.category, prompt.answer, metadata, prompt.conversational)
        digest.update(json.dumps(row, sort_keys=True, default=repr).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _without(table: Mapping[str, Any], names: Iterable[str], prefix: str = "") -> dict[str, Any]:
    """The table without the named fields; dots lead into tables."""
    return {
        key: _without(value, names, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in table.items()
        if f"{prefix}{key}" not in names
    }


def _digest(parts: Mapping[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

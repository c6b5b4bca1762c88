"""PEFT adapter folders as models: the base is loaded, and the adapter merged into it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from laser.core.errors import ModelError, first_line

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
_EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "word_embeddings")


def find_adapter(path: Path) -> Path | None:
    """The adapter that a folder is, or that a run directory holds as its result; None where it is neither."""
    for folder in (path, path / "adapter"):
        if (folder / _CONFIG).is_file() and not any(path.glob("model*.safetensors")):
            return folder
    return None


def base_of(adapter: Path) -> tuple[str, str | None]:
    """Source and revision of the model that an adapter belongs to.

    A relative folder is looked for where laser runs, then next to the adapter.

    Raises:
        ModelError: The adapter does not say.
    """
    config = _config(adapter)
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{adapter / _CONFIG} has no base_model_name_or_path; set it to the model of the adapter")
    near = [folder / base for folder in (adapter.parent, adapter)]
    if not Path(base).exists():
        base = next((str(folder) for folder in near if folder.is_dir()), base)
    return base, config.get("revision")


def head_of(adapter: Path) -> Mapping[str, Any]:
    """Options for loading the base as a classifier: the number of outputs of the adapter's head, if it has one."""
    with _opened(adapter) as stored:
        rows = [stored.get_slice(name).get_shape()[0] for name in stored.keys() if name.endswith(_HEADS)]  # noqa: SIM118
    return {"num_labels": rows[0]} if rows else {}


def is_classifier(adapter: Path) -> bool:
    """Whether the adapter was trained on a sequence classifier."""
    return _config(adapter).get("task_type") == "SEQ_CLS" or bool(head_of(adapter))


def supplied_by(adapter: Path) -> set[str]:
    """Names of the base's weights that the adapter replaces whole, such as a score head."""
    with _opened(adapter) as stored:
        return {name.removeprefix(_PREFIX) for name in stored.keys()}  # noqa: SIM118


def merge_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Return the model with the adapter merged into its weights.

    Raises:
        ModelError: The adapter is damaged, of another model, or of a kind that cannot be merged.
    """
    try:
        with warnings.catch_warnings():  # missing weights are an error below
            warnings.simplefilter("ignore")
            adapted = PeftModel.from_pretrained(model, str(adapter))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"the adapter in {adapter} does not fit its base {base_of(adapter)[0]} ({first_line(error)}); set "
            f"base_model_name_or_path in its {_CONFIG} to the model that it was trained on"
        ) from error
    needed = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    stored = {_PREFIX + name for name in supplied_by(adapter)}
    odd = sorted(needed - stored) or sorted(
        name for name in stored - needed if not any(part in name for part in _EMBEDDINGS)
    )
    if odd:
        raise ModelError(
            f"the adapter in {adapter} does not fit its base {base_of(adapter)[0]}: {odd[0]} is in one of them only; "
            f"set base_model_name_or_path in its {_CONFIG} to the model that it was trained on"
        )
    if not hasattr(adapted.base_model, "merge_and_unload"):
        raise ModelError(f"the adapter in {adapter} cannot be merged into its base; use a LoRA adapter")
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged


def _config(adapter: Path) -> dict[str, Any]:
    try:
        config = json.loads((adapter / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {adapter / _CONFIG} ({error}); save the adapter again") from error
    if not isinstance(config, dict):
        raise ModelError(f"{adapter / _CONFIG} is not a JSON object; save the adapter again")
    return config


def _opened(adapter: Path) -> Any:
    path = adapter / _WEIGHTS
    if not path.is_file():
        raise ModelError(f"adapter folder {adapter} has no {_WEIGHTS}; save the adapter as safetensors")
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read {path} ({error}); save the adapter again") from error

"""Every family by name, and which one a checkpoint belongs to. A new family is a file and a line in each table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import transformers

from laser.core.errors import RewardModelError
from laser.rewards.families.base import Load
from laser.rewards.families.gated import load_gated
from laser.rewards.families.standard import load_standard
from laser.rewards.families.token_logit import load_token_logit
from laser.rewards.families.value_head import load_value_head

FAMILIES: Mapping[str, Load] = {
    "standard": load_standard,
    "value_head": load_value_head,
    "gated": load_gated,
    "token_logit": load_token_logit,
}

PAIRWISE = ("DebertaV2PairRM",)
"""Architectures that compare two responses: reward models of type = 'pairwise'."""

_ARCHITECTURES: Mapping[str, str] = {
    "LlamaForRewardModelWithGating": "gated",  # ArmoRM
    "LlamaForRewardModelWithGating3": "gated",  # QRM
    "LlamaForRewardModelWithGating31": "gated",
    "LlamaRewardModel": "value_head",  # UltraRM
    "EurusRewardModel": "value_head",
    "GRewardModel": "value_head",  # GRM sftreg
    "AtheneForSequenceClassification": "value_head",
    "INFORMForSequenceClassification": "value_head",
    "Qwen2ForRewardModel": "value_head",
    "LlamaForScore": "value_head",  # Beaver
}


def family_of(source: str, architectures: Sequence[str] | None, *, remote_code: bool) -> str:
    """The family of a checkpoint, by the first architecture that its config.json names.

    Args:
        source: What error messages call the checkpoint.
        architectures: From its configuration.
        remote_code: Whether the checkpoint's own code may run, which makes every classifier a standard one.

    Raises:
        RewardModelError: It is of no family known here, or of one that does not score single responses.
    """
    name = next(iter(architectures or ()), "")
    if name in PAIRWISE:
        raise RewardModelError(f"{source} compares pairs ({name}); set type = 'pairwise' for it")
    if name in _ARCHITECTURES:
        return _ARCHITECTURES[name]
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        raise RewardModelError(
            f"{source} is a language model ({name}); set type = 'loglik', or family = 'token_logit' or 'value_head'"
        )
    if name and not remote_code and not hasattr(transformers, name):
        raise RewardModelError(
            f"{source} is a {name}, whose family is unknown; set family to {', '.join(map(repr, FAMILIES))} "
            "or 'python' (docs/reward-models.md)"
        )
    return "standard"

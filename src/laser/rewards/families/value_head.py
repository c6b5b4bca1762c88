"""A backbone with a custom head on the last token: linear, or layers with ReLU between.

Meant for UltraRM and Eurus-RM (`regression_head`), GRM sftreg and TRL's value heads (`v_head.summary`), Athene-RM
(`v_head`, at its CLS token), INF-ORM and Qwen2.5-Math-RM (`score` of two layers), Beaver (`score_head`). Layouts:
allenai/reward-bench, rewardbench/models/{openbmb,grm,athene,inform,beaver}.py. Deviation: Beaver's final affine
normalization, which changes no order, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel

from laser.core.errors import ModelError
from laser.lm.limits import window_of
from laser.rewards.families.backbone import head_tensors, hidden_states, linear, load_backbone
from laser.rewards.families.base import (
    Checkpoint,
    FamilyModel,
    Outputs,
    Row,
    added_up,
    check_outputs,
    last_states,
    output_names,
    pad_of,
)

HEADS = ("v_head.summary", "v_head", "regression_head", "score_head", "reward_head", "rm_head", "score", "out_proj")
"""Names under which heads are stored, looked for in this order."""


class ValueHeadModel:
    """The head's output at each row's last token.

    The last token is found by length, not by its id: end of turn and padding may be the same token.

    Args:
        backbone: Frozen, without a head.
        head: Layers from hidden states to outputs, with ReLU between.
        outputs: Which outputs count, and how much; None for the only one.
        pad_id: Token id to pad with.

    Raises:
        RewardModelError: A wanted output is missing, or none is named and there are several.
    """

    def __init__(self, backbone: PreTrainedModel, head: list[nn.Linear], outputs: Outputs | None, pad_id: int) -> None:
        self._head = nn.Sequential(*_with_relu(head))
        self.modules: Sequence[nn.Module] = [backbone, self._head]
        self.window = window_of(backbone.config)
        self._backbone = backbone
        self._outputs = outputs
        self._pad_id = pad_id
        self._names = output_names(backbone.config, head[-1].out_features)
        check_outputs(self._names, outputs)

    def scores(self, rows: Sequence[Row]) -> Tensor:
        """Scores of rows, shape (R,)."""
        states_RH = last_states(hidden_states(self._backbone, rows, self._pad_id), rows)
        return added_up(self._head(states_RH), self._names, self._outputs)


def load_value_head(checkpoint: Checkpoint, outputs: Outputs | None) -> FamilyModel:
    """Load a backbone and its head.

    Raises:
        ModelError: There is no head under a known name.
        RewardModelError: See `ValueHeadModel`.
    """
    tensors = head_tensors(checkpoint, [f"{name}." for name in HEADS])
    for name in HEADS:
        head = _layers(tensors, name)
        if head:
            return ValueHeadModel(load_backbone(checkpoint), head, outputs, pad_of(checkpoint))
    raise ModelError(f"{checkpoint.source} has no weights of a head ({', '.join(HEADS)}); set another family")


def _layers(tensors: Mapping[str, Tensor], name: str) -> list[nn.Linear]:
    """``name.weight``, or ``name.0.weight``, ``name.2.weight`` ...; nothing if not there."""
    stored = re.compile(rf"{re.escape(name)}(?:\.(\d+))?\.weight")
    found = sorted((match for match in map(stored.fullmatch, tensors) if match), key=lambda match: int(match[1] or 0))
    return [linear(tensors[match[0]], tensors.get(match[0].removesuffix("weight") + "bias")) for match in found]


def _with_relu(layers: Sequence[nn.Linear]) -> Iterator[nn.Module]:
    yield layers[0]
    for layer in layers[1:]:
        yield from (nn.ReLU(), layer)

"""Several objectives, added up with weights that a gate reads off the prompt.

Meant for ArmoRM-Llama3-8B (arXiv 2406.12845) and QRM-Llama3 / -Llama3.1 (arXiv 2409.10164), whose head predicts
quantiles of each objective. Layouts: RLHFlow/ArmoRM-Llama3-8B-v0.1, modeling_custom.py; allenai/reward-bench,
rewardbench/models/qrm.py. Deviation: the gate reads the last token of the prompt's last turn, told by length; the
originals look for Llama 3's ids of ``<|eot_id|>``, which end that turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laser.core.errors import RewardModelError
from laser.lm.limits import window_of
from laser.rewards.families.backbone import head_tensors, hidden_states, linear, load_backbone, needed
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
    states_at,
)

_TEMPERATURE = 10.0  # of the gate, where the configuration is silent
_EPSILON = 1e-5  # torch's own in BatchNorm1d


class Gate(nn.Module):
    """From the prompt's hidden state to the weight of each objective: softmax(MLP(h) / temperature) times a scale.

    Args:
        layers: The MLP.
        scale: Shape (1,).
        temperature: Of the softmax.
    """

    def __init__(self, layers: nn.Sequential, scale: Tensor, temperature: float) -> None:
        super().__init__()
        self.layers = layers
        self.scale = nn.Parameter(scale, requires_grad=False)
        self._temperature = temperature

    def forward(self, states_RH: Tensor) -> Tensor:
        """Weights of the objectives, shape (R, C)."""
        return torch.softmax(self.layers(states_RH) / self._temperature, dim=-1) * self.scale


class GatedModel:
    """sum_c gate_c(prompt) (W h_last)_c, objectives decorrelated by a stored matrix first.

    Args:
        backbone: Frozen, without a head.
        regression: From the last hidden state to C objectives, or to C x Q quantiles of them.
        transform_CC: The matrix that the objectives are multiplied with.
        gate: Gives the weights.
        outputs: Objectives that count instead of the gate's sum, and how much; None for the gate.
        pad_id: Token id to pad with.

    Raises:
        RewardModelError: A wanted objective is missing.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        regression: nn.Linear,
        transform_CC: Tensor,
        gate: Gate,
        outputs: Outputs | None,
        pad_id: int,
    ) -> None:
        self._transform = nn.ParameterList([nn.Parameter(transform_CC, requires_grad=False)])
        self.modules: Sequence[nn.Module] = [backbone, regression, self._transform, gate]
        self.window = window_of(backbone.config)
        self._backbone, self._regression, self._gate = backbone, regression, gate
        self._outputs = outputs
        self._pad_id = pad_id
        self._names = output_names(backbone.config, len(transform_CC))
        if outputs is not None:
            check_outputs(self._names, outputs)

    def scores(self, rows: Sequence[Row]) -> Tensor:
        """Scores of rows, shape (R,). Raises RewardModelError if a row does not say where its prompt ends."""
        if not all(row.prompt_length for row in rows):
            raise RewardModelError("the gate needs to know where the prompt ends; set template = 'chat'")
        hidden = hidden_states(self._backbone, rows, self._pad_id)
        quantiles = self._regression(last_states(hidden, rows)).unflatten(-1, (len(self._transform[0]), -1))
        objectives_RC = quantiles.mean(dim=-1) @ self._transform[0]
        if self._outputs is not None:
            return added_up(objectives_RC, self._names, self._outputs)
        gates_RC: Tensor = self._gate(states_at(hidden, [row.prompt_length - 1 for row in rows]))
        return (gates_RC * objectives_RC).sum(dim=-1)


def load_gated(checkpoint: Checkpoint, outputs: Outputs | None) -> FamilyModel:
    """Load a backbone, its objectives and their gate.

    Raises:
        ModelError: A tensor of the head is missing.
        RewardModelError: See `GatedModel`.
    """
    tensors = head_tensors(checkpoint, ("regression_layer.", "gating.", "reward_transform_matrix"))
    names = ("regression_layer.weight", "reward_transform_matrix", "gating.logit_scale")
    regression, transform, scale = (needed(tensors, name, checkpoint, "gated") for name in names)
    backbone = load_backbone(checkpoint)
    temperature = float(getattr(backbone.config, "gating_temperature", _TEMPERATURE))
    gate = Gate(_gate_layers(tensors, checkpoint), scale, temperature).eval()
    return GatedModel(backbone, linear(regression, None), transform, gate, outputs, pad_of(checkpoint))


def _gate_layers(tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> nn.Sequential:
    """ReLU after each linear layer but the last; where statistics are stored (QRM), batch normalization after it."""
    needed(tensors, "gating.layers.0.weight", checkpoint, "gated")
    numbers = sorted({int(match[1]) for match in map(re.compile(r"gating\.layers\.(\d+)\.").match, tensors) if match})
    layers: list[nn.Module] = []
    for number in numbers:
        stored: dict[str, Any] = {
            name: tensors.get(f"gating.layers.{number}.{name}")
            for name in ("weight", "bias", "running_mean", "running_var")
        }
        if stored["running_mean"] is not None:
            layers.append(_Normalization(**stored))
        else:
            layers += [linear(stored["weight"], stored["bias"]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class _Normalization(nn.Module):
    """Batch normalization with stored statistics."""

    def __init__(self, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor) -> None:
        super().__init__()
        scale = weight / torch.sqrt(running_var + _EPSILON)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.shift = nn.Parameter(bias - running_mean * scale, requires_grad=False)

    def forward(self, states_RH: Tensor) -> Tensor:
        """Normalized states, shape (R, H)."""
        return states_RH * self.scale + self.shift

"""Bytes of one token in a causal LM, and how many tokens a device takes at once where the configuration does not say.

A GPU is slow with few tokens at a time: launching a layer's kernels takes as long as their work. So chunks and
micro-batches there are as large as a share of its memory next to the policy's weights holds; where that is still too
much they are halved (`laser.parallel.memory`). On a CPU, whose passes gain nothing beyond a few thousand tokens, they
are of a fixed size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

SAMPLED = 16384  # tokens of a chunk of sampling, the least; all there are where the device's memory is not known
TRAINED = 4096  # tokens of a micro-batch, likewise
_SHARE = 0.3  # of a device's room, for keys and values, and for what the backward pass needs; never both at once


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of one token.

    Attributes:
        cached: Its keys and values.
        kept: What a forward pass keeps of it for the backward pass.
    """

    cached: int
    kept: int

    def sampling_tokens(self, room: float) -> int:
        """Tokens of a chunk of sampling on a device with this many bytes free of weights; 0: not known."""
        return max(SAMPLED, int(_SHARE * room / max(self.cached, 1)))

    def training_tokens(self, room: float) -> int:
        """Tokens of a micro-batch on a device with this many bytes free of weights; 0: not known."""
        return max(TRAINED, int(_SHARE * room / max(self.kept, 1)))


def footprint(
    *, linear_features: int, hidden_size: int, num_layers: int, kv_width: int, bytes_each: int, checkpointing: bool
) -> Footprint:
    """The footprint of a token in a model of this shape.

    Kept are the inputs of linear layers, which LoRA needs for its gradients, and their outputs, which attention, norms
    and gates need; norms keep their inputs in float32. With gradient checkpointing, the input of every layer and the
    inside of one.

    Args:
        linear_features: Features of the inputs and outputs of all linear layers together, the head left out.
        hidden_size: Width of its hidden states.
        num_layers: Its depth.
        kv_width: Features of keys and values in a layer, both together.
        bytes_each: Of an activation.
        checkpointing: Whether the backward pass computes activations again.
    """
    norms = 2 * num_layers * hidden_size * (4 if bytes_each < 4 else 0)
    kept = 2 * hidden_size * (num_layers + 8) * bytes_each if checkpointing else linear_features * bytes_each + norms
    return Footprint(cached=num_layers * kv_width * bytes_each, kept=kept)


def footprint_of(model: PreTrainedModel, *, checkpointing: bool) -> Footprint:
    """The footprint of a token in a model without adapters."""
    head = model.get_output_embeddings()
    text = model.config.get_text_config()
    return footprint(
        linear_features=sum(
            layer.in_features + layer.out_features
            for layer in model.modules()
            if isinstance(layer, nn.Linear) and layer is not head
        ),
        hidden_size=int(getattr(text, "hidden_size", 0)),
        num_layers=int(getattr(text, "num_hidden_layers", 0)),
        kv_width=attention_widths(text)[1],
        bytes_each=model.dtype.itemsize,
        checkpointing=checkpointing,
    )


def attention_widths(text: PretrainedConfig) -> tuple[int, int]:
    """Features of all attention heads of a layer together, and of its keys and values, both together."""
    heads = int(getattr(text, "num_attention_heads", 0) or 0)
    head_width = int(getattr(text, "head_dim", None) or getattr(text, "hidden_size", 0) // max(heads, 1))
    kv_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    return heads * head_width, 2 * kv_heads * head_width


def device_memory(device: torch.device) -> int:
    """Bytes that a device has; 0 where that does not matter."""
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0


def room_on(device: torch.device) -> int:
    """Bytes that a device has in addition to what this process holds there; 0 where that does not matter."""
    return device_memory(device) - torch.cuda.memory_allocated(device) if device.type == "cuda" else 0

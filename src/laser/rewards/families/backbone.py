"""The common part of families with custom heads: a backbone of transformers and the head's tensors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laser.core.errors import ModelError
from laser.lm.sources import load_encoder
from laser.lm.tensors import read_tensors
from laser.rewards.families.base import Checkpoint, Row, padded


def load_backbone(checkpoint: Checkpoint, renaming: Mapping[str, str] | None = None) -> PreTrainedModel:
    """The checkpoint's model without any head, by transformers' own class: no code of the checkpoint runs.

    Raises:
        ModelError: Its weights do not fit that class, or the class is unknown.
    """
    with _no_load_report():
        return checkpoint.load(load_encoder, renaming)


def head_tensors(checkpoint: Checkpoint, prefixes: Sequence[str]) -> dict[str, Tensor]:
    """The tensors whose names start so, float32, on the checkpoint's device. Raises ModelError if damaged."""
    stored = read_tensors(checkpoint.source, prefixes, revision=checkpoint.revision)
    return {name: tensor.to(checkpoint.device, torch.float32) for name, tensor in stored.items()}


def needed(tensors: Mapping[str, Tensor], name: str, checkpoint: Checkpoint, family: str) -> Tensor:
    """One of the tensors. Raises ModelError if it is missing."""
    if name not in tensors:
        raise ModelError(f"{checkpoint.source} lacks {name}, which family = '{family}' needs; set another family")
    return tensors[name]


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A frozen linear layer around stored tensors."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def hidden_states(model: PreTrainedModel, rows: Sequence[Row], pad_id: int) -> Tensor:
    """Last hidden states of rows, shape (R, L, H)."""
    states: Tensor = model(**padded(rows, pad_id, model.device)).last_hidden_state
    return states


@contextmanager
def _no_load_report() -> Iterator[None]:
    """Without transformers' table of unexpected weights: the head's are expected, and missing ones raise."""
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

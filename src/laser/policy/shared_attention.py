"""Attention of n responses per prompt to one copy of the prompt's keys and values.

A query attends to the keys of its prompt, which are stored once for all responses, and to the keys of its response.
Each gives a partial softmax, and the two are combined by their normalizers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

_NAME = "laser_shared_prompts"


class PromptKeys:
    """Keys and values of B prompts, and which of R rows continues which prompt.

    Args:
        layers: Keys and values of the prompts, layer by layer: (B, G, P, d).
        mask: 1 at real tokens, 0 at padding, shape (B, P).
        owners: The prompt of each row, ascending, shape (R,).
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], mask: Tensor, owners: Tensor) -> None:
        self._layers = layers
        self._bias = torch.zeros(mask.shape, device=mask.device).masked_fill(mask == 0, float("-inf"))[:, None, None]
        self.set_owners(owners)

    def set_owners(self, owners: Tensor) -> None:
        """Rows have come or gone."""
        self._grid = _Grid(owners, len(self._bias))

    def attend(
        self, layer: int, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scale: float, softcap: float | None
    ) -> Tensor:
        """Attention of R queries to their prompts and to their own responses.

        Args:
            layer: Index of the layer.
            query: Shape (R, H, d).
            keys: Of the responses, shape (R, G, T, d); H is a multiple of G.
            values: Likewise; their width may differ.
            bias: Added to the scores of the responses' keys, -inf where there is none yet; shape (1, 1, 1, T).
            scale: Multiplies the scores.
            softcap: c in c tanh(score / c), if any.

        Returns:
            Shape (R, H, width of a value), float32.
        """
        rows, heads, width = query.shape
        groups = keys.shape[1]
        prompt_keys, prompt_values = self._layers[layer]
        query = query.view(rows, groups, heads // groups, width)
        # (B, m, G, g, d) -> (B, G, m * g, d): all queries of a prompt meet its keys in one product.
        gridded = self._grid.spread(query).transpose(1, 2).flatten(2, 3)
        parts = _partial(gridded, prompt_keys, prompt_values, self._bias, scale, softcap)
        shape = (len(prompt_keys), groups, -1, heads // groups)
        theirs = [self._grid.collect(part.view(*shape, part.shape[-1]).transpose(1, 2)) for part in parts]
        own = _partial(query, keys, values, bias, scale, softcap)
        return _joined(theirs, own).reshape(rows, heads, values.shape[-1])


class _Grid:
    """Rows by prompt: (R, ...) to (B, m, ...) and back, where m is the most rows that a prompt has left."""

    def __init__(self, owners: Tensor, prompts: int) -> None:
        counts = torch.bincount(owners, minlength=prompts)
        self._most = int(counts.max())
        self._prompts = prompts
        self._whole = len(owners) == prompts * self._most
        if not self._whole:
            starts = counts.cumsum(0) - counts
            slots = torch.arange(len(owners), device=owners.device) - starts[owners]
            self._places = owners * self._most + slots
            # Places that no row fills repeat row 0; they are computed and never read.
            self._rows = torch.zeros(prompts * self._most, dtype=torch.long, device=owners.device)
            self._rows[self._places] = torch.arange(len(owners), device=owners.device)

    def spread(self, rows: Tensor) -> Tensor:
        filled = rows if self._whole else rows[self._rows]
        return filled.view(self._prompts, self._most, *rows.shape[1:])

    def collect(self, grid: Tensor) -> Tensor:
        flat = grid.flatten(0, 1)
        return flat if self._whole else flat[self._places]


def _partial(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention before normalization: weighted values, largest score and normalizer, the latter of width 1.

    Query (..., Q, d), keys and values (..., T, d), a bias that broadcasts to (..., Q, T); scores and sums in float32.
    """
    scores = _product(query, keys.transpose(-1, -2)) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores + bias
    largest = scores.amax(dim=-1, keepdim=True)
    weights = (scores - largest).exp_()
    return _product(weights.to(values.dtype), values), largest, weights.sum(dim=-1, keepdim=True)


def _joined(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Two partial attentions over disjoint keys as one."""
    largest = torch.maximum(one[1], other[1])
    first, second = (one[1] - largest).exp(), (other[1] - largest).exp()
    return (one[0] * first + other[0] * second) / (one[2] * first + other[2] * second)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """A batched matrix product in float32, whatever its factors are in."""
    if left.dtype == torch.float32:
        return left @ right
    if not left.is_cuda:
        return left.float() @ right.float()
    batch = left.shape[:-2]
    flat = torch.bmm(left.reshape(-1, *left.shape[-2:]), right.reshape(-1, *right.shape[-2:]), out_dtype=torch.float32)
    return flat.view(*batch, *flat.shape[-2:])


def _shared_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    prompt_keys: PromptKeys,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer: query (R, H, 1, d) in, (R, 1, H, d) out."""
    if s_aux is not None or attention_mask is None:
        raise NotImplementedError("attention sinks, or no mask")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = module.layer_idx
    assert isinstance(layer, int)
    mixed = prompt_keys.attend(layer, query[:, :, 0], key, value, attention_mask, scale, softcap)
    return mixed[:, None].to(query.dtype), None


AttentionInterface.register(_NAME, _shared_attention)


@contextmanager
def shared_attention(model: PreTrainedModel) -> Iterator[None]:
    """Forward passes inside the block attend to shared prompts: give them a float mask and ``prompt_keys``."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before

"""Log-probs of response tokens: backbone once, then the LM head in tiles over response positions only.

The (tokens x vocabulary) matrix never exists whole. A token's log-prob depends on its own hidden state alone, so its
gradient with respect to that state can be formed in the forward pass, tile by tile, while the tile's softmax is at
hand: the backward pass is one product, and nothing is kept or computed twice.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from laser.lm.packing import PackedBatch, TokenIds, pack
from laser.parallel.memory import Budget, is_out_of_memory

_TILE_ELEMENTS = 2**23  # logits of one tile: 32 MiB in float32
_MORE_ON_GPU = 4  # times as many, to keep it busy
_LEAK = 1e-2  # nats by which another response behind the same prompt may move a log-prob: rounding


@dataclass(frozen=True, slots=True)
class Layout:
    """How log-probs of a model are computed; `choose_layout` finds the fastest that is right.

    Attributes:
        share_up_to: Most tokens of prompt and response together for which the responses of a prompt are packed behind
            one copy of it; 0: never.
        head: "tiled" through the frozen head's weight, or "full" through the model's own forward.
    """

    share_up_to: float
    head: Literal["tiled", "full"]


class _TiledLogps(torch.autograd.Function):
    """log softmax(W h_t)[y_t] for every token, with its gradient with respect to h_t formed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, softcap: float | None
    ) -> Tensor:
        logps = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        elements = _TILE_ELEMENTS * (_MORE_ON_GPU if hidden.is_cuda else 1)
        tile = max(1, elements // weight.shape[0])
        for begin in range(0, len(targets), tile):
            part = slice(begin, begin + tile)
            raw = (hidden[part] @ weight.T).float() * scale
            logits = softcap * torch.tanh(raw / softcap) if softcap is not None else raw
            normalizer = torch.logsumexp(logits, dim=-1)
            chosen = targets[part, None]
            logps[part] = logits.gather(1, chosen)[:, 0] - normalizer
            if gradient is not None:
                # d logp_t / d logits = onehot(y_t) - softmax; through the cap tanh' = 1 - tanh^2; then W.
                slope = (logits - normalizer[:, None]).exp_().neg_()
                slope.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=slope.dtype))
                if softcap is not None:
                    slope *= 1 - (logits / softcap) ** 2
                gradient[part] = ((slope * scale).to(weight.dtype) @ weight).to(gradient.dtype)
        ctx.save_for_backward(gradient)
        return logps

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradients[0][:, None].to(gradient.dtype) * gradient, None, None, None, None


def token_logps(model: PreTrainedModel, batch: PackedBatch, layout: Layout) -> Tensor:
    """Natural-log probabilities of the target tokens of a batch.

    Args:
        model: A Hugging Face causal LM; adapters injected into it take part.
        batch: Rows on the model's device.
        layout: How; must suit how the batch was packed.

    Returns:
        Shape (T,), float32; differentiable with respect to adapter weights unless gradients are off.
    """
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": _suited_mask(model, batch.attention_mask),
        "position_ids": batch.position_ids,
        "use_cache": False,
    }
    if layout.head == "full":
        logits = model(**inputs).logits.flatten(0, 1).index_select(0, batch.predicting).float()
        return torch.log_softmax(logits, dim=-1).gather(1, batch.targets[:, None])[:, 0]
    hidden = model.base_model(**inputs).last_hidden_state.flatten(0, 1).index_select(0, batch.predicting)
    head = model.get_output_embeddings()
    scale, softcap = _head_formula(model)
    logps: Tensor = _TiledLogps.apply(hidden, head.weight, batch.targets, scale, softcap)
    return logps


def packed_logps(
    model: PreTrainedModel,
    prompt_ids: Sequence[TokenIds],
    response_ids: Sequence[Sequence[TokenIds]],
    *,
    layout: Layout,
    max_batch_tokens: int,
) -> Tensor:
    """Log-prob of each response, summed over its tokens, responses numbered flat.

    Args:
        model: A Hugging Face causal LM.
        prompt_ids: B prompts.
        response_ids: For each prompt, its responses.
        layout: How, from `choose_layout`.
        max_batch_tokens: Budget of one forward pass, in padded tokens.

    Returns:
        Shape (number of responses,), float32, nats; 0 for an empty response.
    """
    device = model.device
    total = torch.zeros(sum(len(row) for row in response_ids), dtype=torch.float32, device=device)
    batches = pack(
        prompt_ids, response_ids, max_batch_tokens=max_batch_tokens, share_up_to=layout.share_up_to, device=device
    )
    for batch in batches:
        total = total.index_add(0, batch.owners, token_logps(model, batch, layout))
    return total


@torch.no_grad()
def response_logps(
    model: PreTrainedModel,
    prompt_ids: Sequence[TokenIds],
    response_ids: Sequence[Sequence[TokenIds]],
    *,
    layout: Layout,
    budget: Budget,
) -> list[Tensor]:
    """The same as `packed_logps`, without gradient and split by prompt, in smaller batches where memory runs out."""
    flat = budget.spend(
        lambda tokens: packed_logps(model, prompt_ids, response_ids, layout=layout, max_batch_tokens=tokens),
        least=max(
            (len(ids) + max(map(len, row)) - 1 for ids, row in zip(prompt_ids, response_ids, strict=True) if row),
            default=0,
        ),
    )
    return list(flat.split([len(row) for row in response_ids]))


@torch.no_grad()
def choose_layout(model: PreTrainedModel) -> Layout:
    """Find the fastest layout that agrees with the model's plain forward on a short probe.

    Architectures differ in what they do with a ready 4D mask and between backbone and logits (scaling, soft caps,
    biases). The probe compares every shortcut with full logits, one response per row, on this very model; what
    differs is not used. What a short probe cannot see, the architecture tells (`_sharable_length`).
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = min(model.config.get_text_config().vocab_size, 1000)

    def draw(length: int) -> list[int]:
        return torch.randint(vocabulary, (length,), generator=generator).tolist()

    prompts, responses = [draw(5), draw(9)], [[draw(4), draw(1), draw(6)], [draw(3)]]
    others = [[draw(4), *responses[0][1:]], responses[1]]  # another first response

    def logps(layout: Layout, responses: list[list[list[int]]] = responses) -> Tensor:
        return packed_logps(model, prompts, responses, layout=layout, max_batch_tokens=64)

    plain = logps(Layout(0, "full"))
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.05 * float(plain.abs().max().clamp(min=1))
    length = _sharable_length(model)
    for layout in (Layout(length, "tiled"), Layout(0, "tiled"), Layout(length, "full")):
        if layout.head == "tiled" and not _has_plain_head(model):
            continue
        try:
            found = logps(layout)
            leak = (logps(layout, others) - found)[1:].abs().max()
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            continue  # the architecture refuses the shortcut
        if torch.isfinite(found).all() and (found - plain).abs().max() < tolerance and leak < _LEAK:
            return layout
    return Layout(0, "full")


def _sharable_length(model: PreTrainedModel) -> float:
    """Most tokens of a text whose prompt may be shared; infinity where nothing limits it, 0 where it never may.

    A ready 4D mask replaces a layer's own, so it is right up to the length of the shortest window. Recurrent layers
    heed none. A model without position ids counts places in the row, as GPT-Neo's local layers do.
    """
    config = model.config.get_text_config()
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        return 0
    if "local" in getattr(config, "attention_layers", ()):
        return 0
    layers = DynamicCache(config=model.config).layers
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return 0
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    return min(windows, default=math.inf)


def _has_plain_head(model: PreTrainedModel) -> bool:
    head = model.get_output_embeddings()
    has_bias = getattr(head, "bias", None) is not None
    return type(head) is nn.Linear and not has_bias and not head.weight.requires_grad


def _head_formula(model: PreTrainedModel) -> tuple[float, float | None]:
    """Factor and soft cap between W h and the logits, where an architecture has them."""
    config = model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
    return scale, float(softcap) if softcap else None


def _suited_mask(model: PreTrainedModel, mask: Tensor) -> Tensor:
    """SDPA takes a boolean 4D mask; eager attention adds it to the scores."""
    if mask.ndim == 4 and model.config._attn_implementation == "eager":
        return torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill(
            ~mask, torch.finfo(model.dtype).min
        )
    return mask

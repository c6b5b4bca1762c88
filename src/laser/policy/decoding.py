"""Decode n responses per prompt; a prompt is prefilled once.

`SharedPrompts` also keeps a prompt's keys and values once, and those of the responses in buffers of fixed size. A chunk
holds B prompts and R responses instead of R prompts, and nothing is copied as responses grow. The shapes of a step stay
the same, so a GPU captures it as a CUDA graph and replays it, instead of launching every kernel from Python.
`choose_decoder` tries that on the model itself. Models for which it is not exact (sliding windows, attention sinks,
recurrent layers, custom attention) are decoded with a cache of whole rows; if that is not exact either (a state of
another kind), without a cache.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from laser.lm.packing import TokenIds
from laser.parallel.memory import is_out_of_memory
from laser.policy.shared_attention import PromptKeys, shared_attention


class Decoder(ABC):
    """R = B * n rows in lock-step, numbered prompt by prompt.

    Args:
        model: A causal LM.
        ids: B prompts.
        repeats: n, rows per prompt.
        max_new_tokens: Longest response.
    """

    def __init__(self, model: PreTrainedModel, ids: Sequence[TokenIds], repeats: int, max_new_tokens: int) -> None:
        self._model = model
        self._ids = ids
        self._repeats = repeats
        self._max_new_tokens = max_new_tokens

    @staticmethod
    @abstractmethod
    def tokens_held(prompt_tokens: int, repeats: int, max_new_tokens: int) -> int:
        """Tokens whose keys and values the rows of one prompt need, at most."""

    @abstractmethod
    def start(self) -> Tensor:
        """Prefill; returns logits of the first token of every row, shape (R, V)."""

    @abstractmethod
    def advance(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Append a token to some rows and drop the others.

        Args:
            tokens: The tokens of the rows that stay, shape (K,).
            keep: Their places among the rows so far, ascending, shape (K,).

        Returns:
            Logits of their next tokens, shape (K, V); may be overwritten by the next call.
        """


class Recomputed(Decoder):
    """Every step runs every row from its first token, without padding: slow, and exact for every causal LM."""

    @staticmethod
    def tokens_held(prompt_tokens: int, repeats: int, max_new_tokens: int) -> int:
        """See `Decoder.tokens_held`; here the tokens of a forward pass."""
        return repeats * (prompt_tokens + max_new_tokens)

    def start(self) -> Tensor:
        """Run every prompt."""
        self._rows = [list(ids) for ids in self._ids for _ in range(self._repeats)]
        return self._last_logits(self._ids).repeat_interleave(self._repeats, 0)

    def advance(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """See `Decoder.advance`."""
        self._rows = [[*self._rows[row], token] for row, token in zip(keep.tolist(), tokens.tolist(), strict=True)]
        return self._last_logits(self._rows)

    def _last_logits(self, rows: Sequence[TokenIds]) -> Tensor:
        """Logits behind the last token of each row; rows of one length go through the model together."""
        lengths = torch.tensor([len(row) for row in rows])
        logits: dict[int, Tensor] = {}
        for length in lengths.unique().tolist():
            places = (lengths == length).nonzero()[:, 0].tolist()
            inputs = torch.tensor([list(rows[place]) for place in places], device=self._model.device)
            output = self._model(input_ids=inputs, use_cache=False, logits_to_keep=1)
            logits.update(zip(places, output.logits[:, -1], strict=True))
        return torch.stack([logits[place] for place in range(len(rows))])


class WholeRows(Decoder):
    """Every row holds its keys and values, including those of its prompt."""

    @staticmethod
    def tokens_held(prompt_tokens: int, repeats: int, max_new_tokens: int) -> int:
        """See `Decoder.tokens_held`."""
        return repeats * (prompt_tokens + max_new_tokens)

    def start(self) -> Tensor:
        """Run left-padded prompts once, then repeat cache, mask and last logits for each of the n rows."""
        logits, self._cache, mask = _prefill(self._model, self._ids)
        self._take(torch.arange(len(mask), device=mask.device).repeat_interleave(self._repeats))
        self._mask = mask.repeat_interleave(self._repeats, 0)
        self._positions = self._mask.sum(dim=1, keepdim=True)
        return logits.repeat_interleave(self._repeats, 0)

    def advance(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """See `Decoder.advance`."""
        if len(keep) < len(self._mask):
            self._take(keep)
            self._mask, self._positions = self._mask[keep], self._positions[keep]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(keep), 1)], dim=1)
        output = self._model(
            input_ids=tokens[:, None],
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._positions = self._positions + 1
        logits: Tensor = output.logits[:, -1]
        return logits

    def _take(self, rows: Tensor) -> None:
        """Repeat and drop rows of the cache, by the one method that every kind of layer has."""
        self._cache.reorder_cache(rows)  # type: ignore[arg-type]  # any integer tensor


class SharedPrompts(Decoder):
    """A prompt's keys and values are stored once for its n rows.

    For models whose attention goes through transformers' attention interface and keeps all keys and values.
    """

    _segment = 1  # places by which the part of the buffers that a step attends to grows
    _crowded = 1.0  # rows that have ended are removed when at most this share of all rows is left

    @staticmethod
    def tokens_held(prompt_tokens: int, repeats: int, max_new_tokens: int) -> int:
        """See `Decoder.tokens_held`."""
        return prompt_tokens + repeats * max_new_tokens

    def start(self) -> Tensor:
        """Run left-padded prompts once; lay out the rows."""
        logits, cache, mask = _prefill(self._model, self._ids)
        layers = []
        for layer in cache.layers:
            if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None:
                raise NotImplementedError("a layer that does not keep all keys and values")
            layers.append((layer.keys, layer.values))
        device, count = mask.device, len(self._ids) * self._repeats
        self._own = _OwnTokens(layers, count, self._max_new_tokens)
        self._owners = torch.arange(count, device=device) // self._repeats
        self._inputs = torch.zeros((count, 1), dtype=torch.long, device=device)
        self._positions = mask.sum(dim=1).repeat_interleave(self._repeats)[:, None] - 1
        self._live = torch.arange(count, device=device)
        self._prompts = PromptKeys(layers, mask, self._owners)
        return logits.repeat_interleave(self._repeats, 0)

    def advance(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """See `Decoder.advance`."""
        self._live = self._live[keep]
        present = len(self._inputs)
        if len(keep) < present and len(keep) <= self._crowded * present:
            self._select(self._live)
        self._inputs[self._live, 0] = tokens
        self._positions += 1
        self._own.move_on(self._segment)
        logits = self._step()
        return logits[self._live] if len(self._live) < len(self._inputs) else logits

    def _select(self, rows: Tensor) -> None:
        """Keep only these rows, ascending."""
        self._own.select(rows)
        self._owners, self._inputs, self._positions = self._owners[rows], self._inputs[rows], self._positions[rows]
        self._live = torch.arange(len(rows), device=rows.device)
        self._prompts.set_owners(self._owners)

    def _step(self) -> Tensor:
        return self._forward()

    def _forward(self) -> Tensor:
        with shared_attention(self._model):
            output = self._model(
                input_ids=self._inputs,
                attention_mask=self._own.mask,
                position_ids=self._positions,
                past_key_values=self._own,
                use_cache=True,
                prompt_keys=self._prompts,
            )
        logits: Tensor = output.logits[:, -1]
        return logits


class CapturedSteps(SharedPrompts):
    """The same on a CUDA device, a step captured as a graph.

    A graph is captured again when the part of the buffers in use grows, and when half of the rows have ended. Before,
    ended rows are computed and ignored, which costs less than a capture.
    """

    _segment = 128
    _crowded = 0.5
    _graph: torch.cuda.CUDAGraph | None = None
    _shapes: tuple[int, int] | None = None

    def _step(self) -> Tensor:
        """Replay the graph. A capture computes the step twice, which writes the same keys again."""
        shapes = (len(self._inputs), self._own.bound)
        if self._graph is None or shapes != self._shapes:
            self._forward()
            self._graph, self._shapes = torch.cuda.CUDAGraph(), shapes
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._logits = self._forward()
        self._graph.replay()
        return self._logits


class _OwnTokens(Cache):
    """Keys and values of R responses in buffers of fixed size, of which a part is in use.

    Args:
        like: Keys and values of the prompts, layer by layer: (B, G, P, d).
        rows: R.
        room: Longest response.

    Attributes:
        bound: Places in use, filled ones and some more.
        mask: 0 at those that are filled, -inf at the others, shape (1, 1, 1, bound).
    """

    def __init__(self, like: Sequence[tuple[Tensor, Tensor]], rows: int, room: int) -> None:
        super().__init__(layers=[])
        self._buffers = [
            tuple(part.new_empty((rows, part.shape[1], room, part.shape[3])) for part in layer) for layer in like
        ]
        device = like[0][0].device
        self._room = room
        self._filled = 0
        self._place = torch.full((1,), -1, device=device)
        self._bias = torch.full((1, 1, 1, room), float("-inf"), device=device)
        self.bound = 0
        self.mask = self._bias[..., :0]

    def move_on(self, segment: int) -> None:
        """Open the next place, and take `segment` more places into use if it is beyond those in use."""
        self._filled += 1
        self._place += 1
        self._bias[..., self._filled - 1] = 0
        if self._filled > self.bound:
            begin, self.bound = self.bound, min(self._room, self.bound + segment)
            self.mask = self._bias[..., : self.bound]
            for buffer in (buffer for layer in self._buffers for buffer in layer) if segment > 1 else ():
                buffer[:, :, begin : self.bound] = 0  # empty places are multiplied by zero, so they must hold numbers

    def select(self, rows: Tensor) -> None:
        """Keep these rows, ascending; each moves up within its buffer."""
        for layer in self._buffers:
            for buffer in layer:
                buffer[: len(rows), :, : self._filled] = buffer[rows, :, : self._filled]
        self._buffers = [tuple(buffer[: len(rows)] for buffer in layer) for layer in self._buffers]

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """Write a step's keys and values, shape (R, G, 1, d); returns those in use, shape (R, G, T, d)."""
        keys, values = self._buffers[layer_idx]
        keys.index_copy_(2, self._place, key_states)
        values.index_copy_(2, self._place, value_states)
        return keys[:, :, : self.bound], values[:, :, : self.bound]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens of the responses so far."""
        return self._filled


def _prefill(model: PreTrainedModel, ids: Sequence[TokenIds]) -> tuple[Tensor, DynamicCache, Tensor]:
    """Run left-padded prompts; returns the last logits (B, V), the cache and the mask of real tokens (B, P)."""
    length = max(map(len, ids))
    input_ids = torch.zeros((len(ids), length), dtype=torch.long)
    mask = torch.zeros((len(ids), length), dtype=torch.long)
    for row, tokens in enumerate(ids):
        input_ids[row, length - len(tokens) :] = torch.tensor(tokens)
        mask[row, length - len(tokens) :] = 1
    mask = mask.to(model.device)
    cache = DynamicCache(config=model.config)
    output = model(
        input_ids=input_ids.to(model.device),
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1], cache, mask


@torch.no_grad()
def choose_decoder(model: PreTrainedModel) -> type[Decoder]:
    """The fastest decoder that gives the logits of plain forward passes for this model, on a short test input."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = min(model.config.get_text_config().vocab_size, 1000)

    def draw(count: int) -> Tensor:
        return torch.randint(vocabulary, (count,), generator=generator).to(model.device)

    ids = [draw(5).tolist(), draw(9).tolist()]
    steps = [(draw(4), torch.arange(4)), (draw(3), torch.tensor([0, 1, 3]))]

    def logits(kind: type[Decoder]) -> Tensor:
        decoder = kind(model, ids, 2, 3)
        first = decoder.start().clone()
        return torch.cat([first, *(decoder.advance(tokens, keep.to(model.device)).clone() for tokens, keep in steps)])

    plain = logits(Recomputed).float()
    tolerance = (1e-4 if model.dtype == torch.float32 else 0.05) * float(plain.abs().max().clamp(min=1))
    # A captured step leaves out what Python does around a layer, such as gathering its weights.
    hooked = any(module._forward_pre_hooks for module in model.modules())
    captured = () if hooked or model.device.type != "cuda" else (CapturedSteps,)
    for kind in (*captured, SharedPrompts, WholeRows):
        try:
            if float((logits(kind).float() - plain).abs().max()) <= tolerance:
                return kind
        except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            continue  # an architecture that this decoder does not suit; the plain one is exact
    return Recomputed

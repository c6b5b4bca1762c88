"""LLM-Blender's PairRM: a DeBERTa that reads the prompt and two candidates side by side.

Meant for llm-blender/PairRM-hf (arXiv 2306.02561). Layout and limits: the model card; llm_blender/pair_ranker/
pairrm.py. Deviation: the prompt is the last user message, as in the card's first example; control tokens spelt in a
text stay text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.lm.chat import encode_pieces
from laser.rewards.families.backbone import head_tensors, hidden_states, linear, load_backbone, needed
from laser.rewards.families.base import Checkpoint, PairModel, Row, pad_of, states_at
from laser.rewards.families.tokens import surrounded, surroundings, token_of

_PREFIXES = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
_WINDOW, _SOURCE = 2048, 1224  # tokens in all, and at most of the prompt
_HEAD = ("head_layer.1", "head_layer.4")


class PairRMModel:
    """head([h_source; h_first]) - head([h_source; h_second]), averaged over the head's outputs.

    Each text is read at the token that introduces it. What is too long loses its end, as in the original.

    Raises:
        RewardModelError: The tokenizer lacks a token that introduces a text.
    """

    cuts = True

    def __init__(
        self, backbone: PreTrainedModel, head: nn.Sequential, tokenizer: PreTrainedTokenizerBase, pad_id: int
    ) -> None:
        self.modules: Sequence[nn.Module] = [backbone, head]
        self._backbone = backbone
        self._head = head
        self._tokenizer = tokenizer
        self._pad_id = pad_id
        self._num_special = sum(map(len, surroundings(tokenizer)))
        self._marks = [token_of(tokenizer, prefix) for prefix in _PREFIXES]

    def encode(self, prompt: str, first: str, second: str) -> Row:
        """One comparison: three sequences, each with its special tokens."""
        source = self._part(0, prompt, _SOURCE)
        room = (_WINDOW - len(source)) // 2
        return Row([*source, *self._part(1, first, room), *self._part(2, second, room)])

    def fits(self, prompt: str, text: str) -> bool:
        """Whether neither the prompt nor a response of this length is cut."""
        source = len(self._part(0, prompt))
        return source <= _SOURCE and len(self._part(1, text)) <= (_WINDOW - source) // 2

    def log_odds(self, rows: Sequence[Row]) -> Tensor:
        """Log-odds that the first response is the better one, shape (R,)."""
        hidden = hidden_states(self._backbone, rows, self._pad_id)
        source, first, second = (states_at(hidden, [list(row.ids).index(mark) for row in rows]) for mark in self._marks)
        left, right = (self._head(torch.cat([source, candidate], dim=-1)) for candidate in (first, second))
        gap: Tensor = (left - right).mean(dim=-1)
        return gap

    def _part(self, number: int, text: str, limit: int | None = None) -> list[int]:
        ids = encode_pieces(self._tokenizer, [(_PREFIXES[number], False), (text, True)])
        room = None if limit is None else limit - self._num_special
        return surrounded(self._tokenizer, ids[:room])


def load_pairrm(checkpoint: Checkpoint) -> PairModel:
    """Load PairRM.

    Raises:
        ModelError: A tensor of the head is missing.
        RewardModelError: See `PairRMModel`.
    """
    tensors = head_tensors(checkpoint, ["head_layer."])
    first, last = (
        linear(*(needed(tensors, f"{name}.{part}", checkpoint, "pairrm") for part in ("weight", "bias")))
        for name in _HEAD
    )
    backbone = load_backbone(checkpoint, {r"^pretrained_model\.": ""})
    head = nn.Sequential(first, nn.Tanh(), last)
    return PairRMModel(backbone, head, checkpoint.tokenizer, pad_of(checkpoint))

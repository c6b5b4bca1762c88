"""Texts as unit vectors, whole and token by token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.core.types import FloatArray
from laser.lm.limits import window_of
from laser.lm.packing import by_length, pad_right
from laser.parallel.memory import Budget
from laser.rewards.weights import OUT_OF_MEMORY


@dataclass(frozen=True, slots=True)
class Embedding:
    """A text in embedding space.

    Attributes:
        vector: The mean of its hidden states, of unit length, shape (D,).
        tokens: The hidden state of each of its T tokens, special ones excluded, of unit length, shape (T, D).
    """

    vector: FloatArray
    tokens: FloatArray


class TextEncoder:
    """Embeds texts with a text encoder.

    Args:
        model: A frozen text encoder, such as all-MiniLM-L6-v2.
        tokenizer: Its tokenizer.
        max_batch_tokens: Budget of one forward pass, in padded tokens; halved where memory runs out.
        cut: Cut the end of a text that does not fit the model's window, instead of leaving the text out.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_batch_tokens: int = 8192,
        cut: bool = False,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._cut = cut
        self._budget = Budget(max_batch_tokens, OUT_OF_MEMORY)
        self._window = window_of(model.config)

    def embed(self, texts: Iterable[str]) -> Mapping[str, Embedding | None]:
        """Embed distinct texts, each once.

        Returns:
            By text: its embedding, or None where the text does not fit the model's window. Blank texts are left out.
        """
        encoded = {text: self._encode(text) for text in sorted(set(texts)) if text.strip()}
        fitting = [text for text, (ids, _) in encoded.items() if len(ids) <= self._window]
        embeddings: dict[str, Embedding | None] = dict.fromkeys(encoded)
        lengths = [len(encoded[text][0]) for text in fitting]

        def read(tokens: int) -> None:
            for chunk in by_length(lengths, tokens):
                chosen = [fitting[index] for index in chunk]
                states = self._states([encoded[text][0] for text in chosen])
                for text, state in zip(chosen, states, strict=True):
                    words = np.array(encoded[text][1], dtype=np.bool_)
                    embeddings[text] = Embedding(_unit(state.mean(axis=0)), _unit(state[words]))

        self._budget.spend(read, least=max(lengths, default=0))
        return embeddings

    def _encode(self, text: str) -> tuple[list[int], list[bool]]:
        """Token ids, and which of them are words rather than special tokens."""
        limit = {"truncation": True, "max_length": self._window} if self._cut else {}
        encoded = self._tokenizer(text, return_special_tokens_mask=True, split_special_tokens=True, **limit)
        return list(encoded["input_ids"]), [mask == 0 for mask in encoded["special_tokens_mask"]]

    @torch.no_grad()
    def _states(self, rows: list[list[int]]) -> list[FloatArray]:
        """Last hidden states of each row, shape (T, D)."""
        input_ids, mask = pad_right(rows, 0, self._model.device)
        hidden = self._model(input_ids=input_ids, attention_mask=mask).last_hidden_state.double().cpu().numpy()
        return [state[: len(ids)] for state, ids in zip(hidden, rows, strict=True)]


def _unit(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: FloatArray = vectors / np.maximum(lengths, np.finfo(np.float64).tiny)
    return unit

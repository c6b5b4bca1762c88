"""Closeness of a response to its prompt in a sentence-embedding space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.lm.packing import by_length, pad_right
from laser.rewards.weights import Weighted
from laser.types import FloatArray, Prompt


class SimilarityRM(Weighted):
    """Scores the cosine of the mean-pooled embeddings of the last user message and the response, in [-1, 1].

    Args:
        model: A frozen text encoder, such as all-MiniLM-L6-v2.
        tokenizer: Its tokenizer.
        max_batch_tokens: Budget of one forward pass, in padded tokens.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, max_batch_tokens: int = 8192
    ) -> None:
        super().__init__([model])
        self._model: PreTrainedModel | None = model
        self._tokenizer = tokenizer
        self._max_batch_tokens = max_batch_tokens
        self._context_length = int(getattr(model.config, "max_position_embeddings", None) or 2**31)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. NaN for an empty response and for a text beyond the context."""
        texts = {prompt.text for prompt in prompts} | {text for row in responses for text in row}
        vectors = self._embed(sorted(text for text in texts if text.strip()))
        return [
            np.array([self._cosine(vectors, prompt.text, text) for text in row], dtype=np.float64)
            for prompt, row in zip(prompts, responses, strict=True)
        ]

    def release(self) -> None:
        """Drop the weights."""
        super().release()
        self._model = None

    @staticmethod
    def _cosine(vectors: dict[str, FloatArray], first: str, second: str) -> float:
        return float(vectors[first] @ vectors[second]) if first in vectors and second in vectors else float("nan")

    @torch.no_grad()
    def _embed(self, texts: Sequence[str]) -> dict[str, FloatArray]:
        """Unit vectors of the texts that fit the context, each text embedded once."""
        assert self._model is not None
        encoded = {text: list(self._tokenizer(text)["input_ids"]) for text in texts}
        fitting = [text for text, ids in encoded.items() if len(ids) <= self._context_length]
        vectors: dict[str, FloatArray] = {}
        for chunk in by_length([len(encoded[text]) for text in fitting], self._max_batch_tokens):
            chosen = [fitting[index] for index in chunk]
            input_ids, mask = pad_right([encoded[text] for text in chosen], 0, self._model.device)
            hidden = self._model(input_ids=input_ids, attention_mask=mask).last_hidden_state.float()
            pooled = (hidden * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            unit = torch.nn.functional.normalize(pooled, dim=-1).double().cpu().numpy()
            vectors.update(zip(chosen, unit, strict=True))
        return vectors

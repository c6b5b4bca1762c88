"""Closeness of a response to its prompt in a sentence-embedding space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.core.types import FloatArray, Prompt
from laser.rewards.base import Counts
from laser.rewards.embedding import Embedding, TextEncoder
from laser.rewards.weights import Weighted


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
        self.counts = Counts()
        self._encoder: TextEncoder | None = TextEncoder(model, tokenizer, max_batch_tokens=max_batch_tokens)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. NaN for an empty response and where a text is beyond the window."""
        assert self._encoder is not None
        embeddings = self._encoder.embed(
            [prompt.text for prompt in prompts] + [text for row in responses for text in row]
        )
        return [
            np.array([self._cosine(embeddings, prompt.text, text) for text in row], dtype=np.float64)
            for prompt, row in zip(prompts, responses, strict=True)
        ]

    def release(self) -> None:
        """Drop the weights."""
        super().release()
        self._encoder = None

    def _cosine(self, embeddings: Mapping[str, Embedding | None], first: str, second: str) -> float:
        if first not in embeddings or second not in embeddings:  # blank
            self.counts.abstained += 1
            return float("nan")
        one, other = embeddings[first], embeddings[second]
        if one is None or other is None:
            self.counts.too_long += 1
            return float("nan")
        return float(one.vector @ other.vector)

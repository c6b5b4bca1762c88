"""Where contexts come from: the policy, a sentence encoder, the category of a prompt, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from laser.core.types import FloatArray, Prompt
from laser.rewards.embedding import TextEncoder


class Embedder(Protocol):
    """Turns prompts into features of the bandit; `Policy` is one."""

    @property
    def context_dim(self) -> int:
        """D, the number of features."""

    def embed(self, prompts: Sequence[Prompt]) -> FloatArray:
        """Features of B prompts, shape (B, D), float64."""


class SentenceEmbedder:
    """The mean hidden state of a text encoder over the prompt's messages, of unit length."""

    def __init__(self, encoder: TextEncoder, dim: int) -> None:
        self._encoder = encoder
        self.context_dim = dim

    def embed(self, prompts: Sequence[Prompt]) -> FloatArray:
        """One vector per prompt; zeros for a prompt without text. No prompt's vector depends on the others'."""
        rows = np.zeros((len(prompts), self.context_dim))
        for row, prompt in zip(rows, prompts, strict=True):
            text = "\n".join(message["content"] for message in prompt.messages)
            found = self._encoder.embed([text]).get(text)  # alone, because padding changes the last bits
            if found is not None:
                row[:] = found.vector
        return rows


class CategoryEmbedder:
    """The category of a prompt, one-hot; categories that are not listed share the last feature."""

    def __init__(self, categories: Sequence[str]) -> None:
        self._column = {category: column for column, category in enumerate(categories)}
        self.context_dim = len(self._column) + 1

    def embed(self, prompts: Sequence[Prompt]) -> FloatArray:
        """One row per prompt, with a single 1."""
        others = self.context_dim - 1
        return np.eye(self.context_dim)[[self._column.get(prompt.category, others) for prompt in prompts]]


class ConstantEmbedder:
    """One feature that is always 1: a selector without contexts."""

    context_dim = 1

    def embed(self, prompts: Sequence[Prompt]) -> FloatArray:
        """Ones, shape (B, 1)."""
        return np.ones((len(prompts), 1))

"""ROSCOE's metrics on a text encoder, as reward models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.core.types import FloatArray, Prompt
from laser.rewards.base import Counts
from laser.rewards.embedding import Embedding, TextEncoder
from laser.rewards.metrics.roscoe import SUPERVISED, UNSUPERVISED, Chain
from laser.rewards.metrics.steps import split_steps
from laser.rewards.weights import Weighted

_MaybeChain = Chain | Literal["blank", "too long"]
"""An embedded text, or the reason why there is none."""

_WHOLE = ("informativeness_chain", "semantic_coverage_chain")  # the others never look at the text as a whole


class RoscoeRM(Weighted):
    """Scores a response as a reasoning chain from prompt to answer.

    Source: arXiv 2212.07919; the equations are in `laser.rewards.metrics.roscoe`. Deviations: any text encoder with
    mean pooling (the authors fine-tuned SimCSE), which also embeds the tokens (theirs come from its base model); a
    text beyond the encoder's window is not scored (theirs is truncated).

    Args:
        model: A frozen text encoder, such as all-MiniLM-L6-v2.
        tokenizer: Its tokenizer.
        metric: One of `UNSUPERVISED` or `SUPERVISED`.
        reference_key: Metadata of the prompt with the reference chain; where it has none, the gold answer is it.
        max_batch_tokens: Budget of one forward pass, in padded tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        metric: str,
        reference_key: str = "reference",
        max_batch_tokens: int = 8192,
    ) -> None:
        super().__init__([model])
        self.counts = Counts()
        self._encoder: TextEncoder | None = TextEncoder(model, tokenizer, max_batch_tokens=max_batch_tokens)
        self._needs_reference = metric in SUPERVISED
        self._metric: Callable[..., float] = SUPERVISED[metric] if self._needs_reference else UNSUPERVISED[metric]
        self._whole = metric in _WHOLE
        self._reference_key = reference_key

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`.

        NaN for a response without words and for one whose prompt has no reference where the metric needs one: the
        metric abstains. NaN also where a text is beyond the window.
        """
        assert self._encoder is not None
        references = [self._reference(prompt) for prompt in prompts]
        texts = [prompt.text for prompt in prompts] + [text for row in responses for text in row] + references
        embeddings = self._encoder.embed(piece for text in set(texts) for piece in self._pieces(text))
        chains = {text: self._chain(text, embeddings) for text in set(texts)}
        others_B = [
            [chains[prompt.text], *([chains[reference]] if self._needs_reference else [])]
            for prompt, reference in zip(prompts, references, strict=True)
        ]
        return [
            np.array([self._score([chains[text], *others]) for text in row], dtype=float)
            for others, row in zip(others_B, responses, strict=True)
        ]

    def release(self) -> None:
        """Drop the weights."""
        super().release()
        self._encoder = None

    def _reference(self, prompt: Prompt) -> str:
        """The reference chain; empty without one, or where the metric needs none."""
        if not self._needs_reference:
            return ""
        return str(prompt.metadata.get(self._reference_key) or prompt.answer or "")

    def _pieces(self, text: str) -> list[str]:
        return [text] if self._whole else split_steps(text)

    def _chain(self, text: str, embeddings: Mapping[str, Embedding | None]) -> _MaybeChain:
        found = [embeddings[piece] for piece in self._pieces(text) if piece in embeddings]
        steps = [embedding for embedding in found if embedding is not None]
        if len(steps) < len(found):
            return "too long"
        if not steps:
            return "blank"
        vectors = np.stack([step.vector for step in steps])
        return Chain(vectors, vectors[0], tuple(step.tokens for step in steps))

    def _score(self, chains: Sequence[_MaybeChain]) -> float:
        reasons = [chain for chain in chains if isinstance(chain, str)]
        if "blank" in reasons:
            self.counts.abstained += 1
            return float("nan")
        if reasons:
            self.counts.too_long += 1
            return float("nan")
        return self._metric(*chains)

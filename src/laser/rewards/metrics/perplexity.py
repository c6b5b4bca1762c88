"""How expected a text is under a small language model, as a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.core.errors import RewardModelError
from laser.core.types import FloatArray, Prompt
from laser.lm.chat import encode_text
from laser.lm.limits import window_of
from laser.lm.logps import choose_layout, response_logps
from laser.parallel.memory import Budget
from laser.rewards.base import Counts
from laser.rewards.metrics.steps import split_steps
from laser.rewards.weights import OUT_OF_MEMORY, Weighted


class PerplexityRM(Weighted):
    """Scores 1 / PPL(h), or N / sum_i PPL(h_i) over its steps; PPL = exp(-mean log-prob of a token), prompt unread.

    Source: arXiv 2212.07919, Table 5 (Perplexity-Chain, Perplexity-Step). Deviations: any causal LM takes the place of
    GPT-2 large; a text beyond its window is not scored (theirs is read in strides); steps count alike, as in the
    equation (the authors' code weighs them by length).

    Args:
        model: A frozen causal LM.
        tokenizer: Its tokenizer.
        unit: "chain" or "step".
        max_batch_tokens: Budget of one forward pass; halved where memory runs out.

    Raises:
        RewardModelError: The tokenizer has neither BOS nor EOS, so that nothing predicts the first token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        unit: Literal["chain", "step"] = "chain",
        max_batch_tokens: int = 8192,
    ) -> None:
        super().__init__([model])
        self.counts = Counts()
        starts = [token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None]
        if not starts:
            raise RewardModelError("the model has neither BOS nor EOS to begin a text with; choose another model")
        self._start = int(starts[0])
        self._model: PreTrainedModel | None = model
        self._tokenizer = tokenizer
        self._unit = unit
        self._budget = Budget(max_batch_tokens, OUT_OF_MEMORY)
        self._layout = choose_layout(model)
        self._window = window_of(model.config)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. NaN for one without words and for one beyond the window."""
        assert self._model is not None
        chains = [[self._encoded(text) for text in row] for row in responses]
        flat = [ids for row in chains for chain in row for ids in chain]
        logps = response_logps(
            self._model,
            [[self._start]] * len(flat),
            [[ids] for ids in flat],
            layout=self._layout,
            budget=self._budget,
        )
        means = iter([float(total[0]) / len(ids) for total, ids in zip(logps, flat, strict=True)])
        return [np.array([self._score([next(means) for _ in chain]) for chain in row], dtype=float) for row in chains]

    def release(self) -> None:
        """Drop the weights."""
        super().release()
        self._model = None

    def _encoded(self, text: str) -> list[list[int]]:
        """Token ids of the steps, or of the whole; none for a text without words and for one that does not fit."""
        steps = split_steps(text)
        self.counts.abstained += not steps
        if self._unit == "chain":
            steps = [text] if steps else []
        chain = [encode_text(self._tokenizer, step) for step in steps]
        if any(len(ids) >= self._window for ids in chain):
            self.counts.too_long += 1
            return []
        return chain

    @staticmethod
    def _score(means: Sequence[float]) -> float:
        """The harmonic mean of 1 / PPL = exp(mean log-prob)."""
        return len(means) / float(np.exp(-np.array(means)).sum()) if means else float("nan")

"""Models that compare two responses as reward models: a response's score is how often it wins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch

from laser.core.types import FloatArray, Prompt
from laser.lm.packing import by_length
from laser.parallel.memory import Budget
from laser.rewards.base import Counts
from laser.rewards.families.base import PairModel, Row
from laser.rewards.weights import OUT_OF_MEMORY, Weighted


class PairwiseRM(Weighted):
    """Scores a response by its mean log-odds of winning against the prompt's other responses.

    s_i = 1 / (N - 1) sum_{j != i} [f(i, j) - f(j, i)] / 2 over the N distinct responses that were asked about, f(i, j)
    being the log-odds that i is better when it comes first; both orders, because such models favor a place. Source:
    the total logits of PairRanker (arXiv 2306.02561), here a mean. Scores sum to 0 for each prompt and compare its
    responses only; N responses take N (N - 1) comparisons.

    Args:
        model: What compares.
        max_batch_tokens: Budget of one forward pass, in padded tokens; halved where memory runs out.
    """

    def __init__(self, model: PairModel, *, max_batch_tokens: int = 8192) -> None:
        super().__init__(model.modules)
        self._model: PairModel | None = model
        self._budget = Budget(max_batch_tokens, OUT_OF_MEMORY)
        self.counts = Counts()

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. NaN for an empty response, one too long, and one without rival."""
        return [self._ranked(prompt.text, texts) for prompt, texts in zip(prompts, responses, strict=True)]

    def release(self) -> None:
        """Drop the weights."""
        super().release()
        self._model = None

    def _ranked(self, prompt: str, texts: Sequence[str]) -> FloatArray:
        assert self._model is not None
        fits = {text: self._model.fits(prompt, text) for text in dict.fromkeys(texts) if text.strip()}
        self.counts.too_long += sum(not fits.get(text, True) for text in texts)
        rivals = [text for text, whole in fits.items() if whole or self._model.cuts]
        if len(rivals) < 2:
            return np.full(len(texts), np.nan)
        wins = self._wins(prompt, rivals)
        means = (wins - wins.T).sum(axis=1) / 2 / (len(rivals) - 1)
        scores = dict(zip(rivals, means.tolist(), strict=True))
        return np.array([scores.get(text, float("nan")) for text in texts], dtype=np.float64)

    @torch.no_grad()
    def _wins(self, prompt: str, texts: Sequence[str]) -> FloatArray:
        """Log-odds that the row's text, put first, beats the column's; shape (N, N), zeros on the diagonal."""
        assert self._model is not None
        model = self._model
        places = list(permutations(range(len(texts)), 2))
        rows: list[Row] = [model.encode(prompt, texts[first], texts[second]) for first, second in places]
        wins = np.zeros((len(texts), len(texts)))
        lengths = [len(row.ids) for row in rows]

        def read(tokens: int) -> None:
            for chunk in by_length(lengths, tokens):
                values = model.log_odds([rows[number] for number in chunk]).double().tolist()
                for number, value in zip(chunk, values, strict=True):
                    wins[places[number]] = value

        self._budget.spend(read, least=max(lengths, default=0))
        return wins

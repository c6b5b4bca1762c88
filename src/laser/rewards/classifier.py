"""Models with a score for a conversation as reward models: classifiers, value heads, gates, tokens' logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from laser.core.types import FloatArray, Prompt
from laser.lm.packing import by_length
from laser.parallel.memory import Budget
from laser.rewards.conversation import ConversationEncoder
from laser.rewards.families.base import FamilyModel
from laser.rewards.weights import OUT_OF_MEMORY, Weighted


class ClassifierRM(Weighted):
    """Scores each conversation by a model of one of the families.

    Args:
        model: What turns rows of tokens into scores.
        encoder: What turns prompts and responses into rows.
        max_batch_tokens: Budget of one forward pass, in padded tokens; halved where memory runs out.
    """

    def __init__(self, model: FamilyModel, encoder: ConversationEncoder, *, max_batch_tokens: int = 8192) -> None:
        super().__init__(model.modules)
        self._model: FamilyModel | None = model
        self._encoder = encoder
        self.counts = encoder.counts
        self._budget = Budget(max_batch_tokens, OUT_OF_MEMORY)

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. NaN for an empty response and for one beyond the window."""
        assert self._model is not None
        model = self._model
        encoded = [self._encoder.rows(prompt, texts) for prompt, texts in zip(prompts, responses, strict=True)]
        scores = [np.full(len(row), np.nan) for row in responses]
        found = [
            (index, position, row)
            for index, rows in enumerate(encoded)
            for position, row in enumerate(rows)
            if row is not None
        ]
        lengths = [len(row.ids) for _, _, row in found]

        def read(tokens: int) -> None:
            for chunk in by_length(lengths, tokens):
                values = model.scores([found[number][2] for number in chunk])
                for number, value in zip(chunk, values.double().tolist(), strict=True):
                    index, position, _ = found[number]
                    scores[index][position] = value

        self._budget.spend(read, least=max(lengths, default=0))
        return scores

    def release(self) -> None:
        """Drop the weights."""
        super().release()
        self._model = None

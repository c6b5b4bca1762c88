"""A causal LM whose next-token logits are the score.

Meant for Llama-3.1-Nemotron-70B-Reward-HF, whose reward is the logit of vocabulary entry 0 (`label = "!"`), and for
generative verifiers and judges that answer in one word, scored by the difference of two logits
(`label = {Yes = 1, No = -1}`: log p(Yes) - log p(No), arXiv 2408.15240).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.core.errors import RewardModelError
from laser.lm.limits import window_of
from laser.lm.sources import load_causal_lm
from laser.rewards.families.base import Checkpoint, FamilyModel, Outputs, Row, pad_of
from laser.rewards.families.lm_head import next_logits
from laser.rewards.families.tokens import token_of


def tokens_of(tokenizer: PreTrainedTokenizerBase, outputs: Outputs | None) -> tuple[list[int], list[float]]:
    """Ids and weights of the tokens. Raises RewardModelError if none is named, or one is none."""
    if not outputs:
        raise RewardModelError("family = 'token_logit' has no score without a token; set label to it")
    return [token_of(tokenizer, token) for token in outputs], list(outputs.values())


class TokenLogitModel:
    """The weighted sum of some tokens' logits behind the conversation.

    Raises:
        RewardModelError: See `tokens_of`.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, outputs: Outputs | None, pad_id: int
    ) -> None:
        self.modules: Sequence[nn.Module] = [model]
        self.window = window_of(model.config)
        self._model = model
        self._pad_id = pad_id
        self._tokens, self._weights = tokens_of(tokenizer, outputs)

    def scores(self, rows: Sequence[Row]) -> Tensor:
        """Scores of rows, shape (R,)."""
        logits = next_logits(self._model, rows, self._pad_id)[:, self._tokens]
        return logits @ logits.new_tensor(self._weights)


def load_token_logit(checkpoint: Checkpoint, outputs: Outputs | None) -> FamilyModel:
    """Load a causal LM. Raises ModelError or RewardModelError."""
    return TokenLogitModel(checkpoint.load(load_causal_lm), checkpoint.tokenizer, outputs, pad_of(checkpoint))

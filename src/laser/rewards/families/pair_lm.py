"""A causal LM that judges which of two responses is better and answers with one token.

Meant for RLHFlow/pair-preference-model-LLaMA3-8B (arXiv 2405.07863), whose question is the default, and for chat
models as pairwise judges without a server. Question: the model card. Deviation: the prompt is the last user message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.core.errors import RewardModelError
from laser.lm.chat import encode_prompt, has_chat_template
from laser.lm.limits import window_of
from laser.lm.sources import load_causal_lm
from laser.rewards.families.base import Checkpoint, PairModel, Row, pad_of
from laser.rewards.families.lm_head import next_logits
from laser.rewards.families.tokens import token_of

QUESTION = "[CONTEXT] \n\n<turn> user\n {prompt}\n [RESPONSE A] {first} [RESPONSE B] {second} \n"
ANSWERS = ("A", "B")
_SLOT = re.compile(r"\{(prompt|first|second)\}")


def check_judge(tokenizer: PreTrainedTokenizerBase, answers: tuple[str, str]) -> list[int]:
    """The tokens of the answers. Raises RewardModelError if one is not a single token, or without a chat template."""
    if not has_chat_template(tokenizer):
        raise RewardModelError(f"{tokenizer.name_or_path or 'it'} has no chat template; choose a chat model")
    return [token_of(tokenizer, answer) for answer in answers]


class PairLmModel:
    """logit(first answer) - logit(second answer): the log-odds between the two answers.

    Args:
        model: A frozen causal LM with a chat template.
        tokenizer: Its tokenizer.
        question: What it is asked, with {prompt}, {first} and {second}.
        answers: The token that says the first is better, and the one that says the second is.
        pad_id: Token id to pad with.

    Raises:
        RewardModelError: See `check_judge`.
    """

    cuts = False

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        question: str = QUESTION,
        answers: tuple[str, str] = ANSWERS,
        pad_id: int,
    ) -> None:
        self.modules: Sequence[nn.Module] = [model]
        self._model = model
        self._tokenizer = tokenizer
        self._question = question
        self._answers = check_judge(tokenizer, answers)
        self._pad_id = pad_id
        self._window = window_of(model.config)

    def encode(self, prompt: str, first: str, second: str) -> Row:
        """One comparison: the question as a user's turn, the assistant's opened."""
        texts = {"prompt": prompt, "first": first, "second": second}
        content = _SLOT.sub(lambda slot: texts[slot[1]], self._question)
        return Row(encode_prompt(self._tokenizer, [{"role": "user", "content": content}]))

    def fits(self, prompt: str, text: str) -> bool:
        """Whether the question about two responses of this length fits the window."""
        return len(self.encode(prompt, text, text).ids) <= self._window

    def log_odds(self, rows: Sequence[Row]) -> Tensor:
        """Log-odds that the first response is the better one, shape (R,)."""
        logits = next_logits(self._model, rows, self._pad_id)[:, self._answers]
        return logits[:, 0] - logits[:, 1]


def load_pair_lm(checkpoint: Checkpoint, question: str, answers: tuple[str, str]) -> PairModel:
    """Load a causal LM as a judge of pairs. Raises ModelError or RewardModelError."""
    model = checkpoint.load(load_causal_lm)
    return PairLmModel(model, checkpoint.tokenizer, question=question, answers=answers, pad_id=pad_of(checkpoint))

"""Log-likelihood of a response under a causal LM: the reward models of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.errors import RewardModelError
from laser.lm.chat import encode_prompt, encode_text, has_chat_template
from laser.lm.logps import choose_layout, response_logps
from laser.types import FloatArray, Prompt


class LogLikelihoodRM:
    """Scores log pi_R(y | x), summed over response tokens, the prompt excluded.

    Source: arXiv 2410.01735, Sec. 4.1 (no reference, no normalisation). Options beyond it: the mean per token, and the
    implicit reward log pi_R(y | x) - log pi_ref(y | x) of arXiv 2305.18290. The text is tokenised by the reward model's
    own tokenizer behind its own chat template. What does not fit its context is not scored, never truncated.

    Args:
        model: A frozen causal LM.
        tokenizer: Its tokenizer.
        normalization: "sum" over response tokens (paper) or their mean, "per_token".
        reference_model: Makes the score the implicit reward; must share the tokenizer.
        end_of_turn: Score the token that ends the turn too; without it an answer that breaks off early is as good as
            a finished one.
        template: "chat" for the model's chat template, "plain" for `plain_format`.
        plain_format: Text before the response, with {prompt} where the last user message goes.
        max_batch_tokens: Budget of one forward pass.

    Raises:
        RewardModelError: The tokenizer has no chat template and `template` is "chat", or `plain_format` has no
            {prompt}.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        normalization: Literal["sum", "per_token"] = "sum",
        reference_model: PreTrainedModel | None = None,
        end_of_turn: bool = True,
        template: Literal["chat", "plain"] = "chat",
        plain_format: str = "{prompt}\n",
        max_batch_tokens: int = 8192,
    ) -> None:
        if template == "chat" and not has_chat_template(tokenizer):
            raise RewardModelError(
                f"{tokenizer.name_or_path or 'it'} has no chat template; set template = 'plain' for it"
            )
        if template == "plain" and "{prompt}" not in plain_format:
            raise RewardModelError("plain_format has no {prompt}; put {prompt} where the prompt goes")
        self._models = [model] if reference_model is None else [model, reference_model]
        self._layouts = [choose_layout(each) for each in self._models]
        self._tokenizer = tokenizer
        self._normalization = normalization
        ends = end_of_turn and tokenizer.eos_token_id is not None
        self._ending = [int(tokenizer.eos_token_id)] if ends else []
        self._plain_format = plain_format if template == "plain" else None
        self._max_batch_tokens = max_batch_tokens
        limits = [getattr(each.config.get_text_config(), "max_position_embeddings", None) for each in self._models]
        self._context_length = min(int(limit) if limit else 2**31 for limit in limits)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. NaN for an empty response and for one beyond the context."""
        prompt_ids = [self._encode(prompt) for prompt in prompts]
        response_ids = [
            [self._response(ids, text) for text in row] for ids, row in zip(prompt_ids, responses, strict=True)
        ]
        logps = [
            response_logps(model, prompt_ids, response_ids, layout=layout, max_batch_tokens=self._max_batch_tokens)
            for model, layout in zip(self._models, self._layouts, strict=True)
        ]
        scores = []
        for row, ids in enumerate(response_ids):
            total = logps[0][row].double().cpu().numpy()
            if len(logps) == 2:
                total = total - logps[1][row].double().cpu().numpy()
            lengths = np.array([len(tokens) for tokens in ids], dtype=np.float64)
            divisor = lengths if self._normalization == "per_token" else np.ones(len(ids))
            scores.append(np.divide(total, divisor, out=np.full(len(ids), np.nan), where=lengths > 0))
        return scores

    def release(self) -> None:
        """Drop the weights."""
        self._models.clear()

    def _encode(self, prompt: Prompt) -> list[int]:
        if self._plain_format is None:
            return encode_prompt(self._tokenizer, prompt.messages)
        ids = encode_text(self._tokenizer, self._plain_format.replace("{prompt}", prompt.text))
        start = self._tokenizer.bos_token_id
        return ids if start is None else [int(start), *ids]

    def _response(self, prompt_ids: list[int], text: str) -> list[int]:
        """Token ids to score; none for an empty response and for one beyond the context."""
        ids = encode_text(self._tokenizer, text) if text else []
        ids = ids + self._ending if ids else []
        return ids if len(prompt_ids) + len(ids) <= self._context_length else []

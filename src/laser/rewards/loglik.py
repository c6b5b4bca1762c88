"""Log-likelihood of a response under a causal LM: the reward models of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laser.core.errors import RewardModelError
from laser.core.types import FloatArray, Prompt
from laser.lm.chat import encode_prompt, encode_text, encode_texts, has_chat_template
from laser.lm.chat import end_of_turn as end_token
from laser.lm.limits import window_of
from laser.lm.logps import choose_layout, response_logps
from laser.parallel.memory import Budget
from laser.rewards.base import Counts
from laser.rewards.weights import OUT_OF_MEMORY, Weighted
from laser.rewards.window import Overflow, fit, without_beginning

Normalization = Literal["sum", "per_token"]


class ResponseEncoder:
    """Token ids as a log-likelihood reward model reads them: its own tokenizer behind its own chat template.

    Args:
        tokenizer: The reward model's tokenizer.
        context_length: Tokens of the window.
        overflow: What becomes of a response that does not fit; see `laser.rewards.window.fit`.
        end_of_turn: Score the token that ends the turn too; without it an answer that breaks off early is as good as
            a finished one.
        template: "chat" for the model's chat template, "plain" for `plain_format`.
        plain_format: Text before the response, with {prompt} where the last user message goes.

    Raises:
        RewardModelError: The tokenizer has no chat template and `template` is "chat", or `plain_format` has no
            {prompt}.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        context_length: int,
        overflow: Overflow = "skip",
        end_of_turn: bool = True,
        template: Literal["chat", "plain"] = "chat",
        plain_format: str = "{prompt}\n",
    ) -> None:
        if template == "chat" and not has_chat_template(tokenizer):
            raise RewardModelError(
                f"{tokenizer.name_or_path or 'it'} has no chat template; set template = 'plain' for it"
            )
        if template == "plain" and "{prompt}" not in plain_format:
            raise RewardModelError("plain_format has no {prompt}; put {prompt} where the prompt goes")
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._overflow: Overflow = overflow
        self.counts = Counts()
        end = end_token(tokenizer) if template == "chat" else tokenizer.eos_token_id
        self._ending = [int(end)] if end_of_turn and end is not None else []
        self._plain_format = plain_format if template == "plain" else None

    def encode(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]
    ) -> tuple[list[list[int]], list[list[list[int]]]]:
        """Ids of the prompts, and of their responses: none for an empty one and for one that is not scored."""
        rows = iter(encode_texts(self._tokenizer, [text for texts in responses for text in texts]))
        encoded = [[ids + self._ending if ids else [] for ids in islice(rows, len(texts))] for texts in responses]
        fitted = [self._fitted(self._prompt(prompt), row) for prompt, row in zip(prompts, encoded, strict=True)]
        return [ids for ids, _ in fitted], [row for _, row in fitted]

    def _fitted(self, prompt_ids: list[int], rows: Sequence[list[int]]) -> tuple[list[int], list[list[int]]]:
        window = fit(len(prompt_ids), [len(ids) for ids in rows], self._context_length, self._overflow)
        self.counts.too_long += window.num_too_long
        if window.cut:
            start = self._tokenizer.bos_token_id
            prompt_ids = without_beginning(prompt_ids, window.cut, None if start is None else int(start))
        return prompt_ids, [ids if scored else [] for ids, scored in zip(rows, window.scored, strict=True)]

    def _prompt(self, prompt: Prompt) -> list[int]:
        if self._plain_format is None:
            return encode_prompt(self._tokenizer, prompt.messages, tools=prompt.tools)
        ids = encode_text(self._tokenizer, self._plain_format.replace("{prompt}", prompt.text))
        start = self._tokenizer.bos_token_id
        return ids if start is None else [int(start), *ids]


class LogLikelihoodRM(Weighted):
    """Scores log pi_R(y | x), summed over response tokens, the prompt excluded.

    Source: arXiv 2410.01735, Sec. 4.1 (no reference, no normalization). Options beyond it: the mean per token, and the
    implicit reward log pi_R(y | x) - log pi_ref(y | x) of arXiv 2305.18290.

    Args:
        model: A frozen causal LM.
        tokenizer: Its tokenizer.
        normalization: "sum" over response tokens (paper) or their mean, "per_token".
        reference_model: Makes the score the implicit reward; must share the tokenizer.
        overflow: See `ResponseEncoder`.
        end_of_turn: See `ResponseEncoder`, as `template` and `plain_format`.
        template: See there.
        plain_format: See there.
        max_batch_tokens: Budget of one forward pass; halved where memory runs out.

    Raises:
        RewardModelError: See `ResponseEncoder`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        normalization: Normalization = "sum",
        reference_model: PreTrainedModel | None = None,
        overflow: Overflow = "skip",
        end_of_turn: bool = True,
        template: Literal["chat", "plain"] = "chat",
        plain_format: str = "{prompt}\n",
        max_batch_tokens: int = 8192,
    ) -> None:
        models = [model] if reference_model is None else [model, reference_model]
        super().__init__(models)
        self._models = models
        self._encoder = ResponseEncoder(
            tokenizer,
            context_length=min(window_of(each.config) for each in models),
            overflow=overflow,
            end_of_turn=end_of_turn,
            template=template,
            plain_format=plain_format,
        )
        self.counts = self._encoder.counts
        self._layouts = [choose_layout(each) for each in models]
        self._normalization = normalization
        self._budget = Budget(max_batch_tokens, OUT_OF_MEMORY)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. NaN for an empty response and for one beyond the window."""
        prompt_ids, response_ids = self._encoder.encode(prompts, responses)
        logps = [
            response_logps(model, prompt_ids, response_ids, layout=layout, budget=self._budget)
            for model, layout in zip(self._models, self._layouts, strict=True)
        ]
        totals = [row.double().cpu().numpy() for row in logps[0]]
        if len(logps) == 2:
            totals = [total - row.double().cpu().numpy() for total, row in zip(totals, logps[1], strict=True)]
        return normalized(totals, response_ids, self._normalization)

    def release(self) -> None:
        """Drop the weights."""
        super().release()
        self._models.clear()


def normalized(
    totals: Sequence[FloatArray], response_ids: Sequence[Sequence[Sequence[int]]], normalization: Normalization
) -> list[FloatArray]:
    """Sums as they are, or divided by the number of tokens; NaN for a response without tokens."""
    scores = []
    for total, ids in zip(totals, response_ids, strict=True):
        lengths = np.array([len(tokens) for tokens in ids], dtype=np.float64)
        divisor = lengths if normalization == "per_token" else np.ones(len(ids))
        scores.append(np.divide(total, divisor, out=np.full(len(ids), np.nan), where=lengths > 0))
    return scores

"""Log-likelihood reward models behind a vLLM server, by its prompt log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from laser.core.errors import RewardModelError
from laser.core.types import FloatArray, Prompt
from laser.rewards.base import NoWeights
from laser.rewards.loglik import Normalization, ResponseEncoder, normalized
from laser.serving.endpoint import MALFORMED, Endpoint


class ServedLogLikelihoodRM(NoWeights):
    """`LogLikelihoodRM` on another machine: prompt and response go as token ids, log-probs come back.

    Args:
        endpoint: A vLLM server, or several with the same model.
        encoder: The served model's tokenizer and template.
        model: Name of the served model.
        normalization: "sum" over response tokens (paper) or their mean.
    """

    def __init__(
        self, endpoint: Endpoint, encoder: ResponseEncoder, *, model: str, normalization: Normalization = "sum"
    ) -> None:
        self._endpoint = endpoint
        self._encoder = encoder
        self.counts = encoder.counts
        self._model = model
        self._normalization = normalization

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. NaN for an empty response and for one beyond the context.

        Raises:
            ServerError: The server cannot be reached, refuses, or answers something else than JSON.
            RewardModelError: Its reply has no prompt log-probs, or those of other tokens.
        """
        prompt_ids, response_ids = self._encoder.encode(prompts, responses)
        jobs = [
            (row, index, [*ids, *tokens], len(tokens))
            for row, ids in enumerate(prompt_ids)
            for index, tokens in enumerate(response_ids[row])
            if tokens
        ]
        replies = self._endpoint.post_all("/v1/completions", [self._payload(ids) for _, _, ids, _ in jobs])
        totals = [np.zeros(len(row)) for row in response_ids]
        for (row, index, ids, length), reply in zip(jobs, replies, strict=True):
            totals[row][index] = self._sum(reply, ids, length)
        return normalized(totals, response_ids, self._normalization)

    def release(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def _payload(self, ids: Sequence[int]) -> dict[str, Any]:
        return {
            "model": self._model,
            "prompt": list(ids),
            "max_tokens": 1,  # the server requires at least one sampled token
            "temperature": 0,
            "prompt_logprobs": 0,
            "add_special_tokens": False,
        }

    def _sum(self, reply: Any, ids: Sequence[int], length: int) -> float:
        try:
            entries = reply["choices"][0]["prompt_logprobs"][-length:]
            return float(sum(entry[str(token)]["logprob"] for entry, token in zip(entries, ids[-length:], strict=True)))
        except MALFORMED as error:
            raise RewardModelError(
                f"{self._endpoint.where()} gave no prompt log-probs for the tokens sent; is {self._model!r} a vLLM "
                "model with the same tokenizer?"
            ) from error

"""Reward models behind HTTP: your own reward server, OpenRLHF's, or vLLM's classification and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from laser.core.addresses import check_path
from laser.core.errors import RewardModelError
from laser.core.types import FloatArray, Prompt
from laser.rewards.base import Counts, NoWeights
from laser.rewards.values import as_number, split_rows
from laser.serving.endpoint import MALFORMED, Endpoint, shown

Format = Literal["scores", "openrlhf", "vllm_classify", "vllm_pooling"]
_Item = tuple[Prompt, str]


@dataclass(frozen=True, slots=True)
class _Contract:
    """The requests and replies of one kind of server.

    Attributes:
        path: Appended to the address.
        single: One response per request.
        request: Makes the payload for some responses.
        scores: Finds their scores in the reply; raises one of `MALFORMED` if there are none.
    """

    path: str
    single: bool
    request: Callable[[str | None, Sequence[_Item]], dict[str, Any]]
    scores: Callable[[Any], Sequence[Any]]


class HttpRM(NoWeights):
    """Scores with a reward server.

    The contract of ``scores``, for your own server: POST ``{"model", "prompts", "responses"}``, where
    `prompts[i]` is the list of chat messages that `responses[i]` answers; the reply is ``{"scores": [...]}``, one
    number each, null where it has no opinion.

    Args:
        endpoint: The server.
        format: Its contract.
        path: Path on the server, if not the contract's usual one.
        model: Model name sent along; vLLM needs the one it serves.
        max_batch: Responses per request, for contracts that take several.

    Raises:
        RewardModelError: The path is invalid, or has a query, where a key could hide.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        format: Format = "scores",
        path: str | None = None,
        model: str | None = None,
        max_batch: int = 64,
    ) -> None:
        self._endpoint = endpoint
        self._contract = _CONTRACTS[format]
        try:
            self._path = check_path(path) if path is not None else self._contract.path
        except ValueError as error:
            raise RewardModelError(str(error)) from error
        self._model = model
        self._max_batch = 1 if self._contract.single else max_batch
        self.counts = Counts()

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. null becomes NaN and is counted as no opinion.

        Raises:
            ServerError: The server cannot be reached, refuses, or answers something else than JSON.
            RewardModelError: Its reply does not keep the contract.
        """
        items = [(prompt, text) for prompt, row in zip(prompts, responses, strict=True) for text in row]
        chunks = list(_chunks(items, self._max_batch))
        replies = self._endpoint.post_all(self._path, [self._contract.request(self._model, chunk) for chunk in chunks])
        flat = [
            score for chunk, reply in zip(chunks, replies, strict=True) for score in self._scores(reply, len(chunk))
        ]
        self.counts.abstained += flat.count(None)
        return split_rows(flat, responses)

    def release(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def _scores(self, reply: Any, expected: int) -> list[float | None]:
        try:
            given = list(self._contract.scores(reply))
        except MALFORMED as error:
            raise RewardModelError(
                f"{self._endpoint.where(self._path)} answered {shown(reply)}, which has no scores; check `format`"
            ) from error
        if len(given) != expected:
            raise RewardModelError(
                f"{self._endpoint.where(self._path)} gave {len(given)} scores for {expected} responses; send one each"
            )
        for value in given:
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise RewardModelError(
                    f"{self._endpoint.where()} gave {shown(value)} as a score; send a number or null"
                )
        return [as_number(value, self._endpoint.where()) for value in given]


def _chunks(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))


def _ask_scores(model: str | None, items: Sequence[_Item]) -> dict[str, Any]:
    return {
        "model": model,
        "prompts": [list(prompt.messages) for prompt, _ in items],
        "responses": [text for _, text in items],
    }


def _ask_openrlhf(model: str | None, items: Sequence[_Item]) -> dict[str, Any]:
    """OpenRLHF's remote reward model: query is prompt and response as one text, labels are gold answers."""
    return {
        "query": [prompt.text + text for prompt, text in items],
        "prompts": [prompt.text for prompt, _ in items],
        "labels": [prompt.answer for prompt, _ in items],
    }


def _ask_vllm(model: str | None, items: Sequence[_Item]) -> dict[str, Any]:
    ((prompt, text),) = items
    return {
        "model": model,
        "messages": [*prompt.messages, {"role": "assistant", "content": text}],
        "add_generation_prompt": False,
        "use_activation": False,  # the raw logit, not its sigmoid
    }


def _last_number(value: Any) -> Any:
    """A reward model's score is its last token's: the last number of whatever nesting the pooler gives.

    A model always has an opinion: null is NaN in the JSON of some servers.
    """
    while isinstance(value, list):
        value = value[-1]
    return math.nan if value is None else value


_CONTRACTS: dict[Format, _Contract] = {
    "scores": _Contract("", False, _ask_scores, lambda reply: reply["scores"]),
    "openrlhf": _Contract("", False, _ask_openrlhf, lambda reply: reply["rewards"]),
    "vllm_classify": _Contract(
        "/classify", True, _ask_vllm, lambda reply: [_last_number(item["probs"]) for item in reply["data"]]
    ),
    "vllm_pooling": _Contract(
        "/pooling", True, _ask_vllm, lambda reply: [_last_number(item["data"]) for item in reply["data"]]
    ),
}

"""Questions to a chat model behind an OpenAI-compatible endpoint: what both judges share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from laser.core.errors import ServerError
from laser.rewards.replies import Completion, read_completion
from laser.serving.cache import CachedEndpoint
from laser.serving.endpoint import Outcome, RefusedError, shown

FIELDS: Mapping[str, Any] = MappingProxyType({"temperature": 0, "max_tokens": 8})
"""Fields of a request where the configuration sets no others: greedy, and a few tokens."""

_PATH = "/v1/chat/completions"
_MAX_FAILURES = 16  # in a row, after which the rest is not sent; at least two for every request under way
_UNUSABLE = (400, 404, 422)  # statuses of a request that the model does not take


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    Attributes:
        completion: What the model said; None if there is no usable reply.
        outcome: The request.
        problem: Why there is no usable reply, with the cure if it is known; "" otherwise.
    """

    completion: Completion | None
    outcome: Outcome
    problem: str = ""


class Chat:
    """A chat model that is asked one question at a time."""

    def __init__(
        self,
        endpoint: CachedEndpoint,
        *,
        model: str,
        fields: Mapping[str, Any],
        use_logprobs: bool,
    ) -> None:
        self.fields = dict(fields)
        self.use_logprobs = use_logprobs
        self._endpoint = endpoint
        self._model = model

    def ask(self, questions: Sequence[str]) -> list[Answer]:
        """Answers in the order of the questions; replies that are not chat completions are not kept in the cache."""
        outcomes = self._endpoint.post_each(
            _PATH,
            [self._payload(question) for question in questions],
            max_failures=max(_MAX_FAILURES, 2 * self._endpoint.concurrency),
            keep=lambda reply: read_completion(reply) is not None,
        )
        return [self._answer(outcome) for outcome in outcomes]

    def close(self) -> None:
        """Close the cache and the connections."""
        self._endpoint.close()

    def _payload(self, question: str) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": question}],
            **self.fields,
            **({"logprobs": True, "top_logprobs": 20} if self.use_logprobs else {}),
        }

    def _answer(self, outcome: Outcome) -> Answer:
        if outcome.error is not None:
            return Answer(None, outcome, f"{outcome.error}{self._cure(outcome.error)}")
        completion = read_completion(outcome.reply)
        if completion is None:
            return Answer(None, outcome, f"the judge answered {shown(outcome.reply)}, which is not a chat completion")
        return Answer(completion, outcome)

    def _cure(self, error: ServerError) -> str:
        """What to set so that the model takes the request, where its refusal names a field of it."""
        if not isinstance(error, RefusedError) or error.status not in _UNUSABLE:
            return ""
        named = set(re.findall(r"\w+", error.complaint))
        if "max_tokens" in self.fields and "max_completion_tokens" in named:
            return f"; set max_completion_tokens = {self.fields['max_tokens']}, which replaces max_tokens"
        if self.use_logprobs and named & {"logprobs", "top_logprobs"}:
            return "; set use_logprobs = false"
        field = next((name for name in self.fields if name in named), None)
        match field:
            case None:
                return ""
            case "temperature":
                return '; set temperature = "none"'
            case "max_tokens":
                return '; set another max_tokens, or max_tokens = "none"'
            case "max_completion_tokens":
                return "; remove max_completion_tokens and set max_tokens"
            case "reasoning_effort":
                return "; remove reasoning_effort or set it to a value that the model has"
            case _:
                return f"; remove {field} from extra_body"


def fill(template: str, values: Mapping[str, object]) -> str:
    """A template with values in place of their {names}; braces inside a value stay as they are."""
    pattern = "|".join(re.escape(f"{{{name}}}") for name in values)
    return re.sub(pattern, lambda match: str(values[match.group()[1:-1]]), template)

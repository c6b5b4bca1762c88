"""Records that packages exchange. Standard library and numpy only.

Shape letters at the end of array names: B prompts, N responses per prompt, P pairs, T tokens, K arms, D context
features, M rows of a selection (1 per batch, or B with per-prompt selection).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

Message = Mapping[str, Any]
"""One chat message, ``{"role": ..., "content": ...}``, both text, as in every Hugging Face chat template.

It may also have what templates read of tools: `tool_calls`, `tool_call_id`, `name`, `reasoning_content`.
"""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A query to the policy, with what is needed to judge an answer to it.

    Attributes:
        id: Unique within its data set.
        messages: The conversation up to what the assistant is to answer: a message of the user, or of a tool.
        category: Name of the task or topic; batches may be drawn per category.
        answer: Gold answer, or None where there is none; several accepted ones are in `metadata["answers"]`.
        metadata: Whatever else the data set carries; passed to Python reward functions untouched.
        conversational: Whether the data set gives the prompt as messages rather than as text, which decides in what
            form reward functions written for TRL get it.
    """

    id: str
    messages: tuple[Message, ...]
    category: str = "default"
    answer: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    conversational: bool = False

    @property
    def tools(self) -> list[Mapping[str, Any]]:
        """Definitions of the tools that the assistant may call, from `metadata["tools"]`; empty without any."""
        tools = self.metadata.get("tools")
        return tools if isinstance(tools, list) and all(isinstance(one, Mapping) for one in tools) else []

    @property
    def text(self) -> str:
        """Content of the last message."""
        text: str = self.messages[-1]["content"]
        return text


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled response: token ids out of the policy, never re-tokenized for it.

    Attributes:
        token_ids: Ids of the response tokens, the end-of-turn token included if it was sampled.
        text: The decoded text without special tokens; what reward models read.
        sampling_logps: Natural-log probability of each token under the sampling policy at temperature 1, shape (T,).
        finished: False if generation was cut at the token limit.
    """

    token_ids: tuple[int, ...]
    text: str
    sampling_logps: tuple[float, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """The prompts of one training step and its place in the run.

    `iteration`, `step` and the row of a prompt address every random draw of the batch.

    Attributes:
        iteration: Number m of the iteration, from 0.
        step: Number t of the batch in its iteration, from 0.
        prompts: The B prompts.
    """

    iteration: int
    step: int
    prompts: Sequence[Prompt]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a selector chose for M rows of contexts.

    Attributes:
        id: Identifies this selection in a later `Selector.update` or `Selector.expire`.
        weights_MK: Non-negative weights over arms, each row summing to 1. A bandit's row is one-hot; an ensemble's
            has several non-zero entries. Only arms with a non-zero weight are loaded and called.
        probabilities_MK: Propensities, the probability with which each arm would have been chosen for the row (with
            ties broken uniformly); for a deterministic ensemble equal to the weights.
        values_MK: The selector's own value of each arm (LinUCB: the upper confidence bound of Eq. 1).
        charged_E: The E entries (row, arm) that get a bandit reward: for a bandit the chosen arm of every row, for an
            ensemble that learns each of its arms, for one that does not learn none.
    """

    id: int
    weights_MK: FloatArray
    probabilities_MK: FloatArray
    values_MK: FloatArray
    charged_E: tuple[tuple[int, int], ...]

    @property
    def arms_M(self) -> IntArray:
        """The arm with the largest weight in each row."""
        return np.asarray(self.weights_MK.argmax(axis=1), dtype=np.int64)

    @property
    def used_arms(self) -> list[int]:
        """Arms with weight in some row, ascending."""
        return [int(arm) for arm in np.flatnonzero(self.weights_MK.any(axis=0))]

    def row_of(self, prompt: int) -> int:
        """The row that chose for a prompt of the batch: its own, or the one row of the batch."""
        return prompt if len(self.weights_MK) > 1 else 0

    def weights_BK(self, num_prompts: int) -> FloatArray:
        """The weights of every prompt, shape (B, K), also where one row chose for the whole batch."""
        return np.broadcast_to(self.weights_MK, (num_prompts, self.weights_MK.shape[1]))


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference pair: two responses to the same prompt of the batch.

    Attributes:
        prompt: Row of the prompt in the batch.
        chosen: Index of the preferred response among the prompt's responses.
        rejected: Index of the other one.
        chosen_score: Score of `chosen` by the selected reward model(s).
        rejected_score: Score of `rejected`.
    """

    prompt: int
    chosen: int
    rejected: int
    chosen_score: float
    rejected_score: float


StateDict = dict[str, Any]
"""State of a selector, feedback or context preparer: a flat dict of numpy arrays and JSON values."""

Responses = Sequence[Sequence[Response]]
"""Responses of a batch: one inner sequence per prompt."""

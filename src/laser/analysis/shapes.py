"""What the lines of a run's records hold, as far as anything reads it."""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

Count = Annotated[int, Field(ge=0, le=2**53)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e10, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

_ANY_OTHER = ConfigDict(extra="allow")


class SelectionRecord(TypedDict):
    """The selection of a batch; one entry of `weights` and `categories` per row."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    weights: Annotated[list[list[Share]], Field(min_length=1)]
    categories: list[dict[str, Count]]
    charged: list[str]


class DecilesRecord(TypedDict):
    """A distribution: how many values, and their minimum, nine deciles and maximum."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    count: Count
    deciles: Annotated[list[Finite | None], Field(min_length=11, max_length=11)]
    reward_model: NotRequired[str | None]


class DistributionsRecord(TypedDict):
    """Distributions of one batch."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    scores: list[DecilesRecord]
    margins: list[DecilesRecord]
    logp_margins: DecilesRecord | None


class AgreementRecord(TypedDict):
    """How many pairs two reward models order alike, of those that both order."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    first: str
    second: str
    alike: Count
    judged: Count


class DisagreementRecord(TypedDict):
    """Two responses that two reward models order in opposite ways."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    prompt: str
    responses: Annotated[list[str], Field(min_length=2, max_length=2)]
    scores: dict[str, Annotated[list[Finite], Field(min_length=2, max_length=2)]]
    strength: Finite


class ExampleRecord(TypedDict):
    """A pair from training."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    prompt: str
    chosen: str
    rejected: str
    scores: Annotated[list[Finite], Field(min_length=2, max_length=2)]
    reward_model: str


class StepRecord(TypedDict):
    """A line of steps.jsonl, the part that reports read."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    iteration: Count
    step: Count
    category: str
    selection: SelectionRecord
    bandit_rewards: list[Finite | None]
    loss: Finite | None
    pairs: Count
    dropped: dict[str, Count]
    scored: dict[str, Count]
    tokens: dict[str, Count]
    seconds: dict[str, Seconds]
    cost: NotRequired[dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]]
    score_margin: NotRequired[Finite | None]
    unfinished_responses: NotRequired[Count]
    example: NotRequired[ExampleRecord | None]
    quarantined: NotRequired[dict[str, str]]
    distributions: NotRequired[DistributionsRecord]
    agreement: NotRequired[list[AgreementRecord]]
    disagreement: NotRequired[DisagreementRecord | None]


class EvaluationRecord(TypedDict):
    """A line of evaluations.jsonl, the part that reports read."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    batches: Count
    accuracy: Share
    by_category: dict[str, Share]
    num_prompts: Count
    interval: Annotated[list[Share], Field(min_length=2, max_length=2)]
    num_answers: NotRequired[Count]
    correct: NotRequired[dict[str, Share]]


class FoundRecord(TypedDict):
    """A reward model's accuracy on the probe's pairs of a category; null without pairs."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    accuracy: Share | None
    low: Share | None
    high: Share | None
    pairs: Count


class SignRecord(TypedDict):
    """A sign of over-optimization."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    message: str


class ProbeRecord(TypedDict):
    """What a probe found: where labels come from by category, accuracies by category and reward model."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    sources: NotRequired[dict[str, str]]
    accuracy: dict[str, dict[str, FoundRecord]]
    over_optimised: NotRequired[list[SignRecord]]


class SummaryRecord(TypedDict):
    """summary.json, the part that laser reads."""

    __pydantic_config__ = _ANY_OTHER  # type: ignore[misc]
    num_batches: Count
    metric_before: Share | None
    metric_after: Share | None
    scored: dict[str, Count]
    tokens: dict[str, Count]
    seconds: dict[str, Seconds]
    reward_models: NotRequired[dict[str, dict[str, Count]]]
    metric_by_category: NotRequired[dict[str, Annotated[list[Share], Field(min_length=2, max_length=2)]]]
    probe: NotRequired[ProbeRecord]

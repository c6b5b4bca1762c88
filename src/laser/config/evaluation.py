"""Configuration of what is measured: dev checks, `laser eval` and `laser best-of-n`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from laser.config.section import PositiveInt, Section
from laser.data.tasks import AnswerFormat, MetricName


class EvaluationConfig(Section):
    """Accuracy on the dev prompts."""

    every: PositiveInt = Field(1, description="Iterations between checks of the dev metric.")
    max_new_tokens: PositiveInt | None = Field(None, description="Longest answer; None: as in generation.")
    temperature: float = Field(
        0.0,
        ge=0,
        description="0: greedy decoding; above: sampled answers, with the same seeds each time.",
    )
    dev_samples: PositiveInt = Field(
        1,
        description="Answers sampled for each prompt of a dev check, whose accuracy is their mean; more of them make "
        "the paired interval of a run narrower. Above 1 only with a temperature.",
    )
    answer: AnswerFormat = Field(
        "auto",
        description="Where an answer is. auto: after the last of 'Final answer:', 'Answer:', 'The answer is', '####', "
        "or in \\boxed{}, else the last line; final_answer: after 'Final answer:' alone (paper); whole: the response.",
    )
    metric: MetricName = Field(
        "accuracy", description="What `laser best-of-n` and `laser eval` measure against gold answers."
    )

    @model_validator(mode="after")
    def _samples_differ(self) -> EvaluationConfig:
        if self.dev_samples > 1 and self.temperature == 0:
            raise ValueError(
                "evaluation.dev_samples is above 1, but greedy decoding gives the same answer each time; set "
                "evaluation.temperature, for example to 0.8"
            )
        return self


class BestOfNConfig(Section):
    """`laser best-of-n`: the bandit learns which reward model to rerank with; the policy stays as it is (Sec. 3.3)."""

    epochs: PositiveInt = Field(1, description="Passes of the bandit over the training prompts.")
    reward: Literal["auto", "nll", "gold_nll", "metric"] = Field(
        "auto",
        description="What the bandit is fed of the picked response: nll: minus its own NLL per token; gold_nll: minus "
        "that of the gold answer after it; auto (paper): gold_nll for prompts with a gold answer, nll for the others; "
        "metric: evaluation.metric.",
    )

"""The configuration of the pool: every kind of reward model, and how many are held where."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from laser.config.section import Device, Factory, Function, LocalPath, PositiveInt, Section, ServerPath, Source
from laser.config.servers import ChatSection, ServerSection


class RewardModelBase(Section):
    """What every reward model has."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$", description="Name of the arm; unique in the pool.")
    corruption: Literal["none", "inverted", "constant", "random"] = Field(
        "none",
        description="For robustness studies: negate the scores, or replace them by a constant or random ones.",
    )
    noise: float = Field(
        0.0, ge=0, description="Standard deviation of noise added, in standard deviations of the prompt's scores."
    )
    cost: float | None = Field(
        None,
        le=1e30,
        description="Cost of scoring one response, in a unit that the whole pool shares; null: measured seconds.",
    )
    factor: float = Field(
        1.0, gt=0, description="For robustness studies: multiply the scores, as if they were in another unit."
    )


class WeightsRewardBase(RewardModelBase):
    """What every reward model that may have weights has."""

    revision: str | None = Field(None, description="Hub revision (branch, tag or commit).")
    trust_remote_code: bool = Field(False, description="Run model code from the hub; off unless you trust the author.")
    device: Device = Field("auto", description="auto, cpu, mps, cuda or cuda:N.")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="Arithmetic of forward passes.")
    max_batch_tokens: PositiveInt = Field(
        8192, description="Budget of one forward pass, in tokens; halved where memory runs out."
    )


class ModelRewardBase(WeightsRewardBase):
    """What every reward model with weights has."""

    model: Source = Field(description="Hub id, local folder, .gguf file, or 'package:NAME'.")


Overflow = Annotated[
    Literal["skip", "cut_prompt"],
    Field(
        description="A response that does not fit the window behind its prompt: skip leaves it out, cut_prompt takes "
        "the beginning of the prompt away. Counted either way."
    ),
]


class LogLikelihoodReward(ModelRewardBase):
    """Log-likelihood of the response under a causal LM (the paper's RMs)."""

    type: Literal["loglik"] = "loglik"
    normalization: Literal["sum", "per_token"] = Field(
        "sum", description="Sum of log-probs over response tokens (paper), or their mean."
    )
    reference: Source | None = Field(
        None, description="Reference LM: the score becomes the implicit DPO reward log pi(y|x) - log pi_ref(y|x)."
    )
    end_of_turn: bool = Field(
        True, description="Score the token that ends the turn too, so that an answer must also be complete."
    )
    template: Literal["chat", "plain"] = Field(
        "chat", description="chat: the model's own chat template; plain: `plain_format`, for models without one."
    )
    plain_format: str = Field("{prompt}\n", description="Text before the response when template = 'plain'.")
    overflow: Overflow = "skip"
    shard: bool = Field(
        False, description="Shard the weights of its layers over the processes of the run, as `policy.shard` does."
    )

    @model_validator(mode="after")
    def _can_be_sharded(self) -> LogLikelihoodReward:
        if self.shard and self.trust_remote_code:
            raise ValueError(
                f"reward model {self.name!r}: shard makes the model in every process from a class of "
                "transformers, which cannot be done with trust_remote_code; set one of the two to false"
            )
        return self


_SLOT = re.compile(r"\{prompt\}|\{response\}")


class ClassifierReward(ModelRewardBase):
    """A model with a score for a conversation: a sequence classifier, or a family with a custom head."""

    type: Literal["classifier"] = "classifier"
    family: Literal["auto", "standard", "value_head", "gated", "token_logit", "python"] = Field(
        "auto",
        description="How weights become a score; auto: by the architecture in config.json. docs/reward-models.md.",
    )
    factory: Factory | None = Field(
        None, description="'path.py:function' ``(checkpoint, outputs) -> FamilyModel`` for family = 'python'."
    )
    label: str | dict[str, float] | None = Field(
        None,
        description="Output that is the score, or outputs and weights, such as {helpfulness = 0.65, verbosity = -0.4}; "
        "None: the single output.",
    )
    template: str = Field(
        "chat",
        description="chat: the model's chat template; pair: prompt and response as a sentence pair; else the text the "
        "model was trained on, with {prompt} and {response}, or with {response} alone.",
    )
    reward_token: str | None = Field(
        None, description="Token put at the end, at which some models are read (Athene-RM, InternLM2-reward)."
    )
    max_context: PositiveInt | None = Field(None, description="Window in tokens; None: the model's own.")
    overflow: Overflow = "skip"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.family == "python") != (self.factory is not None):
            raise ValueError(f"{self.name}: family = 'python' and factory go together; set both or neither")
        before, response, after = self.template.partition("{response}")
        filled = response and before.count("{prompt}") <= 1 and not _SLOT.search(after)
        if self.template not in ("chat", "pair") and not filled:
            raise ValueError(
                f"{self.name}: template {self.template!r} is neither 'chat' nor 'pair' nor a text with {{response}} "
                "once and {prompt} at most once before it"
            )
        return self


class PairwiseReward(ModelRewardBase):
    """A model that compares two responses; the score is the mean log-odds of beating the prompt's other responses."""

    type: Literal["pairwise"] = "pairwise"
    family: Literal["auto", "pairrm", "pair_lm"] = Field(
        "auto", description="pairrm: LLM-Blender's DeBERTa; pair_lm: a chat model that answers with one of two tokens."
    )
    question: str | None = Field(
        None, description="What a pair_lm is asked, with {prompt}, {first} and {second}; None: RLHFlow's question."
    )
    answers: tuple[str, str] = Field(
        ("A", "B"), description="Tokens with which a pair_lm says that the first, or the second, is better."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        missing = [slot for slot in ("{prompt}", "{first}", "{second}") if slot not in (self.question or slot)]
        if missing:
            raise ValueError(f"{self.name}: question has no {missing[0]}; put it where that text goes")
        if self.family == "pairrm" and (self.question is not None or self.answers != ("A", "B")):
            raise ValueError(f"{self.name}: question and answers belong to family = 'pair_lm'; drop them")
        return self


class SimilarityReward(ModelRewardBase):
    """Cosine similarity of mean-pooled sentence embeddings of prompt and response."""

    type: Literal["similarity"] = "similarity"


EmbeddingMetric = Literal[
    "faithfulness_step",
    "faithfulness_token",
    "informativeness_step",
    "informativeness_chain",
    "repetition_token",
    "repetition_step",
]
ReferenceMetric = Literal[
    "reasoning_alignment",
    "hallucination",
    "redundancy",
    "common_sense_error",
    "missing_step",
    "semantic_coverage_step",
    "semantic_coverage_chain",
]
PerplexityMetric = Literal["perplexity_step", "perplexity_chain"]
EMBEDDING_METRICS: tuple[str, ...] = get_args(EmbeddingMetric)
REFERENCE_METRICS: tuple[str, ...] = get_args(ReferenceMetric)
PERPLEXITY_METRICS: tuple[str, ...] = get_args(PerplexityMetric)
MODEL_METRICS = (*EMBEDDING_METRICS, *REFERENCE_METRICS, *PERPLEXITY_METRICS)


class TextMetricReward(WeightsRewardBase):
    """A metric of the response's text: the ROSCOE suite (arXiv 2212.07919), or a cheap property."""

    type: Literal["text_metric"] = "text_metric"
    metric: Literal[
        EmbeddingMetric, ReferenceMetric, PerplexityMetric, "length", "format", "distinct_ngrams", "language"
    ] = Field(description="Which; docs/reward-models.md has a line on each.")
    model: Source | None = Field(
        None, description="Text encoder of a ROSCOE metric, or causal LM of a perplexity; as elsewhere."
    )
    reference_key: str = Field(
        "reference",
        description="Metadata of the prompt that holds the reference chain; where it has none, the gold answer. "
        "Metrics that need a reference have no opinion without one.",
    )
    unit: Literal["characters", "words", "tokens"] = Field("words", description="What length counts.")
    tokenizer: Source | None = Field(None, description="Tokenizer of unit = 'tokens': hub id or local folder.")
    prefer: Literal["longer", "shorter", "target"] = Field("longer", description="Which length is better.")
    target: PositiveInt | None = Field(None, description="Best length, for prefer = 'target'.")
    pattern: str | None = Field(None, description="Regular expression that format looks for, such as 'Final answer:'.")
    expect: Literal["present", "absent"] = Field(
        "present", description="Whether format requires the pattern or its absence."
    )
    ngram: PositiveInt = Field(3, description="Words of an n-gram of distinct_ngrams.")
    language: str | None = Field(None, description="ISO 639 code of the required language, such as 'en'.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field, metrics in _TEXT_METRIC_FIELDS.items():
            if self.metric not in metrics and getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"{self.name}: {field} does not concern metric = {self.metric!r}; drop it")
        needed = {"format": "pattern", "language": "language", **dict.fromkeys(MODEL_METRICS, "model")}
        field = needed.get(self.metric, "metric")
        if getattr(self, field) is None:
            raise ValueError(f"{self.name}: metric = {self.metric!r} needs {field}; set it")
        if (self.unit == "tokens") != (self.tokenizer is not None):
            raise ValueError(f"{self.name}: unit = 'tokens' and tokenizer go together; set both or neither")
        if (self.prefer == "target") != (self.target is not None):
            raise ValueError(f"{self.name}: prefer = 'target' and target go together; set both or neither")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"{self.name}: pattern {self.pattern!r} is not a regular expression ({error})") from error
        return self


_TEXT_METRIC_FIELDS = {
    **dict.fromkeys(("model", "device", "precision", "max_batch_tokens"), MODEL_METRICS),
    **dict.fromkeys(("revision", "trust_remote_code"), (*MODEL_METRICS, "length")),
    "reference_key": REFERENCE_METRICS,
    **dict.fromkeys(("unit", "tokenizer", "prefer", "target"), ("length",)),
    **dict.fromkeys(("pattern", "expect"), ("format",)),
    "ngram": ("distinct_ngrams",),
    "language": ("language",),
}
"""Which metrics each field concerns."""


Timeout = Annotated[
    float | None,
    Field(
        ge=0,
        le=1e6,
        description="Seconds that a call may take before it counts as failed. With a time limit the code runs in a "
        "thread, where signals, and so math-verify's own timeouts, do not work. None or 0: any time, in "
        "the main thread.",
    ),
]


class FunctionReward(RewardModelBase):
    """A Python function ``(prompts, responses) -> scores``."""

    type: Literal["function"] = "function"
    function: Function = Field(description="'path.py:function'; a relative path starts at the configuration file.")
    timeout: Timeout = None


class PythonReward(RewardModelBase):
    """A custom reward model with weights or state, from a Python factory ``() -> RewardModel``."""

    type: Literal["python"] = "python"
    factory: Factory
    timeout: Timeout = None


class ServerRewardBase(ServerSection, RewardModelBase):
    """What every reward model behind a server has."""


class HttpReward(ServerRewardBase):
    """A reward server: your own, OpenRLHF's, or vLLM's classification and pooling endpoints."""

    type: Literal["http"] = "http"
    format: Literal["scores", "openrlhf", "vllm_classify", "vllm_pooling"] = Field(
        "scores", description="What the server understands; docs/servers.md has the contracts."
    )
    path: ServerPath = Field(None, description="Path on the server, if not the usual one of the format.")
    model: str | None = Field(None, description="Model name sent along; vLLM needs the one it serves.")
    max_batch: PositiveInt = Field(64, description="Responses per request, for formats that take several.")


class JudgeReward(ChatSection, ServerRewardBase):
    """A chat model behind an OpenAI-compatible endpoint that rates responses against a rubric."""

    type: Literal["judge"] = "judge"
    model: str = Field(description="Name of the served model.")
    rubric: str | None = Field(
        None, description="What the judge is asked, with {prompt}, {response}, {low}, {high}; None: a general rubric."
    )
    scale: tuple[int, int] = Field((1, 5), description="Lowest and highest rating.")
    cache: LocalPath | None = Field(None, description="SQLite file that keeps replies by content; None: none is kept.")


class ServedLogLikelihoodReward(ServerRewardBase):
    """Log-likelihood of the response under a causal LM that a vLLM server holds."""

    type: Literal["vllm_loglik"] = "vllm_loglik"
    model: str = Field(description="Name of the served model.")
    tokenizer: Source = Field(description="The served model's tokenizer: hub id or local folder.")
    revision: str | None = Field(None, description="Hub revision of the tokenizer.")
    trust_remote_code: bool = Field(False, description="Run tokenizer code from the hub.")
    max_context: PositiveInt = Field(4096, description="Token limit of the served model; beyond it nothing is scored.")
    normalization: Literal["sum", "per_token"] = Field("sum", description="As in type = 'loglik'.")
    end_of_turn: bool = Field(True, description="As in type = 'loglik'.")
    template: Literal["chat", "plain"] = Field("chat", description="As in type = 'loglik'.")
    plain_format: str = Field("{prompt}\n", description="As in type = 'loglik'.")
    overflow: Overflow = "skip"


RewardModelConfig = Annotated[
    LogLikelihoodReward
    | ClassifierReward
    | PairwiseReward
    | SimilarityReward
    | TextMetricReward
    | FunctionReward
    | PythonReward
    | HttpReward
    | JudgeReward
    | ServedLogLikelihoodReward,
    Field(discriminator="type"),
]


class RewardsConfig(Section):
    """The pool of reward models; its order numbers the arms."""

    max_resident: PositiveInt = Field(
        1, description="Reward models kept on their device at once, least recently used out."
    )
    max_parked: int = Field(
        0, ge=0, description="Reward models that left the device and wait in CPU memory; the rest is read from disk."
    )
    max_failures: int = Field(
        3, ge=0, description="Failures in a row that put a reward model in quarantine; 0: the first one stops the run."
    )
    recovery_batches: PositiveInt = Field(
        20, description="Batches that a reward model stays in quarantine before it is tried again."
    )
    combine: Literal["raw", "zscore", "variation", "rank", "scaled", "agreement"] = Field(
        "raw",
        description="How an ensemble's scores become one: raw mean (paper); zscore: standardized within the prompt "
        "first, as in GDPO; variation: the same, weighted by each reward model's coefficient of variation in the batch "
        "(SAW); rank: ranked within the prompt first; scaled: divided by each reward model's own running spread, so "
        "that its unit does not matter; agreement: pair by pair by vote. "
        "A run whose selector uses one reward model at a time refuses it.",
    )
    candidate_pairs: PositiveInt = Field(
        100, description="Pairs drawn per prompt for combine = 'agreement' to choose from (paper: 100)."
    )
    models: tuple[RewardModelConfig, ...] = Field(description="The K reward models.")

    @model_validator(mode="after")
    def _usable_costs(self) -> RewardsConfig:
        names = {model.cost is None: repr(model.name) for model in self.models}
        if len(names) == 2:
            raise ValueError(f"{names[False]} has a cost and {names[True]} has none; give all of them one, or none")
        for model in self.models:
            if model.cost is not None and model.cost < 0:
                raise ValueError(
                    f"the cost of {model.name!r} is {model.cost:g}; give 0 or more, or no reward model a cost"
                )
        return self

    @model_validator(mode="after")
    def _spread_or_parked(self) -> RewardsConfig:
        if self.max_parked and any(isinstance(model, LogLikelihoodReward) and model.shard for model in self.models):
            raise ValueError(
                "a reward model with shard = true cannot be parked in CPU memory; set rewards.max_parked = 0"
            )
        return self

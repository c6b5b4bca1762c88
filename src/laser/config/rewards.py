"""The configuration of the pool: every kind of reward model, and how many are held where."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from laser.config.section import Device, Factory, PositiveInt, Section


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


class ModelRewardBase(RewardModelBase):
    """What every reward model with weights has."""

    model: str = Field(description="Hub id, local folder, .gguf file, or 'package:NAME'.")
    revision: str | None = Field(None, description="Hub revision (branch, tag or commit).")
    trust_remote_code: bool = Field(False, description="Run model code from the hub; off unless you trust the author.")
    device: Device = Field("auto", description="auto, cpu, mps, cuda or cuda:N.")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="Arithmetic of forward passes.")
    max_batch_tokens: PositiveInt = Field(8192, description="Budget of one forward pass, in tokens.")


class LogLikelihoodReward(ModelRewardBase):
    """Log-likelihood of the response under a causal LM (the paper's RMs)."""

    type: Literal["loglik"] = "loglik"
    normalization: Literal["sum", "per_token"] = Field(
        "sum", description="Sum of log-probs over response tokens (paper), or their mean."
    )
    reference: str | None = Field(
        None, description="Reference LM: the score becomes the implicit DPO reward log pi(y|x) - log pi_ref(y|x)."
    )
    end_of_turn: bool = Field(
        True, description="Score the token that ends the turn too, so that an answer must also be complete."
    )
    template: Literal["chat", "plain"] = Field(
        "chat", description="chat: the model's own chat template; plain: `plain_format`, for models without one."
    )
    plain_format: str = Field("{prompt}\n", description="Text before the response when template = 'plain'.")


class ClassifierReward(ModelRewardBase):
    """A sequence classifier over the conversation."""

    type: Literal["classifier"] = "classifier"
    label: str | None = Field(None, description="Class whose logit is the score; None: the single output.")
    template: Literal["chat", "pair"] = Field(
        "chat", description="chat: the model's chat template; pair: prompt and response as a sentence pair."
    )


class SimilarityReward(ModelRewardBase):
    """Cosine similarity of mean-pooled sentence embeddings of prompt and response."""

    type: Literal["similarity"] = "similarity"


class FunctionReward(RewardModelBase):
    """A Python function ``(prompts, responses) -> scores``."""

    type: Literal["function"] = "function"
    function: str = Field(description="'path.py:function'; a relative path starts at the configuration file.")
    timeout: float | None = Field(None, gt=0, description="Seconds a call may take; None: any time.")


class PythonReward(RewardModelBase):
    """A reward model of one's own with weights or state, from a Python factory ``() -> RewardModel``."""

    type: Literal["python"] = "python"
    factory: Factory


class ServerRewardBase(RewardModelBase):
    """What every reward model behind a server has."""

    url: str = Field(description="Address of the server, such as http://127.0.0.1:8000.")
    api_key_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable with the key; keys are never written into files.",
    )
    timeout: float = Field(60.0, gt=0, description="Seconds without a sign of the server before a try fails.")
    retries: int = Field(4, ge=0, description="Further tries after a failure, with exponential backoff.")
    concurrency: PositiveInt = Field(8, description="Requests under way at once.")


class HttpReward(ServerRewardBase):
    """A reward server: one's own, OpenRLHF's, or vLLM's classification and pooling endpoints."""

    type: Literal["http"] = "http"
    format: Literal["scores", "openrlhf", "vllm_classify", "vllm_pooling"] = Field(
        "scores", description="What the server understands; docs/servers.md has the contracts."
    )
    path: str | None = Field(None, description="Path on the server, if not the usual one of the format.")
    model: str | None = Field(None, description="Model name sent along; vLLM needs the one it serves.")
    max_batch: PositiveInt = Field(64, description="Responses per request, for formats that take several.")


class JudgeReward(ServerRewardBase):
    """A chat model behind an OpenAI-compatible endpoint that rates responses against a rubric."""

    type: Literal["judge"] = "judge"
    model: str = Field(description="Name of the served model.")
    rubric: str | None = Field(
        None, description="What the judge is asked, with {prompt}, {response}, {low}, {high}; None: a general rubric."
    )
    scale: tuple[int, int] = Field((1, 5), description="Lowest and highest rating.")
    use_logprobs: bool = Field(True, description="Expected rating over token probabilities, where the server has them.")
    cache: str | None = Field(None, description="SQLite file that keeps replies by content; None: none is kept.")


class ServedLogLikelihoodReward(ServerRewardBase):
    """Log-likelihood of the response under a causal LM that a vLLM server holds."""

    type: Literal["vllm_loglik"] = "vllm_loglik"
    model: str = Field(description="Name of the served model.")
    tokenizer: str = Field(description="The served model's tokenizer: hub id or local folder.")
    revision: str | None = Field(None, description="Hub revision of the tokenizer.")
    trust_remote_code: bool = Field(False, description="Run tokenizer code from the hub.")
    max_context: PositiveInt = Field(4096, description="Token limit of the served model; beyond it nothing is scored.")
    normalization: Literal["sum", "per_token"] = Field("sum", description="As in type = 'loglik'.")
    end_of_turn: bool = Field(True, description="As in type = 'loglik'.")
    template: Literal["chat", "plain"] = Field("chat", description="As in type = 'loglik'.")
    plain_format: str = Field("{prompt}\n", description="As in type = 'loglik'.")


RewardModelConfig = Annotated[
    LogLikelihoodReward
    | ClassifierReward
    | SimilarityReward
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
    combine: Literal["raw", "zscore", "rank", "agreement"] = Field(
        "raw",
        description="How an ensemble's scores become one: raw mean (paper), standardised or ranked first, or pair by "
        "pair by vote.",
    )
    candidate_pairs: PositiveInt = Field(
        100, description="Pairs drawn per prompt for combine = 'agreement' to choose from (paper: 100)."
    )
    models: tuple[RewardModelConfig, ...] = Field(description="The K reward models.")

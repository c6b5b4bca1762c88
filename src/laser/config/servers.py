"""The configuration of what is behind a server: how it is reached, and what a judge's requests have in them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from laser.config.section import IN_SECTION, Address, LocalPath, PositiveInt, Section


class AddressSection(Section):
    """Where a server is, or several that give the same answers, and how they are asked."""

    url: Address | None = Field(
        None, description="Address of the server, such as http://127.0.0.1:8000; this or `urls` is required."
    )
    urls: tuple[Address, ...] = Field(
        (),
        description="Addresses of several servers with the same model, in place of `url`. A request goes to the one "
        "with the fewest under way; one that fails is left out and tried again later.",
    )
    api_key_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable with the key; keys are never written into files.",
    )
    retries: int = Field(4, ge=0, description="Further tries after a failure, with exponential backoff.")

    @model_validator(mode="after")
    def _check_addresses(self) -> Self:
        if self.url is not None and self.urls:
            raise PydanticCustomError(IN_SECTION, "url and urls are both set; remove one of them")
        if self.url is None and not self.urls:
            raise PydanticCustomError(IN_SECTION, "'url' is missing; add it, or urls for several servers")
        if len({_server(url) for url in self.urls}) < len(self.urls):
            raise PydanticCustomError(IN_SECTION, "urls names a server twice; name each once")
        return self


def _server(url: str) -> tuple[str, str | None, int | None, str]:
    """What two addresses of the same server have in common."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/").removesuffix("/v1")


class ServerSection(AddressSection):
    """How a reward server or a judge is reached."""

    timeout: float = Field(
        60.0, gt=0, description="Seconds that one try may take, from the first packet to the last byte of the reply."
    )
    concurrency: PositiveInt = Field(8, description="Requests under way at once at each server.")
    requests_per_minute: float | None = Field(
        None, gt=0, description="Requests that start in a minute at each server at most, evenly spaced; None: no limit."
    )


class ServerConfig(AddressSection):
    """The vLLM server that samples when `generation.engine = "vllm"`, or several."""

    url: Address | None = Field("http://127.0.0.1:8000", description="Address of the server.")
    model: str = Field("policy", description="Name under which it has the policy's base weights.")
    adapter_folder: LocalPath | None = Field(
        None, description="Where adapters are written for it; it must see the same path. None: a temporary folder."
    )
    logp_tolerance: float = Field(
        0.1, gt=0, description="Mean difference per token, in nats, above which it serves other weights."
    )
    timeout: float = Field(600.0, gt=0, description="Seconds one prompt's responses may take.")
    concurrency: PositiveInt = Field(64, description="Prompts under way at once at each server, which batches them.")

    @model_validator(mode="before")
    @classmethod
    def _urls_replace_the_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("urls") and "url" not in data:
            return {**data, "url": None}
        return data


class ChatSection(Section):
    """What a judge's requests have in them besides the model and the question."""

    use_logprobs: bool = Field(
        True, description="Read the answer from token probabilities, where the server gives them."
    )
    max_tokens: PositiveInt | Literal["none"] = Field(
        8, description="Longest reply, in tokens; raise it for a model that thinks first. 'none': not sent."
    )
    max_completion_tokens: PositiveInt | None = Field(
        None, description="Sent instead of max_tokens, for models that refuse that name; None: not sent."
    )
    temperature: Annotated[float, Field(ge=0)] | Literal["none"] = Field(
        0.0, description="Sampling temperature; 'none': not sent, for models that refuse it."
    )
    reasoning_effort: str | None = Field(
        None, description="How long the model thinks, in the server's words, such as 'low'; None: not sent."
    )
    extra_body: dict[str, JsonValue] = Field(
        {}, description="Further fields of the request, such as {chat_template_kwargs = {enable_thinking = false}}."
    )
    tokens_per_minute: float | None = Field(
        None, gt=0, description="Tokens that each server bills in a minute at most; None: no limit."
    )

    @model_validator(mode="after")
    def _check_extra_body(self) -> Self:
        for name in self.extra_body:
            if name in ("model", "messages", "stream", "n"):
                raise ValueError(f"extra_body cannot have {name!r}, which the judge itself sets; remove it")
            if name in ("logprobs", "top_logprobs"):
                raise ValueError(f"extra_body cannot have {name!r}; set use_logprobs")
            if name in ("max_tokens", "max_completion_tokens", "temperature", "reasoning_effort"):
                raise ValueError(f"extra_body cannot have {name!r}; set the field {name} instead")
        return self

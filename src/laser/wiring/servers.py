"""Servers from configuration."""

from __future__ import annotations

from functools import partial
from typing import Any

from laser.config.judge import JudgeConfig
from laser.config.rewards import JudgeReward
from laser.config.servers import ChatSection, ServerConfig, ServerSection
from laser.serving.endpoint import Endpoint
from laser.serving.pace import Pace


def build_endpoint(section: ServerSection | ServerConfig) -> Endpoint:
    """Make the client of a section's servers; raises ServerError if an address or the key cannot be used."""
    requests_per_minute = section.requests_per_minute if isinstance(section, ServerSection) else None
    tokens_per_minute = section.tokens_per_minute if isinstance(section, JudgeReward | JudgeConfig) else None
    return Endpoint(
        *(section.urls or filter(None, [section.url])),
        api_key_env=section.api_key_env,
        timeout=section.timeout,
        retries=section.retries,
        concurrency=section.concurrency,
        pace=partial(Pace, requests_per_minute, tokens_per_minute),
    )


def request_fields(section: ChatSection) -> dict[str, Any]:
    """Fields of a judge's requests besides model, messages and log-probs."""
    fields: dict[str, Any] = {}
    if section.temperature != "none":
        fields["temperature"] = section.temperature
    if section.max_completion_tokens is not None:
        fields["max_completion_tokens"] = section.max_completion_tokens
    elif section.max_tokens != "none":
        fields["max_tokens"] = section.max_tokens
    if section.reasoning_effort is not None:
        fields["reasoning_effort"] = section.reasoning_effort
    return {**fields, **section.extra_body}

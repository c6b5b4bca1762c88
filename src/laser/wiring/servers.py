"""Servers from configuration."""

from __future__ import annotations

from typing import Any

from laser.config.schema import ServerConfig
from laser.config.servers import ChatSection, ServerSection
from laser.serving.endpoint import Endpoint
from laser.serving.pace import Pace


def build_endpoint(section: ServerSection | ServerConfig, *, tokens_per_minute: float | None = None) -> Endpoint:
    """Make the client of a server; raises ServerError if its address or key cannot be used."""
    requests_per_minute = section.requests_per_minute if isinstance(section, ServerSection) else None
    return Endpoint(
        section.url,
        api_key_env=section.api_key_env,
        timeout=section.timeout,
        retries=section.retries,
        concurrency=section.concurrency,
        pace=Pace(requests_per_minute, tokens_per_minute),
    )


def request_fields(section: ChatSection) -> dict[str, Any]:
    """Fields of a judge's requests besides model, messages and log-probs."""
    by_name: dict[str, Any] = {
        "temperature": section.temperature,
        "max_tokens": section.max_tokens if section.max_completion_tokens is None else "none",
    }
    if section.max_completion_tokens is not None:
        by_name["max_completion_tokens"] = section.max_completion_tokens
    if section.reasoning_effort is not None:
        by_name["reasoning_effort"] = section.reasoning_effort
    sent = {name: value for name, value in by_name.items() if name == "reasoning_effort" or value != "none"}
    return {**sent, **section.extra_body}

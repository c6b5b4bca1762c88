"""The configuration of a pairwise judge: a small TOML file of its own, or an address and a few settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from laser.config.load import Overrides, apply_override, override_strings, read_toml
from laser.config.section import Address, PositiveInt, Section
from laser.core.errors import ConfigError


class JudgeConfig(Section):
    """A chat model behind an OpenAI-compatible endpoint that compares two responses."""

    url: Address = Field(description="Address of the server, such as http://127.0.0.1:8000.")
    model: str = Field(description="Name of the served model.")
    api_key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable with the key."
    )
    timeout: float = Field(60.0, gt=0, description="Seconds without a sign of the server before a try fails.")
    retries: int = Field(4, ge=0, description="Further tries after a failure, with exponential backoff.")
    concurrency: PositiveInt = Field(8, description="Requests under way at once.")
    template: str | None = Field(
        None, description="What the judge is asked, with {prompt}, {first}, {second}; None: a general question."
    )
    use_logprobs: bool = Field(True, description="Preference from token probabilities, where the server has them.")
    max_tokens: PositiveInt = Field(8, description="Longest reply; raise it where the template lets the judge think.")
    cache: str | None = Field(
        None, description="SQLite file that keeps replies by content; None: beside the results, or none without --out."
    )


def load_judge(source: str | Path, overrides: Overrides = ()) -> JudgeConfig:
    """Read a judge's settings.

    Args:
        source: A TOML file whose relative paths start at its folder, or the address of a server.
        overrides: Strings ``key=value``.

    Raises:
        ConfigError: The file is missing or malformed, a key is unknown, or one is missing.
    """
    is_address = str(source).startswith(("http://", "https://"))
    table = {"url": str(source)} if is_address else read_toml(Path(source))
    base = Path() if is_address else Path(source).parent
    if isinstance(table.get("cache"), str):
        table["cache"] = str(base.resolve() / table["cache"])
    for override in override_strings(overrides):
        apply_override(table, override)
    try:
        return JudgeConfig.model_validate(table)
    except ValidationError as error:
        where = "--judge" if is_address else str(source)
        problems = "; ".join(_explain(item["type"], str(item["loc"][0]), item["msg"]) for item in error.errors())
        raise ConfigError(f"{where}: {problems}") from error


def _explain(kind: str, name: str, message: str) -> str:
    match kind:
        case "extra_forbidden":
            return f"unknown key {name!r}; known keys: {', '.join(JudgeConfig.model_fields)}"
        case "missing":
            return f"{name!r} is missing; add it, or give --judge-set {name}=..."
        case _:
            return f"{name}: {message[0].lower()}{message[1:]}"

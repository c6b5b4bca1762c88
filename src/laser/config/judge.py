"""The configuration of a pairwise judge: a small TOML file, or an address and a few settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from laser.config.load import Overrides, apply_override, override_strings, read_toml
from laser.config.paths import absolute_paths
from laser.config.section import LocalPath
from laser.config.servers import ChatSection, ServerSection
from laser.core.errors import ConfigError


class JudgeConfig(ChatSection, ServerSection):
    """A chat model behind an OpenAI-compatible endpoint that compares two responses."""

    model: str = Field(description="Name of the served model.")
    template: str | None = Field(
        None, description="What the judge is asked, with {prompt}, {first}, {second}; None: a general question."
    )
    cache: LocalPath | None = Field(
        None, description="SQLite file that keeps replies by content; None: next to the results, or none without --out."
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
    for override in override_strings(overrides):
        apply_override(table, override)
    try:
        return JudgeConfig.model_validate(absolute_paths(table, base.resolve(), JudgeConfig))
    except ValidationError as error:
        where = "--judge" if is_address else str(source)
        problems = "; ".join(_explain(item) for item in error.errors())
        raise ConfigError(f"{where}: {problems}") from error


def _explain(problem: ErrorDetails) -> str:
    name, message = ".".join(str(part) for part in problem["loc"][:1]), problem["msg"].removeprefix("Value error, ")
    match problem["type"]:
        case "extra_forbidden":
            return f"unknown key {name!r}; known keys: {', '.join(JudgeConfig.model_fields)}"
        case "missing":
            return f"{name!r} is missing; add it, or give --judge-set {name}=..."
        case _:
            return f"{name}: {message[0].lower()}{message[1:]}" if name else message

"""The configuration of a pairwise judge: a small TOML file, or an address and a few settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from laser.config.load import Overrides, apply_override, explain, override_strings, read_toml
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
        problems = "; ".join(explain(item, JudgeConfig) for item in error.errors())
        raise ConfigError(f"{where}: {problems}; --judge-set KEY=VALUE sets a field") from error

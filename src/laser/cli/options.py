"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from laser.core.errors import ConfigError

if TYPE_CHECKING:
    from laser.config import RunConfig

ConfigFile = Annotated[
    Path | None, typer.Argument(metavar="CONFIG", help="TOML configuration; default: the demo's.", show_default=False)
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML configuration; default: the demo's.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one field, e.g. training.iterations=3. Repeatable."),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Do what the configuration of a run directory from elsewhere says.")
]
RunOut = Annotated[
    Path | None, typer.Option(help="Run directory to create; default: a new folder under runs/.", show_default=False)
]
Resumed = Annotated[
    Path | None, typer.Option(help="Run directory to continue after an interruption.", show_default=False)
]
TrustResumed = Annotated[
    bool, typer.Option("--trust", help="With --resume: do what a run directory from elsewhere says it does.")
]


def given_config(
    config_path: Path | None, overrides: list[str], out: Path | None, resume_from: Path | None
) -> RunConfig | None:
    """The configuration asked for; None where a resumed run brings its own."""
    from laser.config import load_config

    if resume_from is None:
        return load_config(config_path, overrides)
    if out is not None:
        raise ConfigError("--resume continues in its own directory; drop --out")
    if config_path is None and overrides:
        raise ConfigError("--resume takes the configuration from the run directory; drop --set, or start a new run")
    return load_config(config_path, overrides) if config_path is not None else None


def refuse_without(needed: str, given: bool, options: Mapping[str, bool]) -> None:
    """An option that would do nothing is a misunderstanding."""
    for option, used in options.items():
        if used and not given:
            raise ConfigError(f"{option} does nothing without {needed}; drop it, or add {needed}")

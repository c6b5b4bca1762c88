"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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

"""``laser label``: run and print."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from laser.cli.environment import prepare
from laser.cli.options import ConfigFile, Overrides
from laser.cli.terminal import make_console


class Format(StrEnum):
    """File formats of a preference data set."""

    jsonl = "jsonl"
    parquet = "parquet"


def label(
    config: ConfigFile = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of the data set; an interrupted one is continued.")] = Path("pairs"),
    format: Annotated[Format, typer.Option(help="JSON Lines or Parquet.")] = Format.jsonl,
) -> None:
    """Write a preference data set for offline training: sample, select, score, pair; nothing is trained.

    Example: laser label run.toml --out pairs, then datasets.load_dataset("json", data_files="pairs/part-*")
    """
    prepare()
    from laser.cli.progress import LabelLines, make_progress
    from laser.config import load_config

    parsed = load_config(config, overrides or [])
    console = make_console()
    progress = make_progress(console, LabelLines)
    progress.note("loading libraries, models and prompts")
    from laser.commands import label as api

    try:
        report = api.label(parsed, out, format=format.value, progress=progress)
    finally:
        progress.close()
    decided = ", ".join(f"{name} {count}" for name, count in report.chosen.items())
    builder = "json" if format is Format.jsonl else format.value
    loading = f'datasets.load_dataset("{builder}", data_files="{report.path}/part-*.{format.value}")'
    for line in (
        f"{report.num_pairs} pairs of {report.num_prompts} prompts in {report.path}",
        f"decided by: {decided}",
        *report.sentences(),
        f"load with: {loading}",
    ):
        console.print(escape(line), soft_wrap=True)

"""``laser label``: run and print."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from laser.analysis.shown import visible
from laser.cli.environment import prepare
from laser.cli.options import ConfigFile, Overrides
from laser.cli.progress import LiveProgress, batch_cells
from laser.cli.terminal import make_console
from laser.training.findings import Findings


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
    from laser.config import load_config

    parsed = load_config(config, overrides or [])
    console = make_console()
    progress = LiveProgress(console) if console.is_terminal else LabelLines(console)
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


class LabelLines:
    """Progress of `laser label` as one line a batch, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0

    def started(self, *, iterations: int, batches_per_iteration: int, iteration: int, step: int) -> None:
        """Print the number of batches."""
        self._total = batches_per_iteration
        done = f", {step} of them done before" if step else ""
        self._say(f"labeling: {self._total} batches{done}")

    def phase(self, name: str, *, iteration: int, step: int) -> None:
        """Print nothing."""

    def tokens(self, count: int) -> None:
        """Print nothing."""

    def batch(self, record: Mapping[str, Any]) -> None:
        """Print the batch's line."""
        cells = batch_cells(record)
        self._say(
            f"batch {cells['batch']} of {self._total} [{cells['category']}] chosen={cells['chosen']} "
            f"pairs={cells['pairs']} seconds={cells['seconds']}"
        )

    def probe(self, findings: Findings) -> None:
        """Print a line a category."""
        for line in findings.lines():
            self._say(visible(line))

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Print nothing; labeling measures nothing."""

    def note(self, message: str) -> None:
        """Print a sentence."""
        self._say(visible(message))

    def close(self) -> None:
        """Do nothing."""

    def _say(self, line: str) -> None:
        self._console.print(escape(line), soft_wrap=True)

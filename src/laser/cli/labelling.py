"""``laser label`` and ``laser rewardbench``: run and print."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from laser.analysis.shown import visible
from laser.cli.environment import prepare
from laser.cli.progress import LiveProgress, batch_cells
from laser.cli.terminal import make_console
from laser.config import load_config
from laser.core.results import results_file, write_results

if TYPE_CHECKING:
    from laser.commands.rewardbench import BenchResult


class LabelLines:
    """Progress of `laser label` as one line a batch, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0

    def started(self, *, iterations: int, batches_per_iteration: int, iteration: int, step: int) -> None:
        """Print how much there is to do."""
        self._total = batches_per_iteration
        done = f", {step} of them done before" if step else ""
        self._say(f"labelling: {self._total} batches{done}")

    def phase(self, name: str, *, iteration: int, step: int) -> None:
        """Say nothing."""

    def tokens(self, count: int) -> None:
        """Say nothing."""

    def batch(self, record: Mapping[str, Any]) -> None:
        """Print the batch's line."""
        cells = batch_cells(record)
        self._say(
            f"batch {cells['batch']} of {self._total} [{cells['category']}] chosen={cells['chosen']} "
            f"pairs={cells['pairs']} seconds={cells['seconds']}"
        )

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Say nothing; nothing is measured."""

    def note(self, message: str) -> None:
        """Print a sentence."""
        self._say(visible(message))

    def close(self) -> None:
        """Nothing to stop."""

    def _say(self, line: str) -> None:
        self._console.print(escape(line), soft_wrap=True)


def run_label(config_path: Path | None, overrides: list[str], out: Path, format: Literal["jsonl", "parquet"]) -> None:
    """Write a preference data set and say what is in it. Raises LaserError."""
    prepare()
    config = load_config(config_path, overrides)
    console = make_console()
    progress = LiveProgress(console) if console.is_terminal else LabelLines(console)
    progress.note("loading libraries, models and prompts")
    from laser.commands.label import label

    try:
        report = label(config, out, format=format, progress=progress)
    finally:
        progress.close()
    decided = ", ".join(f"{name} {count}" for name, count in report.chosen.items())
    loading = f'datasets.load_dataset("{_builder(format)}", data_files="{report.path}/part-*.{format}")'
    for line in (
        f"{report.num_pairs} pairs of {report.num_prompts} prompts in {report.path}",
        f"decided by: {decided}",
        *report.sentences(),
        f"load with: {loading}",
    ):
        console.print(escape(line), soft_wrap=True)


def run_rewardbench(
    config_path: Path | None,
    overrides: list[str],
    pairs: list[Path],
    out: Path | None,
    *,
    select: bool,
    learn: float,
) -> None:
    """Measure a pool on preference sets and print the tables. Raises LaserError."""
    prepare()
    results = results_file(out, inputs=[*pairs, config_path])
    config = load_config(config_path, overrides)
    from laser.commands.rewardbench import rewardbench

    result = rewardbench(config, pairs, select=select, learn=learn)
    console = make_console()
    console.print(_accuracy_table(result))
    console.print(_agreement_table(result))
    for category, shares in result.chosen.items():
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        console.print(f"chosen for {escape(category)}: {escape(listed)}")
    for name, reason in result.failed.items():
        console.print(f"left out: {escape(name)}: {escape(reason)}", soft_wrap=True)
    for name in result.silent:
        console.print(f"{escape(name)} gave no score", soft_wrap=True)
    if results is not None:
        write_results(results, result.as_record())
        console.print(f"written: {escape(str(results))}", soft_wrap=True)


def _builder(format: str) -> str:
    return "json" if format == "jsonl" else format


def _accuracy_table(result: BenchResult) -> Table:
    table = Table("reward model", "accuracy", "95% interval", *map(escape, result.counts), "unscored", "too long")
    table.title = f"Pairs ordered rightly, of {result.num_pairs}"
    for name, value in sorted(result.accuracy.items(), key=lambda item: -item[1]):
        low, high = result.interval[name]
        numbers = [f"{value:.3f}", f"{low:.3f} to {high:.3f}"]
        numbers += [f"{result.by_category[name][category]:.2f}" for category in result.counts]
        left_out = (str(counts.get(name, "-")) for counts in (result.unscored, result.too_long))
        table.add_row(escape(name), *(["-"] * len(numbers) if name in result.silent else numbers), *left_out)
    return table


def _agreement_table(result: BenchResult) -> Table:
    names = list(result.agreement)
    table = Table("", *map(escape, names), title="Agreement of verdicts (macro F1)")
    for name in names:
        values = (result.agreement[name][other] for other in names)
        table.add_row(escape(name), *("-" if math.isnan(value) else f"{value:.2f}" for value in values))
    return table

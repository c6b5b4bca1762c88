"""``laser label`` and ``laser rewardbench``: run and print."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.markup import escape
from rich.table import Table

from laser.cli.environment import ENVIRONMENT
from laser.cli.progress import make_progress
from laser.cli.terminal import make_console
from laser.config import load_config

if TYPE_CHECKING:
    from laser.rewardbench import BenchResult


def run_label(config_path: Path | None, overrides: list[str], out: Path, format: Literal["jsonl", "parquet"]) -> None:
    """Write a preference data set and say what is in it. Raises LaserError."""
    _prepare()
    config = load_config(config_path, overrides)
    console = make_console()
    progress = make_progress(console)
    progress.note("loading libraries, models and prompts")
    from laser.labelling import label

    try:
        report = label(config, out, format=format, progress=progress)
    finally:
        progress.close()
    decided = ", ".join(f"{name} {count}" for name, count in report.chosen.items())
    console.print(f"{report.num_pairs} pairs of {report.num_prompts} prompts in {escape(str(report.path))}")
    console.print(f"decided by: {escape(decided)}")
    console.print(f'load with: datasets.load_dataset("{_builder(format)}", data_files="{report.path}/part-*.{format}")')


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
    _prepare()
    config = load_config(config_path, overrides)
    from laser.rewardbench import rewardbench

    result = rewardbench(config, pairs, select=select, learn=learn)
    console = make_console()
    console.print(_accuracy_table(result))
    console.print(_agreement_table(result))
    for category, shares in result.chosen.items():
        listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        console.print(f"chosen for {escape(category)}: {escape(listed)}")
    for name, reason in result.failed.items():
        console.print(f"left out: {escape(name)}: {escape(reason)}")
    if out is not None:
        out.write_text(json.dumps(result.as_record(), indent=2) + "\n", encoding="utf-8")
        console.print(f"written: {escape(str(out))}")


def _prepare() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _builder(format: str) -> str:
    return "json" if format == "jsonl" else format


def _accuracy_table(result: BenchResult) -> Table:
    table = Table("reward model", "accuracy", "95% interval", *map(escape, result.counts), "unscored")
    table.title = f"Pairs ordered rightly, of {result.num_pairs}"
    for name, value in sorted(result.accuracy.items(), key=lambda item: -item[1]):
        low, high = result.interval[name]
        cells = (f"{result.by_category[name][category]:.2f}" for category in result.counts)
        unscored = str(result.unscored.get(name, "-"))
        table.add_row(escape(name), f"{value:.3f}", f"{low:.3f} to {high:.3f}", *cells, unscored)
    return table


def _agreement_table(result: BenchResult) -> Table:
    names = list(result.agreement)
    table = Table("", *map(escape, names), title="Agreement of verdicts (macro F1)")
    for name in names:
        table.add_row(escape(name), *(f"{result.agreement[name][other]:.2f}" for other in names))
    return table

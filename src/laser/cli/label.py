"""``laser label``: run and print."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from laser.cli.environment import prepare
from laser.cli.options import ConfigFile, Overrides, refuse_without
from laser.cli.terminal import make_console


class Engine(StrEnum):
    """What carries a labeling job out."""

    local = "local"
    ray = "ray"


class Format(StrEnum):
    """File formats of a preference data set."""

    jsonl = "jsonl"
    parquet = "parquet"


def label(
    config: ConfigFile = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of the data set; an interrupted one is continued.")] = Path("pairs"),
    format: Annotated[Format, typer.Option(help="JSON Lines or Parquet.")] = Format.jsonl,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only slice I of N, by a hash of the prompt's id; shards may share --out."),
    ] = None,
    engine: Annotated[Engine, typer.Option(help="This process, or the Ray cluster at RAY_ADDRESS.")] = Engine.local,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="With --engine ray: most actors of the policy, and of each reward model."),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(min=0, help="With --engine ray: GPUs of an actor with a model, also a fraction; default: 1."),
    ] = None,
) -> None:
    """Write a preference data set for offline training: sample, select, score, pair; nothing is trained.

    Example: laser label run.toml --out pairs, then datasets.load_dataset("json", data_files="pairs/part-*")
    """
    prepare()
    from laser.cli.progress import LabelLines, make_progress
    from laser.config import load_config

    on_ray = engine is Engine.ray
    refuse_without("--engine ray", on_ray, {"--workers": workers is not None, "--gpus": gpus is not None})
    parsed = load_config(config, overrides or [])
    console = make_console()
    progress = make_progress(console, LabelLines)
    progress.note("loading libraries, models and prompts")
    from laser.commands.label import label as label_here
    from laser.integrations.ray import label_with_ray

    run = partial(label_with_ray, workers=workers, gpus=gpus) if on_ray else label_here
    try:
        report = run(parsed, out, format=format.value, shard=shard, progress=progress)
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

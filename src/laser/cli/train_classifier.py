"""``laser train-classifier``: train, say how good it is and how to use it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from laser.cli.environment import prepare
from laser.cli.options import ConfigOption, Overrides
from laser.cli.terminal import make_console


def train_classifier(
    pairs: Annotated[
        Path,
        typer.Argument(help="Pairs (.jsonl or .parquet) of prompt, chosen, rejected.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder to create.", show_default=False)],
    config: ConfigOption = None,
    overrides: Overrides = None,
    standardize: Annotated[
        bool, typer.Option("--standardize", help="Compare score differences in each model's own deviations.")
    ] = False,
) -> None:
    """Learn offline which reward model judges which query best: the classifier baseline, and BayesianRouter's prior.

    Example: laser train-classifier pairs.jsonl --config run.toml --out router, then selector = {type = "classifier",
    path = "router"}
    """
    prepare()
    from laser.commands import train_classifier as api
    from laser.config import load_config

    console = make_console()
    report = api.train_classifier(load_config(config, overrides or []), pairs, out, standardize=standardize)
    for name, count in report.labels.items():
        share = report.pair_accuracy[name]
        console.print(f"{name}: best judge of {count} queries, orders {share:.0%} of all pairs rightly", markup=False)
    if report.num_unlabelled:
        console.print(f"left out: {report.num_unlabelled} pairs that no reward model orders rightly")
    console.print(f"held-out accuracy {report.accuracy:.1%}; always the most frequent label: {report.majority:.1%}")
    console.print(f"saved: {out}   (selector.type = classifier, selector.path = {out})", markup=False)

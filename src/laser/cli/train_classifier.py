"""``laser train-classifier``: train, and print how good the classifier is and how to use it."""

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
        typer.Argument(help="File of prompt, chosen, rejected.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder to create.", show_default=False)],
    config: ConfigOption = None,
    overrides: Overrides = None,
    standardize: Annotated[
        bool, typer.Option("--standardize", help="Divide score differences by each model's standard deviation.")
    ] = False,
) -> None:
    """Learn offline which reward model is best for which query: the classifier baseline, and BayesianRouter's prior.

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
        console.print(f"{name}: best for {count} queries, accuracy on all pairs {share:.0%}", markup=False)
    if report.num_unlabeled:
        console.print(f"left out: {report.num_unlabeled} pairs on which no reward model is correct")
    console.print(f"held-out accuracy {report.accuracy:.1%}; of the most frequent label alone: {report.majority:.1%}")
    console.print(f"saved: {out}   (selector.type = classifier, selector.path = {out})", markup=False)

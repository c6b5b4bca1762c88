"""``laser train-classifier``: train, say how good it is and how to use it."""

from __future__ import annotations

from pathlib import Path

from laser.cli.environment import prepare
from laser.cli.terminal import make_console
from laser.config import load_config


def run_train_classifier(
    pairs: Path, out: Path, config: Path | None, overrides: list[str], *, standardize: bool
) -> None:
    """Train the classifier and BayesianRouter's prior.

    Raises:
        LaserError: The pairs, models or folder cannot be used.
    """
    prepare()
    from laser.commands.train_classifier import train_classifier

    console = make_console()
    report = train_classifier(load_config(config, overrides), pairs, out, standardize=standardize)
    for name, count in report.labels.items():
        share = report.pair_accuracy[name]
        console.print(f"{name}: best judge of {count} queries, orders {share:.0%} of all pairs rightly", markup=False)
    if report.num_unlabelled:
        console.print(f"left out: {report.num_unlabelled} pairs that no reward model orders rightly")
    console.print(f"held-out accuracy {report.accuracy:.1%}; always the most frequent label: {report.majority:.1%}")
    console.print(f"saved: {out}   (selector.type = classifier, selector.path = {out})", markup=False)

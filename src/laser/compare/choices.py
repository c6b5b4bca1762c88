"""How good the choices of a finished run were, by an oracle that knows the pair accuracy of every reward model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from laser.analysis.records import read_run
from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.files import read_json

PairAccuracy = Mapping[str, Mapping[str, float]]
"""By category and reward model."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Means over the prompts of a run.

    Attributes:
        best: Share of prompts whose heaviest reward model has the highest pair accuracy in their category.
        regret: Highest pair accuracy in the prompt's category minus the pair accuracy of the chosen reward models.
    """

    best: float
    regret: float


def load_oracle(path: Path) -> dict[str, PairAccuracy]:
    """Return the pair accuracy by task, category and reward model.

    Raises:
        ConfigError: The file does not exist, or is not such a table.
    """
    try:
        oracle = read_json(path)
    except RunDirectoryError as error:
        raise ConfigError(f"oracle: {path} cannot be read; laser lab build writes the laboratory's") from error
    leaves = [
        value
        for task in oracle.values()
        for category in (task.values() if isinstance(task, dict) else [None])
        for value in (category.values() if isinstance(category, dict) else [None])
    ]
    if not all(isinstance(value, int | float) for value in leaves):
        raise ConfigError(f"oracle: {path} does not hold numbers by task, category and reward model; write it so")
    return oracle


def best_reward_model(oracle: PairAccuracy) -> str:
    """Return the reward model with the highest pair accuracy, averaged over categories; the first of several."""
    names = list(next(iter(oracle.values())))
    return max(names, key=lambda name: float(np.mean([of_category[name] for of_category in oracle.values()])))


def read_choices(run: Path, names: Sequence[str], oracle: PairAccuracy) -> Choices | None:
    """Judge the choices of a finished run.

    Returns:
        The means; None where the oracle lacks a reward model or a category of the run, or nothing was chosen.

    Raises:
        RunDirectoryError: A record of the run is damaged.
    """
    counts, best, regret = [], [], []
    for weights_K, category, count in _selections(run):
        of_category = oracle.get(category, {})
        if not all(name in of_category for name in names):
            return None
        accuracy_K = np.array([of_category[name] for name in names])
        counts.append(count)
        best.append(int(np.argmax(weights_K)) == int(accuracy_K.argmax()))
        regret.append(float(accuracy_K.max() - np.array(weights_K) @ accuracy_K))
    if not counts:
        return None
    return Choices(float(np.average(best, weights=counts)), float(np.average(regret, weights=counts)))


def _selections(path: Path) -> Iterator[tuple[Sequence[float], str, int]]:
    """Weights, category and number of prompts of every row of every selection, split by category."""
    run = read_run(path)
    for damage in run.damage:
        if damage.file == "steps.jsonl":
            raise RunDirectoryError(
                f"{path / damage.file} line {damage.line} is damaged ({damage.why}); restore the file or delete the run"
            )
    for step in run.steps:
        for weights_K, categories in zip(step["selection"]["weights"], step["selection"]["categories"], strict=True):
            for category, count in categories.items():
                yield weights_K, category, count

"""The cost of runs ahead: batches, responses and RM calls, and time by the pace of finished runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from laser.analysis.records import is_finished, read_summary
from laser.compare.cells import Cell, Key
from laser.config import RunConfig

_ENSEMBLES = ("ensemble", "online_ensemble")


@dataclass(frozen=True, slots=True)
class Cost:
    """Upper bounds: a run may converge earlier, and equal responses make fewer pairs.

    Attributes:
        batches: Batches of all iterations.
        responses: Responses sampled.
        calls: Responses scored, once per reward model.
    """

    batches: int
    responses: int
    calls: int


def estimate_cost(config: RunConfig) -> Cost | None:
    """Return bounds of a training run; None if the configuration does not give the number of prompts."""
    training, num = config.training, config.generation.num_responses
    batches = training.batches_per_iteration
    if batches is None:
        if config.split.train is None:
            return None
        batches = math.ceil(config.split.train / training.batch_size)
    batches *= training.iterations
    prompts = batches * training.batch_size
    pairs = config.rewards.candidate_pairs if config.rewards.combine == "agreement" else training.pairs_per_prompt
    asked = len(config.rewards.models) if config.selector.type in _ENSEMBLES else 1
    return Cost(batches, prompts * num, prompts * min(2 * pairs, num) * asked)


def estimate_best_of_n(config: RunConfig) -> Cost | None:
    """Return bounds of a best-of-n comparison, whose methods share all scores."""
    if config.split.train is None:
        return None
    responses = (config.split.train + config.split.test) * config.generation.num_responses
    batches = math.ceil(config.split.train / config.training.batch_size) * config.best_of_n.epochs
    return Cost(batches, responses, responses * len(config.rewards.models))


def seconds_left(cells: Sequence[Cell], out: Path) -> dict[Key, float]:
    """Estimate the seconds that unfinished training runs still need, by the pace of finished ones.

    Returns:
        For each unfinished cell of whose method, or at least task, a run is finished: its batches times the mean
        seconds of one of theirs.
    """
    paces: dict[tuple[str, str | None], list[float]] = {}
    unfinished = []
    for cell in cells:
        folder = cell.key.folder(out)
        if not is_finished(folder):
            unfinished.append(cell)
            continue
        summary = read_summary(folder)
        if summary["num_batches"]:
            pace = sum(summary["seconds"].values()) / summary["num_batches"]
            for which in (cell.key.method, None):
                paces.setdefault((cell.key.task, which), []).append(pace)
    left = {}
    for cell in unfinished:
        known = paces.get((cell.key.task, cell.key.method)) or paces.get((cell.key.task, None))
        cost = estimate_cost(cell.config)
        if known and cost is not None:
            left[cell.key] = fmean(known) * (cost.batches - _batches_done(cell.key.folder(out)))
    return left


def _batches_done(folder: Path) -> int:
    steps = folder / "steps.jsonl"
    return steps.read_bytes().count(b"\n") if steps.is_file() else 0

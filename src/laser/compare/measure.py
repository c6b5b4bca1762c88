"""The metric of a trained policy on test prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from laser.build import build_evaluation, build_generator, build_policy, build_splits
from laser.config import RunConfig
from laser.errors import DataError, RunDirectoryError
from laser.statefiles import load_state
from laser.training.checkpoint import newest_checkpoint


def measure_test(config: RunConfig, run: Path, *, base: bool) -> dict[str, Any]:
    """Measure a finished run's policy.

    Args:
        config: Policy, test prompts and how answers are read.
        run: The run directory.
        base: Measure the policy before training too.

    Returns:
        The record of its accuracy, and with `base` also ``before``, the accuracy before training.

    Raises:
        LaserError: There are no test prompts with gold answers, or the run has no checkpoint.
    """
    policy = build_policy(config)
    prompts = build_splits(config).test
    evaluate = build_evaluation(config, build_generator(config.generation, policy), prompts)
    if evaluate is None:
        raise DataError("there are no test prompts with gold answers; set split.test and data.answer_field")
    folder = newest_checkpoint(run / "checkpoints")
    if folder is None or not (folder / "policy.json").is_file():
        raise RunDirectoryError(
            f"{run} holds no weights of its policy (keep = 'results' drops them after the measurement the suite asked "
            "for), so it cannot be measured; remove its folder to train it again"
        )
    before = {"before": evaluate().overall} if base else {}
    policy.load_state_dict(load_state(folder / "policy"))
    return {**evaluate().as_record(), **before}

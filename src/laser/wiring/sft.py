"""What `laser sft` works with, from configuration."""

from __future__ import annotations

import os
from collections.abc import Callable

from laser.config import schema
from laser.core.errors import DataError
from laser.parallel.ranks import Ranks
from laser.training.loop import Evaluate
from laser.training.sft import SftParts, make_targets
from laser.wiring import build_evaluation, build_generator, build_learner, build_policy, build_splits, check_dev
from laser.wiring.accelerate import as_launched
from laser.wiring.fitting import fit_prompts


def build_sft(
    config: schema.RunConfig, *, on_tokens: Callable[[int], None], ranks: Ranks
) -> tuple[SftParts, Evaluate | None]:
    """Load data and policy for supervised fine-tuning; no reward model is loaded.

    Returns:
        The parts, and what measures the dev metric; None where there is none to measure.

    Raises:
        LaserError: Something named in the configuration is missing or cannot be used, or there is nothing to train on.
    """
    config = as_launched(config, os.environ)
    splits = build_splits(config)
    check_dev(splits.dev)
    if not splits.train:
        raise DataError("there are no training prompts; set split.train, or lower split.dev and split.test")
    policy = build_policy(config, ranks)
    prompts, targets = make_targets(
        policy,
        splits.train,
        whole=config.evaluation.answer == "whole",
        cut=config.policy.overlong == "cut_middle",
    )
    generator = build_generator(config.generation, policy, on_tokens, ranks)
    longest = config.evaluation.max_new_tokens or config.generation.max_new_tokens
    dev = fit_prompts(config, policy, splits.dev, longest).prompts
    training = config.training.model_copy(
        update={"loss": "nll", "learning_rate": config.sft.learning_rate, "epochs": 1, "optimizer_steps": 1}
    )
    parts = SftParts(
        policy=policy,
        learner=build_learner(training, policy, ranks),
        prompts=prompts,
        targets=targets,
        num_without=len(splits.train) - len(prompts),
        ranks=ranks,
    )
    return parts, build_evaluation(config, generator, dev)

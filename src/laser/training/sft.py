"""Supervised fine-tuning on gold answers: the model that the paper's preference training starts from (its row SFT).

The learner, records, checkpoints and dev checks are those of Algorithm 1; a batch is prompts with one target each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from laser.config.schema import RunConfig, SftConfig
from laser.core.errors import DataError, StoppedError
from laser.core.types import Pair, Prompt, Response
from laser.data.batches import batches
from laser.lm.chat import encode_text, end_of_turn
from laser.parallel.ranks import Alone, Ranks
from laser.policy.fitting import cut_middle
from laser.policy.policy import Policy
from laser.training.checkpoint import Cursor, Stateful
from laser.training.learner import Learner
from laser.training.loop import Evaluate, Stop, measure_dev, restore, save
from laser.training.progress import PhaseClock, Progress
from laser.training.run_directory import RunDirectory

LOSSES = "losses"
"""Name of the file with a record a batch."""


@dataclass(frozen=True, slots=True)
class SftParts:
    """What fine-tuning works with.

    Attributes:
        policy: The policy.
        learner: Its optimizer, with the NLL.
        prompts: The training prompts that have a target.
        targets: The target of each.
        num_without: Training prompts left out because they have neither a gold answer nor a solution.
        ranks: The processes of the run.
    """

    policy: Policy
    learner: Learner
    prompts: Sequence[Prompt]
    targets: Sequence[Response]
    num_without: int
    ranks: Ranks = field(default_factory=Alone)


def target_text(prompt: Prompt, *, whole: bool) -> str | None:
    """The text that a policy is trained to answer a prompt with; None if the prompt has neither answer nor solution.

    It is the solution (`metadata["solution"]`), then a line "Final answer: ..." with the gold answer, the first where
    there are several; each alone where the other is missing.

    Args:
        prompt: The prompt.
        whole: A response as a whole is the answer (`evaluation.answer = "whole"`): the target is the gold answer alone.
    """
    if whole and prompt.answer is not None:
        return prompt.answer
    solution = str(prompt.metadata.get("solution") or "").strip()
    line = f"Final answer: {prompt.answer}" if prompt.answer is not None else ""
    return "\n".join(filter(None, (solution, line))) or None


def make_targets(
    policy: Policy, prompts: Sequence[Prompt], *, whole: bool, cut: bool
) -> tuple[list[Prompt], list[Response]]:
    """The prompts that have a target, and the target of each as a response that ends its turn.

    Args:
        policy: Gives the tokenizer, chat template and window.
        prompts: Training prompts.
        whole: See `target_text`.
        cut: Cut the middle out of a prompt that does not fit with its target; else refuse it.

    Raises:
        DataError: No prompt has a target, or one does not fit with it.
    """
    ending = end_of_turn(policy.tokenizer)
    kept, targets = [], []
    for prompt in prompts:
        text = target_text(prompt, whole=whole)
        if text is None:
            continue
        ids = (*encode_text(policy.tokenizer, text), *([] if ending is None else [ending]))
        fitted = cut_middle(policy, [prompt], len(ids)).prompts[0] if cut else prompt
        length = len(policy.encode([fitted])[0]) + len(ids)
        if length > policy.context_length:
            raise DataError(
                f"prompt {prompt.id!r} and its target have {length} tokens, more than the context of "
                f"{policy.context_length}; shorten or drop it"
            )
        kept.append(fitted)
        targets.append(Response(ids, text, (), True))
    if not kept:
        raise DataError(
            f"none of the {len(prompts)} training prompts has a gold answer or a solution to train on; set "
            "data.answer_field to the field with the answers, or add a field 'solution'"
        )
    return kept, targets


def train_on_targets(
    parts: SftParts,
    config: RunConfig,
    run: RunDirectory,
    progress: Progress,
    evaluate: Evaluate | None,
    stop: Stop = lambda: False,
) -> Cursor:
    """Train the policy on the targets, from the run directory's newest checkpoint if it has one.

    Args:
        parts: Policy, learner and data.
        config: The run; `sft` says how long, in batches of which size.
        run: Gets records and checkpoints.
        progress: Observes the run.
        evaluate: Measures the dev metric before training and after every epoch; None: no dev checks.
        stop: Called after every batch; when it returns True, the run is saved and ends.

    Returns:
        The final cursor.

    Raises:
        StoppedError: `stop` returned True.
    """
    state: dict[str, Stateful] = {"policy": parts.policy, "optimizer": parts.learner}
    cursor = restore(run, state, progress, LOSSES)
    drawn = draw_epoch(config.sft, parts.prompts, config.seed, cursor.iteration)
    progress.started(
        iterations=config.sft.epochs, batches_per_iteration=len(drawn), iteration=cursor.iteration, step=cursor.step
    )
    if evaluate is not None and cursor.num_evaluations == 0:
        cursor = measure_dev(evaluate, config, cursor, run, progress)
        save(run, state, cursor, config, progress, LOSSES)
    while not cursor.finished:
        drawn = draw_epoch(config.sft, parts.prompts, config.seed, cursor.iteration)
        while cursor.step < len(drawn):
            record = _run_batch(parts, drawn[cursor.step], cursor, progress)
            run.append(LOSSES, record)
            progress.batch(record)
            cursor = cursor.after_batch()
            stopping = parts.ranks.broadcast(stop())
            if stopping or (cursor.step % config.checkpoint.every == 0 and cursor.step < len(drawn)):
                save(run, state, cursor, config, progress, LOSSES)
            if stopping:
                raise StoppedError(f"stopped after {cursor.num_records} batches, all saved; resume {run.path}")
        cursor = cursor.after_iteration()
        if evaluate is not None:
            cursor = measure_dev(evaluate, config, cursor, run, progress)
        cursor = replace(cursor, finished=cursor.iteration == config.sft.epochs)
        save(run, state, cursor, config, progress, LOSSES)
    return cursor


def draw_epoch(section: SftConfig, prompts: Sequence[Prompt], seed: int, epoch: int) -> list[list[int]]:
    """The batches of an epoch, as indices into the prompts: one pass in an order that depends on (seed, epoch)."""
    return batches(
        prompts, batch_size=section.batch_size, num_batches=None, batching="shuffled", seed=seed, iteration=epoch
    )


def _run_batch(parts: SftParts, rows: Sequence[int], cursor: Cursor, progress: Progress) -> dict[str, Any]:
    """Train on one batch and return its record; the loss is a mean over targets, in nats per token."""
    clock = PhaseClock(progress, iteration=cursor.iteration, step=cursor.step)
    prompts = [parts.prompts[row] for row in rows]
    with clock("train"):
        # A pair of a target with itself: the NLL reads the chosen response alone.
        learned = parts.learner.learn(
            parts.policy.encode(prompts),
            [[parts.targets[row]] for row in rows],
            [Pair(row, 0, 0, 0.0, 0.0) for row in range(len(rows))],
        )
    return {
        "iteration": cursor.iteration,
        "step": cursor.step,
        "targets": len(rows),
        "loss": float(np.mean(learned.losses_B)),
        "grad_norm": learned.grad_norm,
        "tokens": {"trained": learned.num_tokens},
        "seconds": clock.seconds,
    }

"""Algorithm 1 of arXiv 2410.01735: iterations, batches, dev checks, checkpoints. Start here; `batch.py` is one batch.

The paper trains M iterations of T batches; the reference pi_{m-1} is the policy at the start of iteration m. The loop
here also resumes: it starts at a cursor, and everything it needs is in the last checkpoint or a function of
(seed, iteration, step).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from laser.config import RunConfig
from laser.core.errors import StoppedError
from laser.core.types import Batch, Prompt
from laser.data.batches import batches
from laser.evaluation.accuracy import Accuracy
from laser.training.batch import Parts, run_batch, sample
from laser.training.checkpoint import Cursor, Stateful, load_checkpoint, save_checkpoint
from laser.training.pending import PendingResponses, Replies
from laser.training.progress import PhaseClock, Progress
from laser.training.run_directory import RunDirectory

Evaluate = Callable[[], Accuracy]
Stop = Callable[[], bool]


def train(
    parts: Parts,
    config: RunConfig,
    prompts: Sequence[Prompt],
    run: RunDirectory,
    progress: Progress,
    evaluate: Evaluate | None,
    stop: Stop = lambda: False,
) -> Cursor:
    """Train the policy, from the run directory's newest checkpoint if it has one.

    Source: arXiv 2410.01735, Algorithm 1. Deviations: resumption, and a stopping rule that waits for several checks.

    Args:
        parts: Policy, generator, reward models, bandit, learner.
        config: The run.
        prompts: The training prompts D.
        run: Gets records and checkpoints.
        progress: Observes the run.
        evaluate: Measures the dev metric; None trains without dev checks.
        stop: Called before and after every batch; when it returns True, the run is saved and ends.

    Returns:
        The final cursor.

    Raises:
        StoppedError: `stop` returned True.
    """
    training, state = config.training, _stateful(parts)
    cursor = restore(run, state, progress)
    progress.started(
        iterations=training.iterations,
        batches_per_iteration=len(draw_batches(config, prompts, cursor.iteration)),
        iteration=cursor.iteration,
        step=cursor.step,
    )
    if evaluate is not None and cursor.num_evaluations == 0:
        cursor = measure_dev(evaluate, config, cursor, run, progress)
        save(run, state, cursor, config, progress)
    if parts.ranks.broadcast(stop()):
        raise StoppedError(f"stopped before the next batch; resume {run.path}")
    while not cursor.finished and cursor.iteration < training.iterations:  # for iteration m = 1..M
        drawn = draw_batches(config, prompts, cursor.iteration)
        if cursor.step == 0 and training.reference == "previous_iteration":
            parts.policy.update_reference()  # pi_{m-1}
        replies = _sample_iteration(parts, config, prompts, drawn, cursor, run, progress)
        while cursor.step < len(drawn):  # for batch t = 1..T
            batch = _batch(prompts, drawn, cursor.iteration, cursor.step)
            clock = PhaseClock(progress, iteration=cursor.iteration, step=cursor.step)
            parts.pool.at.move(cursor.iteration, cursor.step, cursor.num_records, training.iterations * len(drawn))
            record = run_batch(parts, config, batch, clock, None if replies is None else replies[cursor.step])
            run.append("steps", record)
            progress.batch(record)
            _report_reward_models(record, parts, progress)
            cursor = cursor.after_batch()
            stopping = parts.ranks.broadcast(stop())
            if stopping or (cursor.step % config.checkpoint.every == 0 and cursor.step < len(drawn)):
                save(run, state, cursor, config, progress)
            if stopping:
                raise StoppedError(f"stopped after {cursor.num_records} batches, all saved; resume {run.path}")
        cursor = cursor.after_iteration()
        last = cursor.iteration == training.iterations
        if evaluate is not None and (last or cursor.iteration % config.evaluation.every == 0):
            cursor = measure_dev(evaluate, config, cursor, run, progress)
        cursor = replace(cursor, finished=last or cursor.num_stalled >= training.convergence_patience)
        save(run, state, cursor, config, progress)
    return cursor


def restore(run: RunDirectory, state: Mapping[str, Stateful], progress: Progress, batches: str = "steps") -> Cursor:
    """Restore the newest checkpoint of a run and drop the records after it; returns where the run stands."""
    cursor = load_checkpoint(run.checkpoints, state, progress.note) or Cursor()
    run.truncate(batches, cursor.num_records, cursor.record_digests.get(batches))
    run.truncate("evaluations", cursor.num_evaluations, cursor.record_digests.get("evaluations"))
    return cursor


def save(
    run: RunDirectory,
    state: Mapping[str, Stateful],
    cursor: Cursor,
    config: RunConfig,
    progress: Progress,
    batches: str = "steps",
) -> None:
    """Write a checkpoint with the digests of the records that belong to it; `batches` as for `restore`."""
    progress.phase("checkpoint", iteration=cursor.iteration, step=cursor.step)
    if run.writes:
        cursor = replace(cursor, record_digests={name: run.digest(name) for name in (batches, "evaluations")})
        save_checkpoint(run.checkpoints, cursor, state, keep=config.checkpoint.keep)


def draw_batches(config: RunConfig, prompts: Sequence[Prompt], iteration: int) -> list[list[int]]:
    """The batches of an iteration, as indices into the training prompts."""
    return batches(
        prompts,
        batch_size=config.training.batch_size,
        num_batches=config.training.batches_per_iteration,
        batching=config.split.batching,
        seed=config.seed,
        iteration=iteration,
    )


def _batch(prompts: Sequence[Prompt], drawn: Sequence[Sequence[int]], iteration: int, step: int) -> Batch:
    return Batch(iteration, step, [prompts[index] for index in drawn[step]])


def _stateful(parts: Parts) -> dict[str, Stateful]:
    """The content of a checkpoint. Random streams are functions of the cursor and need no entry."""
    return {
        "policy": parts.policy,
        "optimizer": parts.learner,
        "selector": parts.selector,
        "pool": parts.pool,
        "feedback": parts.feedback,
        "signal": parts.signal,
        "contexts": parts.contexts,
    }


def _sample_iteration(
    parts: Parts,
    config: RunConfig,
    prompts: Sequence[Prompt],
    drawn: Sequence[Sequence[int]],
    cursor: Cursor,
    run: RunDirectory,
    progress: Progress,
) -> Replies | None:
    """Responses of all batches, sampled at the start of the iteration or read back; None if each batch samples."""
    if config.training.sampling == "per_batch":
        return None
    pending = PendingResponses(run.responses, cursor.iteration, keep=config.checkpoint.keep)
    replies = pending.load(may_be_missing=cursor.step == 0)
    if replies is None:
        progress.phase("sample", iteration=cursor.iteration, step=cursor.step)
        steps = range(len(drawn))
        replies = [sample(parts, config, _batch(prompts, drawn, cursor.iteration, step)) for step in steps]
        if run.writes:
            pending.keep(replies)
    return replies


def _report_reward_models(record: dict[str, Any], parts: Parts, progress: Progress) -> None:
    """Note the reward models that a batch put in quarantine, and what the pool warns of."""
    for name, reason in record["quarantined"].items():
        progress.note(f"{name} is in quarantine: {reason}")
    for warning in parts.pool.take_warnings():
        progress.note(warning)


def measure_dev(evaluate: Evaluate, config: RunConfig, cursor: Cursor, run: RunDirectory, progress: Progress) -> Cursor:
    """Measure the dev metric, and count the checks in a row in which it moved less than the threshold."""
    progress.phase("evaluate", iteration=cursor.iteration, step=cursor.step)
    accuracy = evaluate()
    record: dict[str, Any] = {"iteration": cursor.iteration, "batches": cursor.num_records, **accuracy.as_record()}
    run.append("evaluations", record)
    progress.evaluation(record)
    moved = float("inf") if cursor.metric is None else 100 * abs(accuracy.overall - cursor.metric)
    stalled = moved < config.training.convergence_threshold
    return replace(
        cursor,
        num_evaluations=cursor.num_evaluations + 1,
        metric=accuracy.overall,
        num_stalled=cursor.num_stalled + 1 if stalled else 0,
    )

"""Algorithm 1 of arXiv 2410.01735: iterations, batches, dev checks, checkpoints.

The paper trains M iterations of T batches; the reference pi_{m-1} is the policy at the start of iteration m. Here the
same loop also resumes: it starts at a cursor, and everything it needs is either in the last checkpoint or a function of
(seed, iteration, step).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from laser.core.errors import StoppedError
from laser.core.types import Prompt
from laser.evaluation.accuracy import Accuracy
from laser.training.batch import BatchSettings, Moment, Parts, Reply, run_batch, sample
from laser.training.checkpoint import Cursor, Stateful, load_checkpoint, save_checkpoint
from laser.training.pending import PendingResponses
from laser.training.progress import PhaseClock, Progress
from laser.training.run_directory import RunDirectory

Evaluate = Callable[[], Accuracy]
Stop = Callable[[], bool]
DrawBatches = Callable[[int], Sequence[Sequence[int]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the loop runs and what it keeps; the names are those of the configuration.

    Attributes:
        iterations: M.
        draw_batches: Batches of an iteration, as indices into the training prompts; a function of the iteration.
        batch: How one batch is done.
        sampling: Responses for the whole iteration at its start, or fresh for every batch.
        reference: Whether the reference follows the policy at the start of each iteration.
        evaluate_every: Iterations between dev checks.
        convergence_threshold: Stop when the dev metric moves by less, in percentage points; 0: never.
        convergence_patience: Checks in a row below the threshold before stopping.
        checkpoint_every: Batches between checkpoints.
        keep_checkpoints: Newest checkpoints kept.
    """

    iterations: int
    draw_batches: DrawBatches
    batch: BatchSettings
    sampling: Literal["per_iteration", "per_batch"] = "per_batch"
    reference: Literal["previous_iteration", "initial"] = "previous_iteration"
    evaluate_every: int = 1
    convergence_threshold: float = 0.1
    convergence_patience: int = 2
    checkpoint_every: int = 10
    keep_checkpoints: int = 2


def train(
    parts: Parts,
    prompts: Sequence[Prompt],
    plan: Plan,
    run: RunDirectory,
    progress: Progress,
    evaluate: Evaluate | None,
    stop: Stop = lambda: False,
) -> Cursor:
    """Train the policy; resumes where the run directory stands.

    Source: arXiv 2410.01735, Algorithm 1. Deviations: resumption, and the stopping rule's patience.

    Args:
        parts: Policy, generator, reward models, bandit, learner.
        prompts: The training prompts D.
        plan: Lengths and intervals.
        run: Where records and checkpoints go.
        progress: Told what happens.
        evaluate: Measures the dev metric; None trains without dev checks.
        stop: Asked before and after every batch; where it says so, the run is saved and ends.

    Returns:
        The final cursor.

    Raises:
        StoppedError: `stop` said so.
    """
    state = _stateful(parts)
    cursor = load_checkpoint(run.checkpoints, state, progress.note) or Cursor()
    run.truncate("steps", cursor.num_records, cursor.record_digests.get("steps"))
    run.truncate("evaluations", cursor.num_evaluations, cursor.record_digests.get("evaluations"))
    progress.started(
        iterations=plan.iterations,
        batches_per_iteration=len(plan.draw_batches(cursor.iteration)),
        iteration=cursor.iteration,
        step=cursor.step,
    )

    def save(cursor: Cursor) -> None:
        progress.phase("checkpoint", iteration=cursor.iteration, step=cursor.step)
        if run.writes:
            cursor = replace(cursor, record_digests={name: run.digest(name) for name in ("steps", "evaluations")})
            save_checkpoint(run.checkpoints, cursor, state, keep=plan.keep_checkpoints)

    if evaluate is not None and cursor.num_evaluations == 0:
        cursor = _check_dev(evaluate, cursor, plan, run, progress)
        save(cursor)
    if parts.ranks.broadcast(stop()):
        raise StoppedError(f"stopped before the next batch; resume {run.path}")
    while not cursor.finished and cursor.iteration < plan.iterations:  # for iteration m = 1..M
        batches = plan.draw_batches(cursor.iteration)
        if cursor.step == 0 and plan.reference == "previous_iteration":
            parts.policy.update_reference()  # pi_{m-1}
        pending = _pending(parts, prompts, batches, plan, cursor, run, progress)
        while cursor.step < len(batches):  # for batch t = 1..T
            at = Moment(cursor.iteration, cursor.step)
            batch = [prompts[index] for index in batches[cursor.step]]
            clock = PhaseClock(progress, iteration=at.iteration, step=at.step)
            respond = _respond(parts, batch, plan, at, pending)
            record = run_batch(parts, batch, plan.batch, at, clock, respond)
            run.append("steps", record)
            progress.batch(record)
            _tell_of_reward_models(record, parts, progress)
            cursor = cursor.after_batch()
            stopping = parts.ranks.broadcast(stop())
            if stopping or (cursor.step % plan.checkpoint_every == 0 and cursor.step < len(batches)):
                save(cursor)
            if stopping:
                raise StoppedError(f"stopped after {cursor.num_records} batches, all saved; resume {run.path}")
        cursor = cursor.after_iteration()
        if evaluate is not None and (
            cursor.iteration % plan.evaluate_every == 0 or cursor.iteration == plan.iterations
        ):
            cursor = _check_dev(evaluate, cursor, plan, run, progress)
        cursor = replace(cursor, finished=_converged(cursor, plan) or cursor.iteration == plan.iterations)
        save(cursor)
    return cursor


def _tell_of_reward_models(record: dict[str, Any], parts: Parts, progress: Progress) -> None:
    """What befell the reward models in a batch."""
    for name, reason in record["quarantined"].items():
        progress.note(f"{name} is in quarantine: {reason}")
    for warning in parts.pool.take_warnings():
        progress.note(warning)


def _stateful(parts: Parts) -> dict[str, Stateful]:
    """What a checkpoint holds. Random streams are functions of the cursor and need no entry."""
    return {
        "policy": parts.policy,
        "optimizer": parts.learner,
        "selector": parts.selector,
        "pool": parts.pool,
        "feedback": parts.feedback,
        "signal": parts.signal,
        "contexts": parts.contexts,
    }


def _pending(
    parts: Parts,
    prompts: Sequence[Prompt],
    batches: Sequence[Sequence[int]],
    plan: Plan,
    cursor: Cursor,
    run: RunDirectory,
    progress: Progress,
) -> PendingResponses | None:
    """Responses of the whole iteration, sampled at its start or read back; None when each batch samples its own."""
    if plan.sampling == "per_batch":
        return None
    pending = PendingResponses(run.responses, cursor.iteration, keep=plan.keep_checkpoints)
    if not pending.load(may_be_missing=cursor.step == 0):
        progress.phase("sample", iteration=cursor.iteration, step=cursor.step)
        replies = [
            sample(parts, [prompts[index] for index in batch], plan.batch, Moment(cursor.iteration, step))
            for step, batch in enumerate(batches)
        ]
        pending.keep(replies, write=run.writes)
    return pending


def _respond(
    parts: Parts, batch: Sequence[Prompt], plan: Plan, at: Moment, pending: PendingResponses | None
) -> Callable[[], Reply]:
    if pending is not None:
        return lambda: pending.replies[at.step]
    return lambda: sample(parts, batch, plan.batch, at)


def _check_dev(evaluate: Evaluate, cursor: Cursor, plan: Plan, run: RunDirectory, progress: Progress) -> Cursor:
    """Measure the dev metric and count how often in a row it stood still."""
    progress.phase("evaluate", iteration=cursor.iteration, step=cursor.step)
    accuracy = evaluate()
    record: dict[str, Any] = {"iteration": cursor.iteration, "batches": cursor.num_records, **accuracy.as_record()}
    run.append("evaluations", record)
    progress.evaluation(record)
    moved = float("inf") if cursor.metric is None else 100 * abs(accuracy.overall - cursor.metric)
    still = moved < plan.convergence_threshold
    return replace(
        cursor,
        num_evaluations=cursor.num_evaluations + 1,
        metric=accuracy.overall,
        num_stalled=cursor.num_stalled + 1 if still else 0,
    )


def _converged(cursor: Cursor, plan: Plan) -> bool:
    return cursor.num_stalled >= plan.convergence_patience

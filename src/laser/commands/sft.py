"""``laser sft``: fine-tune on gold answers, and continue after an interruption."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from laser.analysis.summary import summarize
from laser.commands.starting import check_run, on_main, provenance_of, reopened, resolved
from laser.commands.train import RunResult
from laser.config import RunConfig
from laser.core.files import replacing_folder, writing
from laser.core.outputs import default_out
from laser.parallel.ranks import joined
from laser.training.loop import Evaluate, Stop
from laser.training.progress import Progress
from laser.training.run_directory import RunDirectory, check_free
from laser.training.sft import LOSSES, SftParts, train_on_targets
from laser.wiring.identity import prompt_sources, run_sources
from laser.wiring.sft import build_sft


def sft(
    config: RunConfig | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    progress: Progress | None = None,
    stop: Stop = lambda: False,
) -> RunResult:
    """Fine-tune the policy on the solutions and gold answers of the training prompts.

    Source: arXiv 2410.01735, Sec. 4.1, the row SFT. Deviations: LoRA as for preference training; the paper does not say
    how its checkpoint was made.

    Args:
        config: As for `laser.train`; the reward models are not used.
        out: The run directory to create; None: a new folder under ``runs/``.
        progress: Observes the run; None: no output.
        stop: Called between batches; when it returns True, the run is saved and `StoppedError` raised.

    Returns:
        The run's folder, whose ``adapter/`` is a PEFT adapter, and its dev metric before and after. The folder can be
        the `policy.model` of `laser.train`.

    Raises:
        LaserError: The configuration, data, models or directory cannot be used. Existing files stay unchanged.
    """
    config = resolved(config)
    progress = progress or Progress()
    with joined() as ranks:
        path = ranks.broadcast(Path(out) if out is not None else default_out("sft"))
        on_main(ranks, lambda: check_free(path))  # before minutes of loading; `create` checks again
        parts, evaluate = build_sft(config, on_tokens=progress.tokens, ranks=ranks)
        _report_left_out(config, parts, progress)
        counts = {"train": len(parts.prompts), "without_answer": parts.num_without}
        sources = run_sources(config) | prompt_sources(config, {"train": parts.prompts})
        provenance = {**provenance_of(config, command="sft", sources=sources), "prompts": counts}
        stored = config.model_dump(mode="json")
        run = on_main(ranks, lambda: RunDirectory.create(path, config=stored, provenance=provenance))
        return _finish(config, parts, evaluate, run or RunDirectory.follow(path), progress, stop)


def resume_sft(
    path: str | Path,
    *,
    config: RunConfig | None = None,
    trust: bool = False,
    progress: Progress | None = None,
    stop: Stop = lambda: False,
) -> RunResult:
    """Continue an interrupted fine-tuning to the result it would have had without the interruption.

    Args:
        path: The run directory.
        config: If given, it must equal the configuration of the run.
        trust: Follow the run's ``config.json`` even if this user's laser has not signed it.
        progress: Observes the run; None: no output.
        stop: As for `sft`.

    Raises:
        RunDirectoryError: There is no run of `laser sft`, another process works on it, or another user started it and
            neither `config` nor `trust` is given.
        ConfigError: `config` differs from the run's, or its data or base model has changed.
    """
    progress = progress or Progress()
    with joined() as ranks:
        with reopened(path, "sft", config, trust, ranks) as (run, stored):
            check_run(run, run_sources(stored))
            parts, evaluate = build_sft(stored, on_tokens=progress.tokens, ranks=ranks)
            check_run(run, prompt_sources(stored, {"train": parts.prompts}))
        return _finish(stored, parts, evaluate, run, progress, stop)


def _report_left_out(config: RunConfig, parts: SftParts, progress: Progress) -> None:
    if config.tracking.to:
        progress.note("laser sft does not report to experiment trackers; losses.jsonl has a record a batch")
    if parts.num_without:
        progress.note(
            f"{parts.num_without} of {parts.num_without + len(parts.prompts)} training prompts have neither a gold "
            "answer nor a solution and are left out"
        )


def _finish(
    config: RunConfig, parts: SftParts, evaluate: Evaluate | None, run: RunDirectory, progress: Progress, stop: Stop
) -> RunResult:
    try:
        train_on_targets(parts, config, run, progress, evaluate, stop)
        if run.writes:
            with writing(run.adapter, run.path), replacing_folder(run.adapter) as temporary:
                parts.policy.save_adapter(temporary)
        summary = summarize([], run.records("evaluations"), ())
        losses = [record["loss"] for record in run.records(LOSSES)]
        run.write_summary(
            {
                "metric_before": summary.metric_before,
                "metric_after": summary.metric_after,
                "num_batches": len(losses),
                "targets": len(parts.prompts),
                "without_answer": parts.num_without,
                "first_loss": losses[0],
                "last_loss": losses[-1],
            }
        )
    finally:
        run.close()
    return RunResult(run.path, summary)

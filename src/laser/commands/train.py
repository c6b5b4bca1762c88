"""Train and resume from Python, as `laser train` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laser.analysis.summary import RunSummary, summarize
from laser.commands.starting import check_run, on_main, provenance_of, reopened, resolved
from laser.config import RunConfig
from laser.core.errors import RunDirectoryError
from laser.core.files import replacing_folder, to_json, writing
from laser.core.outputs import default_out
from laser.parallel.ranks import joined
from laser.training.loop import Stop
from laser.training.loop import train as run_loop
from laser.training.probe import Probe
from laser.training.progress import Progress
from laser.training.run_directory import RunDirectory, check_free
from laser.training.signature import is_ours, sign
from laser.wiring import Built, build, build_tracking, reward_fingerprints
from laser.wiring.checks import check_used, nothing_to_choose
from laser.wiring.identity import prompt_sources, run_sources
from laser.wiring.rewards import changed_names


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run.

    Attributes:
        path: The run directory; `path / "adapter"` loads with ``PeftModel.from_pretrained``.
        summary: Dev metric before and after, utilisation of each reward model, what was dropped.
    """

    path: Path
    summary: RunSummary

    @property
    def adapter(self) -> Path:
        """Folder of the trained PEFT adapter."""
        return self.path / "adapter"


def train(
    config: RunConfig | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    progress: Progress | None = None,
    stop: Stop = lambda: False,
) -> RunResult:
    """Train a policy with a pool of reward models (arXiv 2410.01735, Algorithm 1).

    Args:
        config: A `RunConfig`, the path of a TOML file, or the nested dict that one would hold.
        out: The run directory to create; None: a new folder under ``runs/``.
        progress: Observes the run; None: no output.
        stop: Called between batches; when it returns True, the run is saved and `StoppedError` raised.

    Returns:
        The run's folder and summary.

    Raises:
        LaserError: The configuration, data, models or directory cannot be used. Existing files stay unchanged.
    """
    config = resolved(config)
    check_used(config)
    progress = progress or Progress()
    if note := nothing_to_choose(config):
        progress.note(note)
    with joined() as ranks:
        path = ranks.broadcast(Path(out) if out is not None else default_out())
        on_main(ranks, lambda: check_free(path))  # before minutes of loading; `create` checks again
        built = build(config, on_tokens=progress.tokens, on_probe=progress.probe, ranks=ranks)
        sources = run_sources(config) | prompt_sources(config, built.loaded.by_name())
        made_of = {"reward_models": reward_fingerprints(config), "sources": sources}
        provenance = {**provenance_of(config, **made_of), "prompts": built.num_prompts}
        stored = config.model_dump(mode="json")
        run = on_main(ranks, lambda: RunDirectory.create(path, config=stored, provenance=provenance))
        return _finish(config, built, run or RunDirectory.follow(path), progress, stop)


def resume(
    path: str | Path,
    *,
    config: RunConfig | None = None,
    trust: bool = False,
    changed_rewards: bool = False,
    progress: Progress | None = None,
    stop: Stop = lambda: False,
) -> RunResult:
    """Continue an interrupted run to the result it would have had without the interruption.

    Args:
        path: The run directory.
        config: If given, it must equal the configuration of the run.
        trust: Follow the run's ``config.json`` even if this user's laser has not signed it.
        changed_rewards: Continue although reward models have changed, such as a Python function that you have fixed.
            ``run.json`` then names them and the number of batches before the change.
        progress: Observes the run; None: no output.
        stop: As for `train`.

    Raises:
        RunDirectoryError: There is no run, another process works on it, its reward models have changed, or another
            user started it and neither `config` nor `trust` is given.
        ConfigError: `config` differs from the run's, or its data or base model has changed.
    """
    progress = progress or Progress()
    with joined() as ranks:
        with reopened(path, "train", config, trust, ranks) as (run, stored):
            check_run(run, run_sources(stored))
            changed = _changed_rewards(run, stored)
            if changed and not changed_rewards:
                raise RunDirectoryError(
                    f"reward model {changed[0]!r} has changed since {run.path} was started, so its arm may mean "
                    "something else; restore the old one, add --changed-rewards to continue with the new one, or start "
                    "a new run with --out"
                )
            on_main(ranks, lambda: _accept_rewards(run, stored, changed))
            built = build(stored, on_tokens=progress.tokens, on_probe=progress.probe, ranks=ranks)
            check_run(run, prompt_sources(stored, built.loaded.by_name()))
        return _finish(stored, built, run, progress, stop)


def _finish(config: RunConfig, built: Built, run: RunDirectory, progress: Progress, stop: Stop) -> RunResult:
    try:
        tracking = build_tracking(config, run, progress)
        try:
            run_loop(built.parts, config, built.splits.train, run, tracking, built.evaluate, stop)
        finally:
            tracking.finish()
        if run.writes:
            with writing(run.adapter, run.path), replacing_folder(run.adapter) as temporary:
                built.parts.policy.save_adapter(temporary)
        summary = summarize(run.records("steps"), run.records("evaluations"), built.parts.pool.names)
        signal = built.parts.signal
        probe = {"probe": signal.findings().as_record()} if isinstance(signal, Probe) else {}
        run.write_summary({**summary.as_record(), "reward_models": to_json(built.parts.pool.usage()), **probe})
    finally:
        run.close()
    return RunResult(run.path, summary)


def _changed_rewards(run: RunDirectory, config: RunConfig) -> list[str]:
    """Names of reward models that have changed since the run started. Arm k must stay the same reward model."""
    stored = run.provenance.get("reward_models", {})
    if not isinstance(stored, dict):
        raise RunDirectoryError(f"{run.path / 'run.json'} is damaged (reward_models is not an object); restore it")
    return changed_names(stored, reward_fingerprints(config))


def _accept_rewards(run: RunDirectory, config: RunConfig, changed: Sequence[str]) -> None:
    """Store the fingerprints of changed reward models as those of the run."""
    if not changed:
        return
    provenance = dict(run.provenance)
    ours = is_ours(run.config, provenance)
    before = provenance.get("changed_reward_models", [])
    provenance["reward_models"] = reward_fingerprints(config)
    provenance["changed_reward_models"] = [*before, {"names": changed, "batches": len(run.records("steps"))}]
    provenance["signature"] = sign(run.config, provenance) if ours else None
    run.amend(provenance)

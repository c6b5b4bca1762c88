"""``laser train``: set up the libraries, train or resume, say what came out."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from laser.cli.environment import prepare
from laser.cli.progress import ClosableProgress, Quiet, make_progress
from laser.cli.stopping import Stopper
from laser.cli.terminal import make_console, say
from laser.config import RunConfig, load_config
from laser.core.errors import ConfigError, StoppedError
from laser.parallel.ranks import is_main

if TYPE_CHECKING:
    from laser.analysis.summary import RunSummary
    from laser.commands.train import RunResult


_LOADING = "loading libraries, models and prompts"


def run_training(
    config_path: Path | None,
    overrides: list[str],
    *,
    out: Path | None,
    resume_from: Path | None,
    dry_run: bool,
    trust: bool = False,
    changed_rewards: bool = False,
    machine: str | None = None,
    devices: int | None = None,
) -> None:
    """Do what the command line asks.

    Raises:
        LaserError: The request cannot be carried out.
    """
    prepare()
    console = make_console(quiet=not is_main())
    _refuse_without("--dry-run", dry_run, {"--machine": machine is not None, "--devices": devices is not None})
    _refuse_without("--resume", resume_from is not None, {"--trust": trust, "--changed-rewards": changed_rewards})
    config = _given_config(config_path, overrides, out, resume_from)
    if dry_run:
        from laser.commands.plan import print_plan

        print_plan(config or load_config(), console, machine or "here", devices or 1)
        return
    where = resume_from or out or _fresh_out(config_path)
    progress = make_progress(console) if is_main() else Quiet()
    stopper = Stopper()
    try:
        with stopper.listening():
            if resume_from is None:
                result = _train(config, where, progress, stopper)
            else:
                result = _resume(config, where, trust, changed_rewards, progress, stopper)
    except (KeyboardInterrupt, StoppedError) as stopped:
        progress.close()
        how = "stopped, all saved" if isinstance(stopped, StoppedError) else "interrupted"
        begun = (where / "config.json").exists()
        cure = f"continue with: laser train --resume {where}" if begun else "nothing was written"
        if is_main():
            say(f"laser: {how}; {cure}", error=True)
        sys.exit(stopper.exit_code)
    finally:
        progress.close()
    if is_main():
        report(result, console)


def _given_config(
    config_path: Path | None, overrides: list[str], out: Path | None, resume_from: Path | None
) -> RunConfig | None:
    """The configuration asked for; None where a resumed run brings its own."""
    if resume_from is None:
        return load_config(config_path, overrides)
    if out is not None:
        raise ConfigError("--resume continues in its own directory; drop --out")
    if config_path is None and overrides:
        raise ConfigError("--resume takes the configuration from the run directory; drop --set, or start a new run")
    return load_config(config_path, overrides) if config_path is not None else None


def _refuse_without(needed: str, given: bool, options: Mapping[str, bool]) -> None:
    """An option that would do nothing is a misunderstanding."""
    for option, used in options.items():
        if used and not given:
            raise ConfigError(f"{option} does nothing without {needed}; drop it, or add {needed}")


def _train(config: RunConfig | None, where: Path, progress: ClosableProgress, stop: Stopper) -> RunResult:
    progress.note(_LOADING)
    from laser.commands import train as api

    assert config is not None
    return api.train(config, where, progress=progress, stop=stop)


def _resume(
    config: RunConfig | None,
    where: Path,
    trust: bool,
    changed_rewards: bool,
    progress: ClosableProgress,
    stop: Stopper,
) -> RunResult:
    progress.note(_LOADING)
    from laser.commands import train as api

    return api.resume(where, config=config, trust=trust, changed_rewards=changed_rewards, progress=progress, stop=stop)


def _fresh_out(config_path: Path | None) -> Path:
    name = config_path.stem if config_path is not None else "demo"
    return Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def report(result: RunResult, console: Console) -> None:
    """Print the dev metric before and after, who was chosen where, and what to do next."""
    from laser.analysis.report import write_report

    summary = result.summary
    console.print()
    if summary.metric_before is not None:
        console.print(_metric_table(summary, _temperature(result)))
        before, after = summary.num_unparseable
        if before or after:
            console.print(f"answers that could not be read, counted as wrong: {before} before, {after} after")
    console.print(_utilization_table(summary))
    dropped = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in summary.dropped.items() if count)
    console.print(f"pairs trained on: {summary.num_pairs}; left out: {escape(dropped or 'nothing')}")
    if summary.num_pairs == 0:
        why = escape(dropped or "no batch was done")
        console.print(f"the policy is unchanged: no pair of responses was left to train on ({why}); see the report")
    console.print(f"run directory: {escape(str(result.path))}", soft_wrap=True)
    console.print(f"report: {escape(str(write_report(result.path).page))}", soft_wrap=True)
    console.print(f"next: {_next_step(result)}", soft_wrap=True)


def _next_step(result: RunResult) -> str:
    """The one command to run next: after the demo a run of one's own, after that the model itself."""
    from laser.core.files import read_json

    if read_json(result.path / "config.json")["data"]["type"] == "embedded":
        return "laser init my-run   (prompts, reward functions and a configuration to make yours)"
    return f"laser chat {escape(str(result.path))}   (talk to the trained model)"


def _temperature(result: RunResult) -> float:
    """At which the answers of the run's dev checks were decoded."""
    from laser.core.files import read_json

    return float(read_json(result.path / "config.json")["evaluation"]["temperature"])


def _metric_table(summary: RunSummary, temperature: float) -> Table:
    how = f"sampled at temperature {temperature:g}" if temperature else "greedy"
    table = Table("dev accuracy", "before", "after", title=f"Dev metric ({summary.num_evaluated} prompts, {how})")
    for name, (before, after) in summary.metric_by_category.items():
        table.add_row(escape(name), f"{before:.1%}", f"{after:.1%}")
    table.add_section()
    table.add_row("all", f"{summary.metric_before:.1%}", f"{summary.metric_after:.1%}", style="bold")
    return table


def _utilization_table(summary: RunSummary) -> Table:
    names = list(dict.fromkeys(name for counts in summary.utilization.values() for name in counts))
    table = Table("chosen for prompts of", *map(escape, names), title="How often each reward model was chosen")
    for category, counts in summary.utilization.items():
        total = sum(counts.values())
        table.add_row(escape(category), *(f"{counts.get(name, 0) / total:.0%}" for name in names))
    table.add_section()
    rewards = (f"{summary.bandit_rewards[name]:.2f}" if name in summary.bandit_rewards else "-" for name in names)
    table.add_row("mean bandit reward", *rewards)
    return table

"""``laser train``: set up the libraries, train or resume, say what came out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from laser.cli.environment import prepare
from laser.cli.options import ConfigFile, Overrides
from laser.cli.stopping import Stopper
from laser.cli.terminal import make_console, say
from laser.core.errors import ConfigError, StoppedError

if TYPE_CHECKING:
    from laser.analysis.summary import RunSummary
    from laser.commands.train import RunResult
    from laser.config import RunConfig


def train(
    config: ConfigFile = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory to create; default: a new folder under runs/.", show_default=False),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run directory to continue after an interruption.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved configuration and a plan; train nothing.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="With --resume: do what a run directory from elsewhere says it does.")
    ] = False,
    changed_rewards: Annotated[
        bool,
        typer.Option(
            "--changed-rewards", help="With --resume: continue although reward models changed, e.g. a fixed function."
        ),
    ] = False,
    machine: Annotated[
        str | None,
        typer.Option(help="With --dry-run: machine to estimate for: here, a100-80gb, h100-80gb or h200-141gb."),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="With --dry-run: devices of that kind, one process each; default: 1.")
    ] = None,
) -> None:
    """Train a policy with a pool of reward models (Algorithm 1 of arXiv 2410.01735).

    Example: laser train run.toml --set training.iterations=3 --out runs/first
    """
    prepare()
    from laser.cli.progress import Quiet, make_progress
    from laser.core.outputs import default_out
    from laser.parallel.ranks import is_main

    console = make_console(quiet=not is_main())
    _refuse_without("--dry-run", dry_run, {"--machine": machine is not None, "--devices": devices is not None})
    _refuse_without("--resume", resume is not None, {"--trust": trust, "--changed-rewards": changed_rewards})
    parsed = _given_config(config, overrides or [], out, resume)
    if dry_run:
        from laser.commands.plan import print_plan
        from laser.config import load_config

        print_plan(parsed or load_config(), console, machine or "here", devices or 1)
        return
    where = resume or out or default_out(config.stem if config is not None else "demo")
    beginning = where.absolute() / "config.json"  # code of users may change the working directory
    progress = make_progress(console) if is_main() else Quiet()
    stopper = Stopper()
    try:
        with stopper.listening():
            progress.note("loading libraries, models and prompts")
            from laser.commands import train as api

            if resume is None:
                assert parsed is not None
                result = api.train(parsed, where, progress=progress, stop=stopper)
            else:
                result = api.resume(
                    where,
                    config=parsed,
                    trust=trust,
                    changed_rewards=changed_rewards,
                    progress=progress,
                    stop=stopper,
                )
    except (KeyboardInterrupt, StoppedError) as stopped:
        progress.close()
        how = "stopped, all saved" if isinstance(stopped, StoppedError) else "interrupted"
        begun = beginning.exists()
        cure = f"continue with: laser train --resume {where}" if begun else "nothing was written"
        if is_main():
            say(f"laser: {how}; {cure}", error=True)
        sys.exit(stopper.exit_code)
    finally:
        progress.close()
    if is_main():
        _print_result(result, console)


def _given_config(
    config_path: Path | None, overrides: list[str], out: Path | None, resume_from: Path | None
) -> RunConfig | None:
    """The configuration asked for; None where a resumed run brings its own."""
    from laser.config import load_config

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


def _print_result(result: RunResult, console: Console) -> None:
    """Print the dev metric before and after, who was chosen where, and what to do next."""
    from laser.analysis.records import read_config
    from laser.analysis.report import write_report
    from laser.analysis.report.words import change_in_words
    from laser.analysis.shown import visible
    from laser.evaluation.unreadable import unreadable_lines

    summary = result.summary
    console.print()
    config = read_config(result.path)
    if summary.metric_before is not None:
        console.print(_metric_table(summary, config["evaluation"]["temperature"]))
        if summary.metric_change is not None:
            console.print(change_in_words(summary.metric_change))
        before, after = summary.num_unparseable
        if before or after:
            console.print(f"answers that could not be read, counted as wrong: {before} before, {after} after")
        examples = {"num_unparseable": after, "unparseable": summary.unparseable}
        for line in unreadable_lines(examples, summary.num_evaluated):
            console.print(escape(visible(line)), soft_wrap=True)
    console.print(_utilization_table(summary))
    console.print(f"pairs trained on: {summary.num_pairs}; left out: {escape(summary.left_out)}")
    if summary.num_pairs == 0:
        why = escape(summary.left_out) if summary.num_batches else "no batch was done"
        console.print(f"the policy is unchanged: no pair of responses was left to train on ({why}); see the report")
    console.print(f"run directory: {escape(str(result.path))}", soft_wrap=True)
    console.print(f"report: {escape(str(write_report(result.path).page))}", soft_wrap=True)
    console.print(f"next: {_next_step(result.path, config)}", soft_wrap=True)


def _next_step(run: Path, config: Mapping[str, Any]) -> str:
    """The one command to run next: `laser init` after the demo, `laser chat` after any other run."""
    if config["data"]["type"] == "embedded":
        return "laser init my-run   (prompts, reward functions and a configuration to make yours)"
    return f"laser chat {escape(str(run))}   (talk to the trained model)"


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

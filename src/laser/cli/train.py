"""``laser train``: set up the libraries, train or resume, say what came out."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from laser.cli.environment import prepare
from laser.cli.options import ConfigFile, Overrides, Resumed, RunOut, TrustResumed, given_config, refuse_without
from laser.cli.stopping import Stopper, resumable
from laser.cli.terminal import make_console

_SHOWN = 3  # prompts of the demo whose answers before and after training are shown


def train(
    config: ConfigFile = None,
    overrides: Overrides = None,
    out: RunOut = None,
    resume: Resumed = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved configuration and a plan; train nothing.")
    ] = False,
    trust: TrustResumed = False,
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
    from laser.cli.progress import make_progress
    from laser.cli.result import print_result
    from laser.core.outputs import default_out
    from laser.parallel.ranks import is_main
    from laser.training.progress import Progress

    console = make_console(quiet=not is_main())
    refuse_without("--dry-run", dry_run, {"--machine": machine is not None, "--devices": devices is not None})
    refuse_without("--resume", resume is not None, {"--trust": trust, "--changed-rewards": changed_rewards})
    parsed = given_config(config, overrides or [], out, resume)
    if dry_run:
        from laser.commands.plan import print_plan
        from laser.config import load_config

        print_plan(parsed or load_config(), console, machine or "here", devices or 1)
        return
    where = resume or out or default_out(config.stem if config is not None else "demo")
    progress = make_progress(console) if is_main() else Progress()
    stopper = Stopper()
    with resumable(stopper, "train", where), closing(progress):
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
    if is_main():
        print_result(result, console)
        if config is None and resume is None:
            from laser.cli.chat import print_before_after

            print_before_after(result.path, _SHOWN, console)

"""``laser sft``: fine-tune on gold answers, and say what came out."""

from __future__ import annotations

from contextlib import closing

from laser.cli.environment import prepare
from laser.cli.options import ConfigFile, Overrides, Resumed, RunOut, TrustResumed, given_config, refuse_without
from laser.cli.stopping import Stopper, resumable
from laser.cli.terminal import make_console


def sft(
    config: ConfigFile = None,
    overrides: Overrides = None,
    out: RunOut = None,
    resume: Resumed = None,
    trust: TrustResumed = False,
) -> None:
    """Fine-tune the policy on the solutions and gold answers of the training prompts, before training it with a pool.

    Example: laser sft run.toml --out runs/sft, then laser train run.toml --set policy.model=runs/sft
    """
    prepare()
    from laser.cli.progress import SftLines
    from laser.cli.result import print_fine_tuned
    from laser.core.outputs import default_out
    from laser.parallel.ranks import is_main
    from laser.training.progress import Progress

    console = make_console(quiet=not is_main())
    refuse_without("--resume", resume is not None, {"--trust": trust})
    parsed = given_config(config, overrides or [], out, resume)
    where = resume or out or default_out(f"{config.stem if config is not None else 'demo'}-sft")
    progress = SftLines(console) if is_main() else Progress()
    stopper = Stopper()
    with resumable(stopper, "sft", where), closing(progress):
        progress.note("loading libraries, model and prompts")
        from laser.commands import sft as api

        if resume is None:
            assert parsed is not None
            result = api.sft(parsed, where, progress=progress, stop=stopper)
        else:
            result = api.resume_sft(where, config=parsed, trust=trust, progress=progress, stop=stopper)
    if is_main():
        print_fine_tuned(result, console)

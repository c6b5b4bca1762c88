"""The command line. Heavy imports live inside the commands, so that ``laser --help`` answers at once."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from laser.cli import (
    best_of_n,
    chat,
    compare,
    init,
    lab,
    label,
    probe,
    report,
    rewardbench,
    serve,
    serve_rewards,
    sft,
    simulate,
    tasks,
    train,
    train_classifier,
    watch,
)
from laser.cli import eval as eval_command
from laser.core.errors import ConfigError, LaserError

_OUTPUT_ERRORS = {errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF, errno.EDQUOT}

app = typer.Typer(
    name="laser",
    help="Train language models with several reward models, learning while training which one to trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from laser.core.version import version

        typer.echo(f"laser {version()}")
        raise typer.Exit


def _check_launcher(command: str | None) -> None:
    """Refuse the processes of torchrun or accelerate where each would do the whole work."""
    processes = os.environ.get("WORLD_SIZE", "1") if "TORCHELASTIC_RUN_ID" in os.environ else "1"
    if processes != "1" and command not in ("train", "sft"):
        divided = "; --shard and --engine ray divide its work" if command == "label" else ""
        raise ConfigError(
            f"laser {command} runs in one process, but the launcher has started {processes}; start it without a "
            f"launcher{divided}"
        )


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train language models with several reward models, learning while training which one to trust."""
    _check_launcher(context.invoked_subcommand)


app.command()(train.train)
app.command()(sft.sft)
app.command()(serve.serve)
app.command("serve-rewards")(serve_rewards.serve_rewards)
app.command()(report.report)
app.command()(watch.watch)
app.command()(init.init)
app.command("train-classifier")(train_classifier.train_classifier)
app.command()(probe.probe)
app.command()(label.label)
app.command("best-of-n")(best_of_n.best_of_n)
app.command()(compare.compare)
app.command("eval")(eval_command.evaluate)
app.command()(chat.chat)
app.command()(rewardbench.rewardbench)
app.command()(simulate.simulate)
app.add_typer(tasks.app, name="tasks")
app.add_typer(lab.app, name="lab")


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line: an error that the user can fix is one sentence and exit code 2."""
    signal.signal(signal.SIGTERM, _terminate)
    _prepare_streams()
    code = _run()
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _cannot_print(error)
    sys.exit(code)


def _prepare_streams() -> None:
    """Characters that the encoding of an output lacks are shown as escapes; a closed output takes everything."""
    if sys.stdout is None:  # its descriptor must not become that of another file
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run() -> int | str | None:
    """The exit code of the command."""
    try:
        app()
    except SystemExit as ended:
        return ended.code
    except LaserError as error:
        from laser.parallel.ranks import tells

        return _refuse(str(error)) if tells(error) else 2
    except OSError as error:  # of a path given on the command line, or of standard output
        if error.filename is not None:
            return _refuse(f"cannot use {error.filename} ({error.strerror}); choose another path")
        if error.errno in _OUTPUT_ERRORS:
            return _cannot_print(error)
        return _refuse(f"an operation of the system failed ({error.strerror or error})")
    except UnicodeEncodeError as error:  # of a path, where the locale is not UTF-8
        return _refuse(
            f"the locale's encoding {error.encoding} lacks characters of {error.object!r}; set LC_ALL=C.UTF-8"
        )
    except KeyboardInterrupt:
        print("laser: interrupted", file=sys.stderr)
        return 130
    return 0


def _cannot_print(error: OSError) -> int:
    with suppress(OSError):  # the interpreter flushes once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _refuse(f"cannot write the output ({error.strerror}); free space, or send it elsewhere")


def _refuse(sentence: str) -> int:
    from laser.cli.terminal import say

    with suppress(OSError):  # standard error may be closed or full too
        say(f"laser: error: {sentence}", error=True)
    return 2


if __name__ == "__main__":
    main()

"""The command line. Heavy imports live inside the commands, so that ``laser --help`` answers at once."""

from __future__ import annotations

import signal
import sys
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
    report,
    rewardbench,
    serve,
    simulate,
    tasks,
    train,
    train_classifier,
    watch,
)
from laser.cli import eval as eval_command
from laser.core.errors import LaserError
from laser.parallel.ranks import tells

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


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train language models with several reward models, learning while training which one to trust."""


app.command()(train.train)
app.command()(serve.serve)
app.command()(report.report)
app.command()(watch.watch)
app.command()(init.init)
app.command("train-classifier")(train_classifier.train_classifier)
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
    """Run the command line: errors the user can mend are one sentence and exit code 2."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except LaserError as error:
        from laser.cli.terminal import say

        if tells(error):
            say(f"laser: error: {error}", error=True)
        sys.exit(2)
    except OSError as error:  # of a path given on the command line, in whatever command
        if error.filename is None:
            raise
        from laser.cli.terminal import say

        say(f"laser: error: cannot use {error.filename} ({error.strerror}); choose another path", error=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("laser: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

"""The command line. Heavy imports live inside the commands, so that ``laser --help`` answers at once."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from laser import __version__
from laser.errors import LaserError

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
        typer.echo(f"laser {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train language models with several reward models, learning while training which one to trust."""


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="TOML configuration; without one, the demo's.", show_default=False)
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one field, e.g. training.iterations=3. Repeatable."),
    ] = None,
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
) -> None:
    """Train a policy with a pool of reward models (Algorithm 1 of arXiv 2410.01735).

    Example: laser train run.toml --set training.iterations=3 --out runs/first
    """
    from laser.cli.train import run_training

    run_training(config, overrides or [], out=out, resume_from=resume, dry_run=dry_run)


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Folder to create.", show_default=False)]) -> None:
    """Write a starting point of your own: prompts.jsonl, rewards.py and run.toml, ready to train and to edit.

    Example: laser init my-run && laser train my-run/run.toml
    """
    from laser.cli.init import write_starting_point

    write_starting_point(folder)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line: errors the user can mend are one sentence and exit code 2."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except LaserError as error:
        print(f"laser: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("laser: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()

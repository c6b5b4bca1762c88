"""The commands that look at runs: `report` and `watch`. Imports stay light; the work is elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_SUITE", help="Run directory, finished or not, or a suite's directory.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page; default: report.html in the directory.", show_default=False)
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(help="Folder for the pictures as PNG; default: report/ beside the page.", show_default=False),
    ] = None,
    bench: Annotated[
        Path | None,
        typer.Option(help="JSON of laser rewardbench --out, to show its numbers beside.", show_default=False),
    ] = None,
) -> None:
    """Write one self-contained HTML page and its pictures: which reward model was useful where, and how sure that is.

    Example: laser report runs/mine --bench bench.json
    """
    from laser.cli.report import run_report

    run_report(run, out, png, bench)


def watch(
    run: Annotated[Path, typer.Argument(help="Run directory; it need not exist yet.", show_default=False)],
    once: Annotated[bool, typer.Option("--once", help="Print the run as it stands and exit.")] = False,
    web: Annotated[bool, typer.Option("--web", help="Serve a page that updates, to this machine only.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --web: port on 127.0.0.1; 0 takes any.")] = 8765,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 1.0,
) -> None:
    """Look on while a run trains: who is chosen, bandit rewards, loss, dev metric, what fails.

    Example: laser watch runs/mine, or laser watch runs/mine --web for a page at http://127.0.0.1:8765
    """
    from laser.cli.watch import run_watch, run_web

    if web:
        run_web(run, port=port)
    else:
        run_watch(run, once=once, every=every)

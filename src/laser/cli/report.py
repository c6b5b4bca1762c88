"""``laser report``: write the page and say where it is, and what could not be read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from laser.cli.terminal import say

_LISTED = 5


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
        typer.Option(help="Folder for the pictures as PNG; default: report/ next to the page.", show_default=False),
    ] = None,
    bench: Annotated[
        Path | None,
        typer.Option(help="JSON of laser rewardbench --out, whose numbers the page shows too.", show_default=False),
    ] = None,
) -> None:
    """Write an HTML page and its pictures: which reward model was useful for which prompts, and how sure that is.

    Example: laser report runs/mine --bench bench.json
    """
    from laser.analysis.report import write_report
    from laser.analysis.shown import visible

    pictures = png or (out.parent if out is not None else run) / "report"
    written = write_report(run, out, pictures=pictures, bench=bench)
    for one in written.damage[:_LISTED]:
        say(visible(f"laser: left out: {one.file} line {one.line}: {one.why}"), error=True)
    if len(written.damage) > _LISTED:
        say(f"laser: left out: {len(written.damage) - _LISTED} more damaged lines; the page names them", error=True)
    say(visible(f"report: {written.page}"))
    if written.pictures:
        say(visible(f"pictures: {written.pictures[0].parent} ({len(written.pictures)} PNG files)"))

"""``laser report``: write the page and say where it is, and what could not be read."""

from __future__ import annotations

from pathlib import Path

from laser.analysis.report import write_report
from laser.analysis.shown import visible
from laser.cli.terminal import say

_LISTED = 5


def run_report(path: Path, out: Path | None, png: Path | None, bench: Path | None) -> None:
    """Do what the command line asks.

    Raises:
        LaserError: There is nothing to report, or it cannot be written.
    """
    beside = (out.parent if out is not None else path) / "report"
    written = write_report(path, out, pictures=png or beside, bench=bench)
    for one in written.damage[:_LISTED]:
        say(visible(f"laser: left out: {one.file} line {one.line}: {one.why}"), error=True)
    if len(written.damage) > _LISTED:
        say(f"laser: left out: {len(written.damage) - _LISTED} more damaged lines; the page names them", error=True)
    say(visible(f"report: {written.page}"))
    if written.pictures:
        say(visible(f"pictures: {written.pictures[0].parent} ({len(written.pictures)} PNG files)"))

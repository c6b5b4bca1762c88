"""``laser report``: write the page and say where it is, and what could not be read."""

from __future__ import annotations

import sys
from pathlib import Path

from laser.analysis.report import write_report
from laser.analysis.shown import visible

_LISTED = 5


def run_report(path: Path, out: Path | None, png: Path | None, bench: Path | None) -> None:
    """Do what the command line asks.

    Raises:
        LaserError: There is nothing to report, or it cannot be written.
    """
    beside = (out.parent if out is not None else path) / "report"
    written = write_report(path, out, pictures=png or beside, bench=bench)
    for one in written.damage[:_LISTED]:
        print(visible(f"laser: left out: {one.file} line {one.line}: {one.why}"), file=sys.stderr)
    if len(written.damage) > _LISTED:
        print(
            f"laser: left out: {len(written.damage) - _LISTED} more damaged lines; the page names them", file=sys.stderr
        )
    print(visible(f"report: {written.page}"))
    if written.pictures:
        print(visible(f"pictures: {written.pictures[0].parent} ({len(written.pictures)} PNG files)"))

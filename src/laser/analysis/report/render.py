"""Pages as self-contained HTML, from the templates next to this file.

Every string that a template prints passes through `shown.visible` and is then escaped, so that prompts, responses,
names and error messages are text wherever they appear. The templates trust (`safe`) the drawings, the style sheet,
the script and what they made themselves.
"""

from __future__ import annotations

import base64
import hashlib
import math
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from laser.analysis.follow import LATEST_HEAD, View, latest, standing
from laser.analysis.report.blocks import Cell, Code, Examples, Page, Picture, Table, Words, table
from laser.analysis.report.figure import as_svg
from laser.analysis.shown import visible

_LONG = 44  # characters of a cell that stay on one line
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy of a report: no script, and nothing to load."""


def document(page: Page) -> str:
    """A report as one HTML file."""
    return _page(page.title, body(page), None)


def live_document(view: View, report: str) -> str:
    """The page of ``laser watch --web``: the report of a run that is still training, with its progress above.

    Args:
        view: The run at this moment.
        report: Its report, as `body` writes it; it may be some batches older than the view.
    """
    return _page(view.path.resolve().name, report, view)


def body(page: Page) -> str:
    """The changing part of a page: its navigation and its main content."""
    return _write("body.html", page=page)


def live_policy() -> str:
    """Content-Security-Policy of the live page: its script by hash, updates from its own server, nothing else."""
    digest = base64.b64encode(hashlib.sha256(_file("live.js").encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _page(title: str, report: str, live: View | None) -> str:
    rows = latest(live.run) if live and live.run else ()
    return _write(
        "page.html",
        title=title,
        body=report,
        live=live,
        clauses=standing(live) if live else (),
        latest=table("Latest batches, newest first", LATEST_HEAD, rows),
        policy=POLICY,
        style=_file("page.css"),
        script=_file("live.js"),
    )


def _write(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("laser.analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"cell": _cell, "svg": as_svg}
    made.tests |= {
        "words": lambda block: isinstance(block, Words),
        "table": lambda block: isinstance(block, Table),
        "picture": lambda block: isinstance(block, Picture),
        "examples": lambda block: isinstance(block, Examples),
        "code": lambda block: isinstance(block, Code),
        "long": lambda value: isinstance(value, str) and len(value) > _LONG,
    }
    return made


def _finalize(value: Any) -> Any:
    """What a template prints for a value: strings made `visible`; markup that a template made or trusts, unchanged."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _cell(value: Cell) -> str:
    """A cell of a table: numbers with few digits, a dash for nothing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@cache
def _file(name: str) -> str:
    return resources.files("laser.analysis.report").joinpath("templates", name).read_text(encoding="utf-8")

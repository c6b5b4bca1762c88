"""One self-contained page: no script, no network, everything that was not written here is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib import resources

from laser.analysis.report.blocks import Block, Cell, Code, Example, Examples, Page, Picture, Section, Table, Words
from laser.analysis.report.figure import as_svg
from laser.analysis.shown import markup

_LONG = 44  # characters of a cell that stay on one line
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def style() -> str:
    """The style sheet of all pages."""
    return resources.files("laser.analysis.report").joinpath("page.css").read_text(encoding="utf-8")


def document(page: Page) -> str:
    """A whole page as a file of its own."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>laser: {markup(page.title)}</title><style>{style()}</style></head>"
        f'<body><a class="skip" href="#main">Skip to content</a>'
        f"<header><h1>{markup(page.title)}</h1></header>{navigation(page.sections)}"
        f'<main id="main" tabindex="-1"><div class="lead">{paragraphs(page.lead)}</div>'
        f"{''.join(section(one) for one in page.sections)}</main>"
        "<footer><p>Written by laser from the run directory alone. No script, no network.</p></footer></body></html>\n"
    )


def navigation(sections: Iterable[Section]) -> str:
    """Links to the sections."""
    links = "".join(f'<li><a href="#{one.name}">{markup(one.title)}</a></li>' for one in sections)
    return f'<nav aria-label="Sections"><ul>{links}</ul></nav>'


def section(one: Section) -> str:
    """A section with its heading."""
    body = "".join(block(each, f"{one.name}-{index}") for index, each in enumerate(one.blocks))
    return f'<section aria-labelledby="{one.name}"><h2 id="{one.name}">{markup(one.title)}</h2>{body}</section>'


def block(one: Block, prefix: str) -> str:
    """Any block; `prefix` makes its ids unique."""
    match one:
        case Words():
            return paragraphs(one.paragraphs)
        case Table():
            return table(one)
        case Picture():
            return picture(one, prefix)
        case Examples():
            return f'<ol class="examples">{"".join(map(example, one.examples))}</ol>'
        case Code():
            return f"<details><summary>{markup(one.summary)}</summary>{scroll(one.summary, code(one.text))}</details>"


def paragraphs(texts: Iterable[str]) -> str:
    """Paragraphs of plain text."""
    return "".join(f"<p>{markup(text)}</p>" for text in texts)


def code(text: str) -> str:
    """Text as it is."""
    return f"<pre>{markup(text)}</pre>"


def table(one: Table) -> str:
    """A table that scrolls within itself where it is too wide."""
    heads = "".join(f'<th scope="col">{markup(name)}</th>' for name in one.head)
    rows = "".join(
        f'<tr><th scope="row"{_wide(row[0])}>{cell(row[0])}</th>'
        f"{''.join(f'<td{_wide(value)}>{cell(value)}</td>' for value in row[1:])}</tr>"
        for row in one.rows
    )
    inside = (
        f"<table><caption>{markup(one.caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )
    return scroll(one.caption, inside)


def cell(value: Cell) -> str:
    """A cell; numbers with few digits, nothing as a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return markup(f"{value:.3g}" if isinstance(value, float) else str(value))


def _wide(value: Cell) -> str:
    """Long text may break into lines, anything else stays on one."""
    return ' class="long"' if isinstance(value, str) and len(value) > _LONG else ""


def picture(one: Picture, prefix: str) -> str:
    """A picture with its caption, and its numbers folded away."""
    return (
        f"<figure>{scroll(one.title, as_svg(one, prefix))}"
        f"<figcaption><strong>{markup(one.title)}.</strong> {markup(one.text)}</figcaption>"
        f'<details><summary>Numbers<span class="hidden"> of {markup(one.title)}</span></summary>{table(one.table)}'
        "</details></figure>"
    )


def example(one: Example) -> str:
    """A prompt with two responses."""
    responses = "".join(
        f'<div class="response"><h4>{markup(each.role)} <span class="scores">{_scores(each.scores)}</span></h4>'
        f'<blockquote dir="auto">{markup(each.text)}</blockquote></div>'
        for each in one.responses
    )
    return (
        f'<li><h3>{markup(one.headline)}</h3><blockquote class="prompt" dir="auto">{markup(one.prompt)}</blockquote>'
        f'<div class="responses">{responses}</div></li>'
    )


def scroll(name: str, inside: str) -> str:
    """A box that scrolls sideways within itself, by keyboard too."""
    return f'<div class="scroll" role="group" aria-label="{markup(name)}" tabindex="0">{inside}</div>'


def _scores(scores: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{markup(name)} {value:.4g}" for name, value in scores)

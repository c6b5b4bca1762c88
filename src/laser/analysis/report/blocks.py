"""The parts of a page: words, tables, pictures, examples. Plain data; `render` writes it as HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Words:
    """Paragraphs."""

    paragraphs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        caption: What it shows.
        head: Names of the columns; the first column names the rows.
        rows: Cells; numbers are shown with few digits, None as a dash.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, and its numbers for readers who cannot see it.

    Attributes:
        name: File name of its PNG, without the ending.
        title: What it shows, in a few words.
        text: The same in a sentence or two, for a screen reader and as a caption.
        draw: Draws it on an empty matplotlib figure.
        table: Its numbers.
        height: In inches, of a width of `figure.WIDTH`.
    """

    name: str
    title: str
    text: str
    draw: Callable[[Any], None]
    table: Table
    height: float = 2.9


@dataclass(frozen=True, slots=True)
class Response:
    """One response of an example, with its scores."""

    role: str
    text: str
    scores: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and its responses.

    Attributes:
        headline: Why it is shown.
        prompt: The prompt.
        responses: Two of its responses.
    """

    headline: str
    prompt: str
    responses: tuple[Response, ...]


@dataclass(frozen=True, slots=True)
class Examples:
    """A list of examples."""

    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Text as it is, folded away under a summary."""

    summary: str
    text: str


Block = Words | Table | Picture | Examples | Code


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page.

    Attributes:
        name: Its anchor: lower-case letters and dashes.
        title: Its heading.
        blocks: What it holds.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page.

    Attributes:
        title: Its name.
        lead: Its first paragraphs: what came out, in words.
        sections: The rest.
    """

    title: str
    lead: tuple[str, ...]
    sections: tuple[Section, ...]

    def pictures(self) -> list[Picture]:
        """All pictures, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]


def words(*paragraphs: str) -> Words:
    """Paragraphs, empty ones left out."""
    return Words(tuple(paragraph for paragraph in paragraphs if paragraph))


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """A table of any sequences."""
    return Table(caption, tuple(head), tuple(tuple(row) for row in rows))

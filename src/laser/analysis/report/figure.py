"""Pictures: one drawing, written as inline SVG that takes the page's colors, or as PNG.

Colors are those of Okabe and Ito, distinguishable without red-green vision; hatches, markers and dashes repeat them.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from laser.analysis.report.blocks import Picture
from laser.analysis.shown import markup, one_line

WIDTH = 5.8  # inches
_TEXT = "#010203"  # stands for the page's text color until the SVG is written
_POINTS_PER_LETTER, _POINTS_PER_HANDLE = 6.2, 54.0  # of a legend
_LABEL = 22  # characters of a name that fit into a picture; tables have all of it

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442")
_HATCHES = ("", "//", ".", "x", "\\\\", "o", "-", "+")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))

_STYLE: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _TEXT),
    "hatch.color": "#000000",  # seen on every color of these, in light and dark
    "hatch.linewidth": 0.5,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "grid.color": _TEXT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}


@dataclass(frozen=True, slots=True)
class Look:
    """How pictures distinguish one of several things from the others."""

    color: str
    hatch: str
    marker: str
    dashes: Any


def look(index: int) -> Look:
    """The look of the thing with index `index`."""
    return Look(
        _COLOURS[index % len(_COLOURS)],
        _HATCHES[index % len(_HATCHES)],
        _MARKERS[index % len(_MARKERS)],
        _DASHES[index % len(_DASHES)],
    )


def dots_and_lines(index: int) -> dict[str, Any]:
    """The look of one of several lines with error bars, as options of matplotlib's `errorbar`."""
    style = look(index)
    edge = {"markeredgecolor": outline(), "markeredgewidth": 0.5}
    return {
        "color": style.color,
        "linestyle": style.dashes,
        "capsize": 2,
        "marker": style.marker,
        "markersize": 5,
        **edge,
    }


def label(name: str) -> str:
    """A name short enough for a picture; matplotlib hides labels that begin with an underscore."""
    short = one_line(name, _LABEL)
    return f"\u200b{short}" if short.startswith("_") else short


def file_name(name: str) -> str:
    """A name as a part of a file's name."""
    return "".join(character if character.isalnum() or character in "-_." else "-" for character in name)


def legend(axis: Any, names: Sequence[str], handles: Sequence[Any]) -> None:
    """A legend above the picture, in as many columns as fit next to each other."""
    if handles:
        widest = _POINTS_PER_LETTER * max(len(label(name)) for name in names) + _POINTS_PER_HANDLE
        axis.figure.legend(
            list(handles),
            [label(name) for name in names],
            loc="outside upper left",
            ncols=min(len(names), max(1, int(72 * WIDTH / widest))),
        )


def outline() -> str:
    """The color of edges and of text."""
    return _TEXT


def as_svg(picture: Picture, prefix: str) -> str:
    """Inline SVG whose text has the page's color, with a title and a description.

    Args:
        picture: What to draw.
        prefix: Put before every id, so that several pictures fit on one page.
    """
    svg = _written(picture, "svg", salt=prefix).decode()
    svg = svg[svg.index("<svg") :].replace(_TEXT, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}-", svg)
    head, body = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    opening = f'<svg {view[0]} role="img" aria-labelledby="{prefix}-t {prefix}-d" xmlns="http://www.w3.org/2000/svg"'
    names = f'<title id="{prefix}-t">{markup(picture.title)}</title><desc id="{prefix}-d">{markup(picture.text)}</desc>'
    return f'{opening} xmlns:xlink="http://www.w3.org/1999/xlink">{names}{body}'


def as_png(picture: Picture) -> bytes:
    """The picture dark on white, for slides and papers, without title and caption."""
    return _written(picture, "png", salt="")


def _written(picture: Picture, format: str, *, salt: str) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    style: Any = {**_STYLE, "svg.hashsalt": f"laser{salt}"}
    with (
        matplotlib.rc_context(style),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has more letters than this font
        figure = Figure(figsize=(WIDTH, picture.height), layout="constrained")
        picture.draw(figure)
        metadata = {"Date": None} if format == "svg" else {"Software": None}
        figure.savefig(buffer, format=format, transparent=format == "svg", dpi=144, metadata=metadata)
    return buffer.getvalue()

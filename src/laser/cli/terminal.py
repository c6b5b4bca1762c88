"""The one way to the terminal: what a model, a data set or a server wrote arrives there as text, never as a command.

Control characters could move the cursor, hide lines, set the window's title or type into the shell; marks of text
direction could show a line other than it is. They are replaced, wherever they come from; styles and cursor movements of
the program itself are not text and pass.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_REPLACEMENT = "\ufffd"
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line and paragraph separators, marks of direction
    "\ud800-\udfff]"  # halves of surrogate pairs, which cannot be printed at all
)


def plain(text: str) -> str:
    """Text without what a terminal would obey."""
    return _UNSAFE.sub(_REPLACEMENT, text)


class SafeConsole(Console):
    """A console whose text is made `plain` on its way out, whatever it was rendered from."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `Console.render`; every piece of text passes here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


def make_console(*, quiet: bool = False, stderr: bool = False, width: int | None = None) -> Console:
    """The console of a command."""
    return SafeConsole(highlight=False, quiet=quiet, stderr=stderr, width=width)


def say(message: str, *, error: bool = False) -> None:
    """Print a line as it is, to standard output or standard error."""
    print(plain(message), file=sys.stderr if error else sys.stdout, flush=True)

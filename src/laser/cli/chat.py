"""``laser chat``: a conversation on the terminal, in a pipe, or of one question."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from laser.cli.environment import prepare
from laser.cli.options import Overrides, Trust
from laser.cli.terminal import make_console, plain
from laser.core.errors import ConfigError, LaserError

if TYPE_CHECKING:
    from laser.commands.chat import Chat, Turn

_HELP = "/reset starts a new conversation, /quit ends it"
_SHOWN = 70  # characters of a reply in the table of scores
_BRIEF = 160  # characters of an answer before or after training
_SEQUENCES = re.compile(
    "(?:\x1b[\\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x9c|\x1b\\\\)?"  # strings: titles, links
    "|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"  # colors, cursor, screen
    "|\x1b[ -/]*[0-~]?"  # everything else that begins with an escape
    "|\r"
)


def readable(text: str) -> str:
    """What a model said, without control sequences and with the control characters that are left replaced.

    What it makes of the beginning of a text is the beginning of what it makes of the whole, so that a reply may be
    shown as it grows.
    """
    return plain(_SEQUENCES.sub("", text))


class _Stream:
    """Prints a reply as it grows; replies go to standard output, everything else to standard error."""

    def __init__(self) -> None:
        self._written = ""

    def __call__(self, text: str) -> None:
        fresh = readable(text)
        if fresh.startswith(self._written):
            sys.stdout.write(fresh[len(self._written) :])
            sys.stdout.flush()
            self._written = fresh

    def end(self, text: str) -> None:
        """Print what is missing of the whole reply, and end the line."""
        if not readable(text).startswith(self._written):  # decoded as a whole it differs from its beginning
            sys.stdout.write("\n")
            self._written = ""
        self(text)
        sys.stdout.write("\n")
        sys.stdout.flush()
        self._written = ""


def chat(
    run: Annotated[Path, typer.Argument(help="Run directory.", show_default=False)],
    once: Annotated[
        str | None, typer.Option(help="Answer this and end; - reads it from standard input.", show_default=False)
    ] = None,
    best_of: Annotated[
        int, typer.Option(min=1, help="Replies to sample; the selected reward model picks one.", show_default=False)
    ] = 1,
    reward_model: Annotated[
        str | None, typer.Option(help="Reward model that picks, whatever the selector says.", show_default=False)
    ] = None,
    before_after: Annotated[
        int | None,
        typer.Option(
            min=1, help="Answer this many dev prompts before and after training, and end.", show_default=False
        ),
    ] = None,
    overrides: Overrides = None,
    trust: Trust = False,
) -> None:
    """Talk to the policy of a run; with --best-of, see which reward model picked the reply, and why.

    Example: laser chat runs/mine --best-of 4 --set generation.temperature=0.7
    """
    prepare()
    stream, console = _Stream(), make_console(stderr=True)
    if before_after is not None:
        if once is not None or best_of > 1 or reward_model is not None or overrides:
            raise ConfigError("--before-after answers dev prompts as the run's dev checks did; drop the other options")
        print_before_after(run, before_after, make_console(), trust=trust)
        return
    console.print(f"loading {escape(str(run))}")
    from laser.commands.chat import Chat

    talk = Chat(run, best_of=best_of, reward_model=reward_model, overrides=overrides or [], trust=trust, on_text=stream)
    try:
        if once is not None:
            _answer(talk, sys.stdin.read() if once == "-" else once, stream, console)
        elif sys.stdin.isatty():
            _converse(talk, stream, console)
        else:
            for text in _lines(talk):
                _answer(talk, text, stream, console)
    finally:
        talk.close()


def print_before_after(run: Path, num: int, console: Console, *, trust: bool = False) -> None:
    """Print answers to dev prompts before and after training."""
    from laser.commands.chat import before_and_after

    for one in before_and_after(run, num, trust=trust):
        gold = "" if one.prompt.answer is None else f"   (gold answer: {one.prompt.answer})"
        console.print(escape(f"\n{one.prompt.category}: {_brief(one.prompt.text)}{gold}"), soft_wrap=True)
        verdicts = ("", "") if one.right is None else tuple("right" if right else "wrong" for right in one.right)
        for when, text, verdict in zip(("before", "after"), (one.before, one.after), verdicts, strict=True):
            console.print(escape(f"  {when:6} {verdict:5} {_brief(text)}"), soft_wrap=True)


def _brief(text: str) -> str:
    """The beginning of a text in one line."""
    flat = " ".join(readable(text).split())
    return flat if len(flat) <= _BRIEF else f"{flat[:_BRIEF]}..."


def _converse(chat: Chat, stream: _Stream, console: Console) -> None:
    """Converse until the user quits; errors are printed and the conversation continues."""
    import readline  # noqa: F401  # line editing and history for input()

    console.print(f"{_HELP}; Ctrl-C or Ctrl-D too")
    while True:
        try:
            text = input("you> ").strip()
            if text == "/quit":
                return
            if text == "/reset":
                chat.reset()
                console.print("a new conversation")
            elif text.startswith("/") and " " not in text:
                console.print(f"no such command; {_HELP}")
            elif text:
                _answer(chat, text, stream, console)
        except (EOFError, KeyboardInterrupt):
            console.print("\nbye")
            return
        except LaserError as error:
            console.print(f"laser: error: {escape(str(error))}; /reset begins a new conversation")


def _lines(chat: Chat) -> Iterator[str]:
    """The user's messages in a pipe, one a line."""
    for line in sys.stdin:
        text = line.strip()
        if text == "/quit":
            return
        if text == "/reset":
            chat.reset()
        elif text:
            yield text


def _answer(chat: Chat, text: str, stream: _Stream, console: Console) -> None:
    turn = chat.say(text)
    stream.end(turn.text)
    if not turn.finished:
        console.print("(cut at generation.max_new_tokens)")
    if len(turn.candidates) > 1:
        _explain(turn, console)


def _explain(turn: Turn, console: Console) -> None:
    """Which reward model picked, what the selector thought of each, and what it gave to each reply."""
    for note in turn.notes:
        console.print(f"left out: {escape(note)}")
    table = Table("reward model", "weight", "probability", "value", title="Who picked")
    for one in turn.arms:
        cells = ("-" if number is None else f"{number:.3g}" for number in (one.probability, one.value))
        table.add_row(escape(one.name), f"{one.weight:.3g}", *cells, style="bold" if one.weight > 0 else "")
    console.print(table)
    table = Table("", "score", "reply", title=f"The best of {len(turn.candidates)}")
    for number, (candidate, score) in enumerate(zip(turn.candidates, turn.scores, strict=True)):
        mark = ">" if number == turn.picked else ""
        beginning = " ".join(readable(candidate).split())[:_SHOWN]
        table.add_row(mark, "none" if score != score else f"{score:.4g}", escape(beginning))
    console.print(table)

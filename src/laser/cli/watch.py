"""``laser watch``: a run directory as it grows, in the terminal or on a page of this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from laser.cli.terminal import make_console, say

if TYPE_CHECKING:
    from laser.analysis.follow import View, Watch


def watch(
    run: Annotated[Path, typer.Argument(help="Run directory; it need not exist yet.", show_default=False)],
    once: Annotated[bool, typer.Option("--once", help="Print the run at this moment and exit.")] = False,
    web: Annotated[bool, typer.Option("--web", help="Serve a page that updates, to this machine only.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --web: port on 127.0.0.1; 0 takes any.")] = 8765,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 1.0,
) -> None:
    """Show a run while it trains: choices, bandit rewards, loss, dev metric, failures.

    Example: laser watch runs/mine, or laser watch runs/mine --web for a page at http://127.0.0.1:8765
    """
    if web:
        _serve(run, port=port)
    else:
        _follow(run, once=once, every=every)


def _follow(path: Path, *, once: bool, every: float) -> None:
    """Show the run until it is finished or the reader stops; `once` shows it as it is and returns.

    Raises:
        RunDirectoryError: There is something else than a run.
    """
    from laser.analysis.follow import State, Watch
    from laser.analysis.frame import frame
    from laser.analysis.shown import visible

    console, watch = make_console(), Watch(path)
    view = watch.look()
    if once or view.state is State.finished:
        console.print(frame(view))
        return
    try:
        if console.is_terminal:
            _redraw(console, watch, view, every)
        else:
            _print_each(console, watch, view, every)
    except KeyboardInterrupt:
        console.print(f"stopped watching; the run continues: laser watch {visible(str(path))}", markup=False)


def _serve(path: Path, *, port: int) -> None:
    """Serve the page until the reader stops.

    Raises:
        LaserError: There is something else than a run, or the port cannot be had.
    """
    from laser.analysis.follow import Watch
    from laser.analysis.server import LiveServer
    from laser.analysis.shown import visible

    with LiveServer(Watch(path), port) as server:
        say(f"watching {visible(str(path))} at {server.url} (this machine only; Ctrl-C stops)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("stopped watching; the run continues")


def _redraw(console: Console, watch: Watch, view: View, every: float) -> None:
    from rich.live import Live

    from laser.analysis.follow import State
    from laser.analysis.frame import differ, frame

    with Live(frame(view), console=console, auto_refresh=False, transient=False) as live:
        while view.state is not State.finished:
            time.sleep(every)
            before, view = view, watch.look()
            if differ(before, view):
                live.update(frame(view), refresh=True)


def _print_each(console: Console, watch: Watch, view: View, every: float) -> None:
    """In a pipe: a frame whenever something has happened."""
    from laser.analysis.follow import State
    from laser.analysis.frame import frame

    shown: object = None
    while True:
        mark = (view.state, view.num_done, len(view.run.evaluations) if view.run is not None else 0)
        if mark != shown:
            console.print(frame(view))
            shown = mark
        if view.state is State.finished:
            return
        time.sleep(every)
        view = watch.look()

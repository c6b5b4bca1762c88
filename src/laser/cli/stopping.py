"""Ctrl-C and SIGTERM: the first asks a run to stop after its batch and to save, the second stops it at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from laser.cli.terminal import say
from laser.core.errors import LaserError, StoppedError

_WORD = b"\nlaser: stopping once this batch is done and saved; the same again stops at once\n"


class Stopper:
    """Asked by the loop between batches; before it first asks, a signal interrupts as usual.

    Attributes:
        signal: The last signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._asked = False

    def __call__(self) -> bool:
        """Whether the run should stop."""
        self._asked = True
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended."""
        return 128 + (self.signal or signal.SIGINT)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside the block, except those that the process ignores (`nohup`).

        After an error SIGTERM is ignored: a launcher ends all processes once one has failed, and the main one still has
        to say why.
        """
        kinds = [kind for kind in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(kind) is not signal.SIG_IGN]
        before: dict[signal.Signals, Any] = {kind: signal.signal(kind, self._handle) for kind in kinds}
        try:
            yield
        except LaserError as error:
            if not isinstance(error, StoppedError):
                before[signal.SIGTERM] = signal.SIG_IGN
            raise
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first, self.signal = self.signal is None, number
        if not self._asked or not first:
            raise KeyboardInterrupt
        os.write(2, _WORD)  # printing is not safe here


@contextmanager
def resumable(stopper: Stopper, command: str, where: Path) -> Iterator[None]:
    """Run the block; a signal ends it with a saved run, a sentence that says how to continue, and an exit code."""
    from laser.parallel.ranks import is_main

    beginning = where.absolute() / "config.json"  # code of users may change the working directory
    try:
        with stopper.listening():
            yield
    except (KeyboardInterrupt, StoppedError) as stopped:
        how = "stopped, all saved" if isinstance(stopped, StoppedError) else "interrupted"
        cure = f"continue with: laser {command} --resume {where}" if beginning.exists() else "nothing was written"
        if is_main():
            say(f"laser: {how}; {cure}", error=True)
        sys.exit(stopper.exit_code)

"""Ctrl-C and SIGTERM: the first asks a run to stop after its batch and to save, the second stops it at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
        """Handle the signals inside the block, except those that the process ignores (`nohup`)."""
        kinds = [kind for kind in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(kind) is not signal.SIG_IGN]
        before = {kind: signal.signal(kind, self._handle) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first, self.signal = self.signal is None, number
        if not self._asked or not first:
            raise KeyboardInterrupt
        os.write(2, _WORD)  # printing is not safe here

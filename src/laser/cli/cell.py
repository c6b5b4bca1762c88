"""The process of one cell of ``laser compare``: ``python -m laser.cli.cell``, the cell as a line of JSON on stdin.

It ends with code 0, or with code 2 and a sentence. Standard input stays open as long as the parent lives. When it
closes, the process stops as if it were terminated; everything up to the last checkpoint is on disk.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings

from laser.cli.progress import PlainProgress
from laser.cli.terminal import make_console, say
from laser.compare.worker import run_cell
from laser.core.errors import LaserError


def main() -> int:
    """Run the cell that standard input names, and return the exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, about each other
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        run_cell(order, PlainProgress(make_console(width=200)))
    except LaserError as error:
        say(f"laser: error: {error}", error=True)
        return 2
    except KeyboardInterrupt:
        say("laser: interrupted", error=True)
        return 130
    return 0


def _stop_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not through sys.stdin, whose lock would outlive the main thread
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _terminate(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

"""The process of one cell: ``python -m laser.compare.worker``, the cell as one line of JSON on standard input.

It trains or resumes, measures on test prompts where the suite wants that, and ends with code 0, or 2 and a sentence.
Standard input stays open as long as the parent lives; when it closes, the process stops as if it was terminated, with
everything up to the last checkpoint on disk.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from laser.analysis.records import is_finished, is_run
from laser.cli.progress import PlainProgress
from laser.cli.terminal import make_console, say
from laser.compare.cells import Measurement
from laser.compare.state import METHODS, is_measured
from laser.config import RunConfig, parse_config
from laser.core.errors import ConfigError, LaserError
from laser.core.files import write_json
from laser.training.progress import Progress


def run_cell(order: dict[str, Any], progress: Progress) -> None:
    """Do what is left of a cell.

    Args:
        order: What `laser.compare.schedule.order_for` gives.
        progress: Told what happens.

    Raises:
        LaserError: It cannot be done.
    """
    folder, config = Path(order["folder"]), parse_config(order["config"])
    _check_device(order["device"])
    if order["methods"]:
        _compare_best_of_n(folder, config, order["methods"], progress)
        return
    from laser.commands import train as api

    if not is_finished(folder):
        if is_run(folder):
            api.resume(folder, config=config, progress=progress)
        else:
            api.train(config, folder, progress=progress)
    if order["measurement"] is not None:
        _measure(folder, config, order["label"], Measurement.from_record(order["measurement"]), progress)
    if order["keep"] == "results":
        _drop_weights(folder)


def _check_device(name: str) -> None:
    """A GPU that is not there would leave `device = "auto"` with the CPU, and nobody would notice for days."""
    if name.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(f"device {name!r} is not there; name those that are with --devices")


def _compare_best_of_n(folder: Path, config: RunConfig, methods: dict[str, Any], progress: Progress) -> None:
    from laser.commands.best_of_n import best_of_n

    best_of_n(config, folder, {name: parse_config(table) for name, table in methods.items()}, note=progress.note)
    write_json(folder / METHODS, methods)  # the mark of a finished comparison


def _measure(folder: Path, config: RunConfig, label: str, measurement: Measurement, progress: Progress) -> None:
    """Measure the trained policy on test prompts, unless that is done."""
    if is_measured(folder, measurement):
        return
    from laser.compare.measure import measure

    write_json(folder / measurement.file, measure(config, folder, label, measurement, progress.note))


def _drop_weights(folder: Path) -> None:
    """Drop what only a resume or a user of the policy needs; the selector stays, for cold starts."""
    for part in ("policy", "optimizer"):
        for path in (folder / "checkpoints").glob(f"*/{part}.*"):
            path.unlink()
    shutil.rmtree(folder / "adapter", ignore_errors=True)


def _stop_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not through sys.stdin, whose lock would outlive the main thread
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _terminate(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the cell that standard input names."""
    signal.signal(signal.SIGTERM, _terminate)
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, about each other
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    progress = PlainProgress(make_console(width=200))
    try:
        run_cell(order, progress)
    except LaserError as error:
        say(f"laser: error: {error}", error=True)
        return 2
    except KeyboardInterrupt:
        say("laser: interrupted", error=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

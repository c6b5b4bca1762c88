"""What the process of one cell does: train or resume, then measure on test prompts where the suite asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from laser.analysis.records import is_finished, is_run
from laser.compare.cells import Measurement
from laser.compare.state import METHODS, is_measured
from laser.config import RunConfig, parse_config
from laser.core.errors import ConfigError
from laser.core.files import is_folder, remove, write_json
from laser.training.progress import Progress


def run_cell(order: dict[str, Any], progress: Progress) -> None:
    """Finish a cell: skip the parts that are done.

    Args:
        order: The record from `laser.compare.schedule.order_for`.
        progress: Receives the events of the run.

    Raises:
        LaserError: The cell cannot be trained or measured.
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
    """Refuse a missing GPU; otherwise `device = "auto"` would silently train on the CPU for days."""
    if name.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise ConfigError(f"device {name!r} does not exist on this machine; choose another with --devices")


def _compare_best_of_n(folder: Path, config: RunConfig, methods: dict[str, Any], progress: Progress) -> None:
    from laser.commands.best_of_n import best_of_n

    best_of_n(config, folder, {name: parse_config(table) for name, table in methods.items()}, note=progress.note)
    write_json(folder / METHODS, methods)  # marks the comparison as finished


def _measure(folder: Path, config: RunConfig, label: str, measurement: Measurement, progress: Progress) -> None:
    """Measure the trained policy on test prompts, unless its file exists."""
    if is_measured(folder, measurement):
        return
    from laser.compare.measure import measure

    write_json(folder / measurement.file, measure(config, folder, label, measurement, progress.note))


def _drop_weights(folder: Path) -> None:
    """Delete the weights of a finished cell; the selector stays, for cold starts."""
    for checkpoint in (folder / "checkpoints").iterdir() if is_folder(folder / "checkpoints") else ():
        for part in ("policy", "optimizer"):
            for path in checkpoint.glob(f"{part}.*") if is_folder(checkpoint) else ():
                path.unlink()
    remove(folder / "adapter")

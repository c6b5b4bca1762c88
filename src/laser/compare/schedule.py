"""Runs every cell in a separate process, several at a time, distributed over the given devices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laser.compare.cells import Cell, Key
from laser.compare.state import State, changed_sources, failure_note, log_file, methods_record, standing, write_failure
from laser.core.errors import ConfigError
from laser.core.files import check_inside, open_regular, read_bytes

_POLL = 0.1  # seconds
_GRACE = 60.0  # seconds that interrupted cells have to stop on their own
_TO_RUN = (State.missing, State.interrupted, State.failed)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of running cells.

    Attributes:
        done: Cells whose process ended, failed ones included.
        failures: The reason, for each cell that failed or could not run.
    """

    done: tuple[Key, ...]
    failures: Mapping[Key, str]


def check_devices(names: Sequence[str]) -> None:
    """Check that cells can run on the devices.

    Raises:
        ConfigError: This machine, or CUDA_VISIBLE_DEVICES, lacks one.
    """
    if all(name in ("auto", "cpu") for name in names):
        return
    import torch

    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    there += ["mps"] if torch.backends.mps.is_available() else []
    missing = [name for name in names if name not in ("auto", *there)]
    if missing:
        raise ConfigError(
            f"device {missing[0]!r} does not exist on this machine; choose among {', '.join(there)} with --devices"
        )


def run_cells(
    cells: Sequence[Cell],
    out: Path,
    *,
    command: Sequence[str],
    devices: Sequence[str],
    workers: int,
    keep: str,
    note: Callable[[str], None],
) -> Outcome:
    """Run the unfinished cells; a failing cell does not stop the others.

    Args:
        cells: The cells, with all that they need.
        out: The suite's directory.
        command: Starts the process of a cell, which reads the record of `order_for` from its standard input and calls
            `laser.compare.worker.run_cell`.
        devices: Each runs `workers` cells at a time.
        workers: Cells at a time on a device.
        keep: "all", or "results" to delete the weights of finished cells.
        note: Receives a line when a cell ends.
    """
    board = _Board(cells, out, note)
    free = [device for _ in range(workers) for device in devices]
    running: list[_Process] = []
    try:
        while board.waiting or running:
            for cell in board.take(len(free), idle=not running):
                running.append(_Process(command, cell, out, free.pop(0), keep))
            time.sleep(_POLL)
            for process in [process for process in running if process.ended]:
                running.remove(process)
                free.append(process.device)
                board.end(process.key, process.failure(), process.seconds)
    finally:
        _stop(running)
    return Outcome(tuple(board.done), board.failures)


class _Board:
    """The cells that wait, are finished, or cannot run."""

    def __init__(self, cells: Sequence[Cell], out: Path, note: Callable[[str], None]) -> None:
        states = {cell.key: standing(cell, out) for cell in cells}
        self._note = note
        self._finished = {key for key, state in states.items() if state.state is State.finished}
        self.failures = {key: state.reason for key, state in states.items() if state.state is State.different}
        finished = {cell.key: cell for cell in cells if cell.key in self._finished}
        self.failures |= {key: found for key, cell in finished.items() if (found := changed_sources(cell, out))}
        self._finished -= self.failures.keys()
        self.waiting = [cell for cell in cells if states[cell.key].state in _TO_RUN]
        self.done: list[Key] = []
        self._total = len(self.waiting)
        for key, state in states.items():
            if state.state is State.running:
                note(f"{key}: skipped, because another process is running it")

    def take(self, count: int, *, idle: bool) -> list[Cell]:
        """Take up to `count` cells that can start; cells that can never start become failures."""
        for cell in self.waiting:
            failed = [need for need in cell.needs if need in self.failures]
            if failed:
                self.failures[cell.key] = f"not run, because it needs {failed[0]}"
        self.waiting = [cell for cell in self.waiting if cell.key not in self.failures]
        ready = [cell for cell in self.waiting if self._finished.issuperset(cell.needs)]
        if idle and not ready:
            for cell in self.waiting:
                missing = next(need for need in cell.needs if need not in self._finished)
                self.failures[cell.key] = f"not run, because it needs {missing}, which is not finished"
            self.waiting = []
        taken = ready[:count]
        self.waiting = [cell for cell in self.waiting if cell not in taken]
        return taken

    def end(self, key: Key, failure: str | None, seconds: float) -> None:
        """Record the end of a cell's process."""
        self.done.append(key)
        if failure is None:
            self._finished.add(key)
        else:
            self.failures[key] = failure
        word = "done" if failure is None else f"failed: {failure}"
        self._note(f"[{len(self.done)}/{self._total}] {key}: {word} ({seconds:.0f} s)")


def order_for(cell: Cell, out: Path, device: str, keep: str) -> dict[str, Any]:
    """Return the record that `laser.compare.worker.run_cell` reads."""
    return {
        "folder": str(cell.key.folder(out)),
        "label": cell.key.method,
        "device": device,
        "config": cell.config.model_dump(mode="json"),
        "measurement": cell.measurement.as_record() if cell.measurement is not None else None,
        "methods": methods_record(cell),
        "keep": keep,
    }


class _Process:
    """The running process of one cell."""

    def __init__(self, command: Sequence[str], cell: Cell, out: Path, device: str, keep: str) -> None:
        self.key, self.device = cell.key, device
        self._out, self._log, self._begin = out, log_file(cell.key, out), time.monotonic()
        check_inside(out, cell.key.folder(out))
        self._log.parent.mkdir(parents=True, exist_ok=True)
        failure_note(cell.key, out).unlink(missing_ok=True)
        with open_regular(self._log, "ab") as log:
            self._popen = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=device_environment(device, os.environ),
                start_new_session=True,  # only the parent receives an interrupt, and then stops the cells
            )
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError):  # it ended at once; `failure` says why
            self._popen.stdin.write(json.dumps(order_for(cell, out, device, keep)).encode() + b"\n")
            self._popen.stdin.flush()

    @property
    def ended(self) -> bool:
        return self._popen.poll() is not None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begin

    def failure(self) -> str | None:
        """Return why it failed and write it to disk; None if it succeeded."""
        code = self._popen.wait()
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        if code == 0:
            return None
        lines = read_bytes(self._log).decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
        reason = last.removeprefix("laser: error: ") if code == 2 else f"{_ending(code)}; its last line: {last}"
        sentence = f"{reason} (log: {self._log})"
        write_failure(self.key, self._out, sentence)
        return sentence

    def terminate(self) -> None:
        """Ask it to stop; everything up to its last checkpoint is on disk."""
        self._popen.terminate()

    def wait(self, seconds: float) -> None:
        """Wait for its end, and kill it after `seconds`."""
        try:
            self._popen.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def _ending(code: int) -> str:
    return f"ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _stop(running: Sequence[_Process]) -> None:
    for process in running:
        process.terminate()
    end = time.monotonic() + _GRACE
    for process in running:
        process.wait(end - time.monotonic())


def device_environment(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that sees one device.

    Args:
        device: "auto" (unchanged), "cpu" (no GPU, one thread), "mps", or "cuda:N", the N-th GPU that is visible here.
        environment: The parent's.

    Raises:
        ConfigError: CUDA_VISIBLE_DEVICES shows fewer GPUs.
    """
    result = dict(environment)
    if device == "cpu":
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        result.update({**threads, "CUDA_VISIBLE_DEVICES": ""})
    elif device.startswith("cuda:"):
        index = int(device[5:])
        shown = environment.get("CUDA_VISIBLE_DEVICES")
        visible = [one.strip() for one in shown.split(",") if one.strip()] if shown is not None else None
        if visible is not None and index >= len(visible):
            raise ConfigError(f"device {device!r}: CUDA_VISIBLE_DEVICES shows {len(visible)} GPUs; choose one of them")
        result["CUDA_VISIBLE_DEVICES"] = visible[index] if visible is not None else str(index)
    return result

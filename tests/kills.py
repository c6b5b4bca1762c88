"""Runs that get SIGKILL from outside at seeded random instants, are resumed, killed again, and must come out the same.

Processes are forked from one that has imported everything, so that a kill costs a fraction of a second. The instants
are drawn over phases first (sampling, scoring, training, checkpoint, ...) and then within the phase: drawn over time
alone, the short phases would never be hit.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import laser
from laser.commands import label_files
from laser.commands.label import label
from laser.training.progress import Progress
from processes import FORKS
from runs import essence, make_table

_SHORTEST = 0.001  # seconds into a phase; a kill before that is at its start

PHASES = ("load", "embed", "select", "sample", "score", "train", "update", "checkpoint", "evaluate")


class Announcer(Progress):
    """Writes the current phase where the killer sees it, even after this process is gone.

    At the start of a phase for the count-th time the process stops (SIGSTOP), so that the killer is never too late.
    """

    def __init__(self, board, phase, count):
        self._board = os.open(board, os.O_RDWR | os.O_CREAT)
        self._phase, self._left = phase, count
        self._count = 0
        self.say("load")

    def say(self, name):
        os.pwrite(self._board, f"{self._count} {name}".ljust(40).encode(), 0)
        self._count += 1
        if name == self._phase:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)

    def phase(self, name, *, iteration, step):
        self.say(name)

    def batch(self, record):
        self.say("record")


class Killer(Progress):
    """Kills its own process at the start of a phase for the count-th time; "token" counts sampled tokens."""

    def __init__(self, phase, count):
        self._phase, self._left = phase, count

    def phase(self, name, *, iteration, step):
        if name == self._phase:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def tokens(self, count):
        self.phase("token", iteration=0, step=0)


def work(table, out, board, phase=None, count=0):
    """Begin or resume a run: the body of a process that may be killed at any instant."""
    progress = Killer(phase, count) if board is None else Announcer(board, phase, count)
    if (out / "config.json").exists():
        laser.resume(out, progress=progress)
    else:
        laser.train(table, out, progress=progress)


def start(table, out, board=None, phase=None, count=0):
    """Begin or resume a run in a process, which at the count-th start of a phase stops or, without a board, dies."""
    if board is not None:
        board.unlink(missing_ok=True)
    process = FORKS.Process(target=work, args=(table, out, board, phase, count))
    process.start()
    return process


def label_in_parts(config, out, prompts, progress):
    """`laser label` with parts of few prompts: the body of a process that may be killed."""
    label_files.PART_PROMPTS = prompts
    label(config, out, progress=progress)


def exit_code(process):
    """How a process ended, negative for a signal."""
    process.join()
    return process.exitcode


@dataclass
class KillReport:
    """What was done to how many runs.

    Attributes:
        chains: Runs, each killed several times.
        kills: Kills by the phase that was under way.
        different: Chains whose records, dev checks or adapter bytes are not those of the uninterrupted run.
        seconds: Time taken.
    """

    chains: int = 0
    kills: Counter = field(default_factory=Counter)
    different: list = field(default_factory=list)
    seconds: float = 0.0


def kill_chains(folder: Path, *, kills: int, per_chain: int, seed: int) -> KillReport:
    """Kill runs `kills` times altogether, `per_chain` times each, and compare them with runs that were left alone."""
    begun, rng, report = time.monotonic(), random.Random(seed), KillReport()
    board = folder / "board"
    tables = [_table(folder, sampling) for sampling in ("per_batch", "per_iteration")]
    wholes = [folder / f"whole-{number}" for number in range(len(tables))]
    durations = [_durations(table, whole, board) for table, whole in zip(tables, wholes, strict=True)]
    wanted = _endless(PHASES, rng)
    while report.kills.total() < kills:
        number = report.chains % len(tables)
        out = folder / f"chain-{report.chains}"
        for turn in range(min(per_chain, kills - report.kills.total())):
            phase = next(wanted)
            occurrence = rng.randint(1, 3) if turn == 0 and phase not in ("load", "evaluate") else 1
            instant = rng.random() * durations[number][phase]
            hit = _run_and_kill(tables[number], out, board, phase, occurrence, instant)
            if hit is None:  # it had no more of that phase and ended
                break
            report.kills[hit] += 1
        assert exit_code(start(tables[number], out, board)) == 0
        report.chains += 1
        if not same_run(out, wholes[number]):
            report.different.append(out.name)
    report.seconds = time.monotonic() - begun
    return report


def _endless(items, rng):
    """All items in random order, again and again."""
    while True:
        yield from rng.sample(items, len(items))


def same_run(first: Path, second: Path) -> bool:
    """The same losses, arms and dev checks, and the same bytes of the adapter."""
    files = ("adapter/adapter_model.safetensors", "evaluations.jsonl")
    return essence(first) == essence(second) and all(
        (first / name).read_bytes() == (second / name).read_bytes() for name in files
    )


def _table(folder, sampling):
    return make_table(
        folder, "vowels", "short", training={"sampling": sampling}, checkpoint={"every": 1}, split={"dev": 2}
    )


def _durations(table, out, board):
    """Mean seconds of each phase in a run that is left alone."""
    spent, count, begun, last = Counter(), Counter(), 0.0, None
    process = start(table, out, board)
    while _alive(process.pid):
        read, now = _read(board), time.monotonic()
        if read is not None and read != last:
            if last is not None:
                spent[last[1]] += now - begun
                count[last[1]] += 1
            begun, last = now, read
        time.sleep(0.0005)
    assert exit_code(process) == 0
    return {phase: spent[phase] / count[phase] if count[phase] else 0.01 for phase in PHASES}


def _run_and_kill(table, out, board, phase, occurrence, instant):
    """Resume a run and kill it some time into a phase; returns the phase that was under way, None if the run ended."""
    process = start(table, out, board, phase, occurrence)
    while (state := _state(process.pid)) not in ("T", "Z", None):
        time.sleep(0.0005)
    with contextlib.suppress(ProcessLookupError):
        if state == "T" and instant >= _SHORTEST:
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(instant)
        os.kill(process.pid, signal.SIGKILL)
    return _read(board)[1] if exit_code(process) == -signal.SIGKILL else None


def _state(pid):
    """The state of a process, T if it is stopped, Z if it has ended; None if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return None


def _alive(pid):
    """Whether a process is there and has not ended."""
    return _state(pid) not in ("Z", None)


def _read(board):
    """The phase on the board and its number; None while nothing is written."""
    try:
        words = Path(board).read_bytes().split()
    except FileNotFoundError:
        return None
    return (int(words[0]), words[1].decode()) if len(words) == 2 else None

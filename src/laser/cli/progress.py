"""Progress on a terminal (a live display) and in a pipe (plain lines)."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from laser.analysis.shown import visible
from laser.evaluation.unreadable import unreadable_lines
from laser.training.findings import Findings
from laser.training.progress import Progress

_ROWS_SHOWN = 8


class _Pace:
    """Batches done, tokens sampled, and what that says about the time left."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.done = self.total = self.first = 0
        self.num_tokens = 0
        self._sampling_since: float | None = None
        self._sampling_seconds = 0.0

    def start(self, iterations: int, batches_per_iteration: int, iteration: int, step: int) -> None:
        self.begin = time.monotonic()
        self.total = iterations * batches_per_iteration
        self.done = self.first = iteration * batches_per_iteration + step

    def phase(self, name: str) -> None:
        now = time.monotonic()
        if self._sampling_since is not None:
            self._sampling_seconds += now - self._sampling_since
        self._sampling_since = now if name in ("sample", "evaluate") else None

    @property
    def tokens_per_second(self) -> float:
        running = time.monotonic() - self._sampling_since if self._sampling_since is not None else 0.0
        seconds = self._sampling_seconds + running
        return self.num_tokens / seconds if seconds else 0.0

    @property
    def elapsed(self) -> str:
        return _clock(time.monotonic() - self.begin)

    @property
    def remaining(self) -> str:
        finished = self.done - self.first
        if finished == 0:
            return "--:--"
        return _clock((time.monotonic() - self.begin) / finished * (self.total - self.done))


class PlainProgress(Progress):
    """One line a batch, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pace = _Pace()

    def started(self, *, iterations: int, batches_per_iteration: int, iteration: int, step: int) -> None:
        """Print where the run starts."""
        self._pace.start(iterations, batches_per_iteration, iteration, step)
        self._say(
            f"training: {iterations} iterations x {batches_per_iteration} batches, from iteration {iteration + 1} "
            f"batch {step + 1}"
        )

    def phase(self, name: str, *, iteration: int, step: int) -> None:
        """Announce dev checks, which take a while; other phases are silent."""
        self._pace.phase(name)

    def tokens(self, count: int) -> None:
        """Count sampled tokens."""
        self._pace.num_tokens += count

    def batch(self, record: Mapping[str, Any]) -> None:
        """Print the batch's line."""
        self._pace.done += 1
        cells = batch_cells(record)
        self._say(
            f"iteration {cells['iteration']} batch {cells['batch']} [{cells['category']}] "
            f"chosen={cells['chosen']} pairs={cells['pairs']} loss={cells['loss']} bandit_reward={cells['reward']} "
            f"{self._pace.tokens_per_second:.0f} tokens/s elapsed={self._pace.elapsed} eta={self._pace.remaining}"
        )

    def probe(self, findings: Findings) -> None:
        """Print a line a category."""
        for line in findings.lines():
            self._say(visible(line))

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Print the dev metric, and at the start of a run which answers cannot be read."""
        self._say(_evaluation_line(record))
        for line in _first_unreadable(record):
            self._say(visible(line))

    def note(self, message: str) -> None:
        """Print a sentence."""
        self._say(visible(message))

    def _say(self, line: str) -> None:
        self._console.print(escape(line), soft_wrap=True)


class LabelLines(PlainProgress):
    """The lines of `laser label`, which trains and measures nothing."""

    def started(self, *, iterations: int, batches_per_iteration: int, iteration: int, step: int) -> None:
        """Print the number of batches."""
        self._pace.start(iterations, batches_per_iteration, iteration, step)
        done = f", {step} of them done before" if step else ""
        self._say(f"labeling: {self._pace.total} batches{done}")

    def batch(self, record: Mapping[str, Any]) -> None:
        """Print the batch's line."""
        cells = batch_cells(record)
        self._say(
            f"batch {cells['batch']} of {self._pace.total} [{cells['category']}] chosen={cells['chosen']} "
            f"pairs={cells['pairs']} seconds={cells['seconds']}"
        )


class SftLines(PlainProgress):
    """The lines of `laser sft`, which has no reward models."""

    def batch(self, record: Mapping[str, Any]) -> None:
        """Print the batch's line."""
        self._pace.done += 1
        self._say(
            f"epoch {record['iteration'] + 1} batch {record['step'] + 1} targets={record['targets']} "
            f"loss={record['loss']:.3f} elapsed={self._pace.elapsed} eta={self._pace.remaining}"
        )


class LiveProgress(Progress):
    """A bar, the current phase and the latest batches, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._pace = _Pace()
        self._rows: deque[Mapping[str, str]] = deque(maxlen=_ROWS_SHOWN)
        self._dev: list[str] = []
        self._phase = ""
        self._at = ""
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=False)
        self._live.start()

    def started(self, *, iterations: int, batches_per_iteration: int, iteration: int, step: int) -> None:
        """Set the length of the bar."""
        self._pace.start(iterations, batches_per_iteration, iteration, step)

    def phase(self, name: str, *, iteration: int, step: int) -> None:
        """Show the phase."""
        self._pace.phase(name)
        self._phase, self._at = name, f"iteration {iteration + 1}, batch {step + 1}"

    def tokens(self, count: int) -> None:
        """Count sampled tokens."""
        self._pace.num_tokens += count

    def batch(self, record: Mapping[str, Any]) -> None:
        """Add a row."""
        self._pace.done += 1
        self._rows.append(batch_cells(record))

    def probe(self, findings: Findings) -> None:
        """Print a line a category above the display."""
        for line in findings.lines():
            self._live.console.print(escape(visible(line)), soft_wrap=True)

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Keep the dev metric in view."""
        self._dev.append(_evaluation_line(record))
        for line in _first_unreadable(record):
            self._live.console.print(escape(visible(line)), soft_wrap=True)

    def note(self, message: str) -> None:
        """Show a sentence until the next phase."""
        self._phase, self._at = visible(message), ""

    def close(self) -> None:
        """Draw once more and stop."""
        self._phase = self._at = ""
        self._live.stop()

    def _render(self) -> RenderableType:
        pace = self._pace
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=max(1, pace.total), completed=pace.done, width=30),
            Text(f"{pace.done}/{pace.total} batches"),
            Text(f"{pace.elapsed} elapsed, {pace.remaining} left", style="cyan"),
            Text(f"{pace.tokens_per_second:.0f} tokens/s"),
        )
        now = Text.assemble((self._phase, "bold"), "  ", (self._at, "dim"))
        return Group(*(Text(line, style="green") for line in self._dev), self._table(), bar, now)

    def _table(self) -> Table:
        table = Table(
            "iteration", "batch", "category", "chosen RM", "pairs", "loss", "bandit reward", "seconds", box=None
        )
        for row in self._rows:
            keys = ("iteration", "batch", "category", "chosen", "pairs", "loss", "reward", "seconds")
            table.add_row(*(escape(row[key]) for key in keys))
        return table


def make_progress(console: Console, lines: Callable[[Console], Progress] = PlainProgress) -> Progress:
    """A live display on a terminal, lines elsewhere."""
    return LiveProgress(console) if console.is_terminal else lines(console)


def batch_cells(record: Mapping[str, Any]) -> dict[str, str]:
    """What a display shows of a batch; the record is as it was made, or as it was read back from steps.jsonl."""
    selection = record["selection"]
    names = [
        name if max(weights) == 1 else "several"
        for name, weights in zip(selection["reward_models"], selection["weights"], strict=True)
    ]
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    chosen = names[0] if len(names) == 1 else " ".join(f"{name}:{count}" for name, count in counts.items())
    return {
        "iteration": str(record["iteration"] + 1),
        "batch": str(record["step"] + 1),
        "category": visible(str(record["category"])),
        "chosen": visible(chosen),
        "pairs": str(record["pairs"]),
        "loss": _mean([record["loss"]], 3),
        "reward": _mean(record["bandit_rewards"], 2),
        "seconds": f"{sum(record['seconds'].values()):.1f}",
    }


def _mean(values: Iterable[float | None], digits: int) -> str:
    """Mean of the values that there are: an ensemble that learns nothing has no bandit reward, some batches no loss."""
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    return f"{sum(known) / len(known):.{digits}f}" if known else "none"


def _evaluation_line(record: Mapping[str, Any]) -> str:
    by_category = ", ".join(f"{visible(name)} {value:.0%}" for name, value in record["by_category"].items())
    num_unread = record.get("num_unparseable", 0)
    unread = f"; {num_unread} answers could not be read" if num_unread else ""
    return f"dev accuracy after {record['batches']} batches: {record['accuracy']:.1%} ({by_category}){unread}"


def _first_unreadable(record: Mapping[str, Any]) -> list[str]:
    """Lines on unreadable answers of the check before training, when settings can still be corrected."""
    return unreadable_lines(record, record.get("num_answers", record["num_prompts"])) if record["batches"] == 0 else []


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"

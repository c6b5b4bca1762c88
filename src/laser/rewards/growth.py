"""A warning when this process keeps growing while reward models score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import psutil

_WARM_UP = 8  # calls in which libraries and allocators take what they keep
_LIMIT = 2**30  # bytes of growth until the first warning; each further one comes at twice as much
_THIRD = 0.15  # least share of the growth in each third of the calls
_MIN_SAMPLES = 16
_MAX_SAMPLES = 1024


class Growth:
    """Watches the memory of this process from call to call; loading a model does not count as growth."""

    def __init__(self) -> None:
        self._calls = 0
        self._samples: list[int] = []
        self._due = _LIMIT
        self._loaded = 0
        self._warnings: list[str] = []

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Leave out what changes inside the block, in which a model is loaded or released."""
        before = _resident()
        try:
            yield
        finally:
            self._loaded += _resident() - before

    def called(self) -> None:
        """Look at the memory after a call of a reward model."""
        self._calls += 1
        if self._calls < _WARM_UP:
            return
        self._samples.append(_resident() - self._loaded)
        grown = self._samples[-1] - self._samples[0]
        if grown >= self._due and self._is_steady():
            self._due = 2 * grown
            self._warnings.append(
                f"this process has grown by {grown / 2**30:.1f} GiB over {self._calls} calls of reward models; if it "
                "keeps growing, fix the leak in your Python code or run that reward model behind a server "
                "(type = 'http')"
            )
        if len(self._samples) > _MAX_SAMPLES:
            self._samples = self._samples[::2]

    def take_warnings(self) -> list[str]:
        """Warnings since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def _is_steady(self) -> bool:
        """Whether the process still grows: memory taken once, as by the longest prompt, is not a leak."""
        if len(self._samples) < _MIN_SAMPLES:
            return False
        count = len(self._samples)
        marks = [self._samples[at] for at in (0, count // 3, 2 * count // 3, -1)]
        return all(after - before >= _THIRD * (marks[-1] - marks[0]) > 0 for before, after in pairwise(marks))


def _resident() -> int:
    """Bytes of main memory that belong to this process alone, without those of files it reads."""
    info = psutil.Process().memory_info()
    return int(info.rss - getattr(info, "shared", 0))

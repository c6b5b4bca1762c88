"""Reward models that keep more of this process's memory after every call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import psutil
from scipy.optimize import nnls

_WARM_UP = 8  # calls, in which libraries and allocators take what they keep
_LIMIT = 2**30  # bytes that the process grows after them until the first warning; the next at twice as much
_SHARE = 0.25  # of the growth that a model is the cause of, to be named
_LATE = 0.3  # of the growth in the later half of the calls, or it is one that comes to an end
_MIN_SAMPLES = 16
_MAX_SAMPLES = 1024


class Growth:
    """Finds the reward models with whose calls this process grows.

    What a single call adds says little: an allocator gives one caller what another has freed. So the process's memory
    after every call is explained by how often each model had been asked by then (non-negative least squares).

    Args:
        names: The reward models.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._calls: Counter[str] = Counter()
        self._samples: list[tuple[float, ...]] = []
        self._due = float(_LIMIT)
        self._loaded = 0
        self._warnings: list[str] = []

    @contextmanager
    def loading(self) -> Iterator[None]:
        """A model comes or goes; what that changes is no growth."""
        before = _resident()
        try:
            yield
        finally:
            self._loaded += _resident() - before

    def called(self, name: str) -> None:
        """A reward model was asked."""
        self._calls[name] += 1
        if self._calls.total() < _WARM_UP:
            return
        self._samples.append((_resident() - self._loaded, *(self._calls[each] for each in self._names)))
        grown = self._samples[-1][0] - self._samples[0][0]
        if grown >= self._due and self._goes_on():
            self._due = 2 * grown
            self._warn(grown)
        if len(self._samples) > _MAX_SAMPLES:
            self._samples = self._samples[::2]

    def kept(self) -> dict[str, int]:
        """Bytes that the calls of each reward model have kept, as far as can be told; 0 where growth came to an end."""
        if not self._goes_on():
            return dict.fromkeys(self._names, 0)
        table = np.array(self._samples) - self._samples[0]
        scale = table[:, 1:].max(axis=0).clip(min=1)
        shares, _ = nnls(table[:, 1:] / scale, np.maximum(table[:, 0], 0.0))
        return {name: int(share) for name, share in zip(self._names, shares, strict=True)}

    def take_warnings(self) -> list[str]:
        """Sentences on models that keep ever more, each told once."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def _goes_on(self) -> bool:
        """Whether the process grows steadily: memory that is taken once, by the longest prompt say, is no leak."""
        if len(self._samples) < _MIN_SAMPLES:
            return False
        first, middle, last = (self._samples[at][0] for at in (0, len(self._samples) // 2, -1))
        return last - middle >= _LATE * (last - first) > 0

    def _warn(self, grown: float) -> None:
        kept = {name: size for name, size in self.kept().items() if size >= _SHARE * grown}
        if not kept:
            return
        each = " and ".join(
            f"{name!r} ({size / self._calls[name] / 2**20:.1f} MiB a call)" for name, size in kept.items()
        )
        self._warnings.append(
            f"this process has grown by {grown / 2**30:.1f} GiB, as it seems with the calls of reward model {each}; if "
            "that goes on the run dies of it: mend the leak, or run it behind a server (type = 'http')"
        )


def _resident() -> int:
    """Bytes of this process in main memory that are its own, not those of files it reads."""
    info = psutil.Process().memory_info()
    return int(info.rss - getattr(info, "shared", 0))

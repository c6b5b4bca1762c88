"""One seed, many independent named streams.

A stream is addressed by its name and by the coordinates of its draw (iteration, step, prompt). No stream carries state
from one draw to the next, so a checkpoint holds none: a resumed run uses the same coordinates and gets the same
numbers, whatever was drawn before the interruption.
"""

from __future__ import annotations

import zlib

import numpy as np

STREAMS = (
    "data",
    "generation",
    "pairs",
    "bandit",
    "policy",
    "dropout",
    "context",
    "rewards",
    "evaluation",
    "probe",
    "router",
)


def stream(seed: int, name: str, *coordinates: int) -> np.random.Generator:
    """Return the generator of one named stream at one address.

    Args:
        seed: The run's seed, a non-negative integer.
        name: One of `STREAMS`.
        *coordinates: Integers in [0, 2**32) that address the draw, such as (iteration, step).

    Returns:
        A generator that is statistically independent of that of every other seed, name or coordinates; (1,) and (1, 0)
        are different coordinates.

    Raises:
        ValueError: `name` is not a known stream, or a coordinate is out of range.
    """
    if name not in STREAMS:
        raise ValueError(f"unknown random stream {name!r}; known: {', '.join(STREAMS)}")
    if not all(0 <= coordinate < 2**32 for coordinate in coordinates):
        raise ValueError(f"coordinates of a random stream must be in [0, 2**32): {coordinates}")
    # In a spawn key, unlike in a list of entropy, trailing zeros count.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()), *coordinates)))


def stream_seed(seed: int, name: str, *coordinates: int) -> int:
    """Return a 63-bit seed drawn from a stream, for libraries that take an integer (torch)."""
    return int(stream(seed, name, *coordinates).integers(0, 2**63 - 1))

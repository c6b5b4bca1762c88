"""One seed, many independent named streams.

A stream is addressed by its name and by the coordinates of the moment that draws from it (iteration, step, prompt).
No stream carries state between moments, so there is nothing to save in a checkpoint: a resumed run asks for the same
coordinates and gets the same numbers, whatever was drawn before it was interrupted.
"""

from __future__ import annotations

import zlib

import numpy as np

STREAMS = ("data", "generation", "pairs", "bandit", "policy", "dropout", "context", "rewards", "evaluation", "probe")


def stream(seed: int, name: str, *coordinates: int) -> np.random.Generator:
    """Return the generator of one named stream at one moment.

    Args:
        seed: The run's seed, a non-negative integer.
        name: One of `STREAMS`.
        *coordinates: Non-negative integers that address the moment, such as (iteration, step).

    Returns:
        A generator that is statistically independent of every other (name, coordinates) of the same seed.

    Raises:
        ValueError: `name` is not a known stream.
    """
    if name not in STREAMS:
        raise ValueError(f"unknown random stream {name!r}; known: {', '.join(STREAMS)}")
    return np.random.default_rng([seed, zlib.crc32(name.encode()), *coordinates])


def stream_seed(seed: int, name: str, *coordinates: int) -> int:
    """Return a 63-bit seed drawn from a stream, for libraries that take an integer (torch)."""
    return int(stream(seed, name, *coordinates).integers(0, 2**63 - 1))

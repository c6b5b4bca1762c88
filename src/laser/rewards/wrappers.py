"""Reward models made worse on purpose: the adversaries of robustness studies (arXiv 2410.01735, Fig. 12 and 13)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from laser.core.seeding import stream
from laser.core.types import FloatArray, Prompt
from laser.rewards.base import RewardModel, counts_of

Corruption = Literal["none", "inverted", "constant", "random"]


class CorruptedRM:
    """Inverts, flattens or replaces another reward model's scores, adds noise to them, or changes their unit.

    Source: arXiv 2410.01735, Fig. 12, Gaussian noise. Deviation: sigma counts in standard deviations of the scores of
    the same prompt, because a log-likelihood in nats and a cosine have no unit in common. Noise and random scores are a
    function of the seed and the texts: the same response gets the same one again, and a resumed run too.

    Args:
        inner: The reward model.
        corruption: "inverted" negates its scores; "constant" gives 0 and "random" a standard normal number, both only
            where the model has a score, and without asking it.
        noise: sigma of the Gaussian noise added.
        factor: Multiplies what comes of it.
        seed: Seeds noise and random scores.
    """

    def __init__(
        self,
        inner: RewardModel,
        *,
        corruption: Corruption = "none",
        noise: float = 0.0,
        factor: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._inner = inner
        self.counts = counts_of(inner)
        self._corruption = corruption
        self._noise = noise
        self._factor = factor
        self._seed = seed

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`."""
        if self._corruption == "constant":
            scores = [np.zeros(len(row)) for row in responses]
        elif self._corruption == "random":
            scores = [self._normal(prompt, row, 0) for prompt, row in zip(prompts, responses, strict=True)]
        else:
            sign = -1.0 if self._corruption == "inverted" else 1.0
            scores = [sign * row for row in self._inner.score(prompts, responses)]
        if self._noise > 0.0:
            noisy = zip(prompts, responses, scores, strict=True)
            scores = [row + self._noise * _spread(row) * self._normal(prompt, texts, 1) for prompt, texts, row in noisy]
        return [self._factor * row for row in scores]

    def release(self) -> None:
        """Release the reward model."""
        self._inner.release()

    def park(self) -> None:
        """Park the reward model."""
        self._inner.park()

    def unpark(self) -> None:
        """Unpark the reward model."""
        self._inner.unpark()

    def _normal(self, prompt: Prompt, row: Sequence[str], purpose: int) -> FloatArray:
        keys = [zlib.crc32(f"{prompt.id}\0{text}".encode()) for text in row]
        return np.array([stream(self._seed, "rewards", purpose, key).standard_normal() for key in keys])


def _spread(scores_N: FloatArray) -> float:
    finite = scores_N[np.isfinite(scores_N)]
    return float(finite.std()) if len(finite) else 0.0

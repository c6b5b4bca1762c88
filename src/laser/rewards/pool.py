"""The pool: named reward models, loaded when first chosen, at most a few at a time."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from laser.errors import LaserError, RewardModelError
from laser.rewards.base import RewardModel
from laser.types import FloatArray, Prompt


@dataclass(frozen=True, slots=True)
class Arm:
    """A reward model that is built when it is needed.

    Attributes:
        name: Unique in the pool.
        build: Loads the model.
    """

    name: str
    build: Callable[[], RewardModel]


@dataclass(slots=True)
class Usage:
    """What one reward model was used for.

    Attributes:
        loads: Times it was loaded.
        calls: Times it was asked.
        responses: Responses it was asked about.
        unscored: Responses it gave no number for.
        infinite: Responses it gave an infinite score, left out as well.
    """

    loads: int = 0
    calls: int = 0
    responses: int = 0
    unscored: int = 0
    infinite: int = 0


class RewardPool:
    """Holds the K reward models; the order of `arms` numbers them.

    Args:
        arms: The reward models.
        max_resident: How many are kept loaded; beyond it the least recently used is released.

    Raises:
        RewardModelError: No arm, or two of the same name.
    """

    def __init__(self, arms: Sequence[Arm], *, max_resident: int = 1) -> None:
        names = [arm.name for arm in arms]
        if not names:
            raise RewardModelError("the pool is empty (K = 0); add a reward model")
        if len(set(names)) < len(names):
            raise RewardModelError(f"two reward models share a name in {', '.join(names)}; give each its own")
        self._arms = tuple(arms)
        self._max_resident = max_resident
        self._resident: OrderedDict[int, RewardModel] = OrderedDict()
        self._usage = {name: Usage() for name in names}

    @property
    def names(self) -> tuple[str, ...]:
        """Names by arm."""
        return tuple(arm.name for arm in self._arms)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the models now loaded, least recently used first."""
        return tuple(self._arms[index].name for index in self._resident)

    def usage(self) -> dict[str, dict[str, int]]:
        """Loads, calls and unscored responses of every reward model, by name."""
        return {name: dataclasses.asdict(usage) for name, usage in self._usage.items()}

    def score(self, arm: int, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score with one reward model and hold it to its contract.

        Args:
            arm: Index of the reward model.
            prompts: B prompts.
            responses: Responses of each prompt.

        Returns:
            B float64 arrays; NaN where there is no finite score.

        Raises:
            RewardModelError: It cannot be loaded, fails, or returns another number of scores.
        """
        name, usage = self._arms[arm].name, self._usage[self._arms[arm].name]
        model = self._acquire(arm)
        try:
            scores = [np.array(row, dtype=np.float64) for row in model.score(prompts, responses)]
        except LaserError as error:
            raise RewardModelError(f"reward model {name!r}: {error}") from error
        expected = [len(row) for row in responses]
        if [row.shape for row in scores] != [(length,) for length in expected]:
            shapes = [row.shape for row in scores]
            raise RewardModelError(f"reward model {name!r} returned scores of shape {shapes} for {expected} responses")
        usage.calls += 1
        usage.responses += sum(expected)
        for row in scores:
            usage.infinite += int(np.isinf(row).sum())
            row[np.isinf(row)] = np.nan
            usage.unscored += int(np.isnan(row).sum())
        return scores

    def num_scored(self) -> dict[str, int]:
        """Responses each reward model was asked about so far, by name."""
        return {name: usage.responses for name, usage in self._usage.items()}

    def release_all(self) -> None:
        """Release every loaded model."""
        while self._resident:
            self._resident.popitem()[1].release()

    def _acquire(self, arm: int) -> RewardModel:
        """The model, loaded if need be after making room for it."""
        if arm in self._resident:
            self._resident.move_to_end(arm)
            return self._resident[arm]
        while len(self._resident) >= self._max_resident:
            self._resident.popitem(last=False)[1].release()
        name = self._arms[arm].name
        try:
            model = self._arms[arm].build()
        except LaserError as error:
            raise RewardModelError(f"reward model {name!r}: {error}") from error
        self._usage[name].loads += 1
        self._resident[arm] = model
        return model


def score_selection(
    pool: RewardPool, weights_BK: FloatArray, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]
) -> list[FloatArray]:
    """Score each prompt's responses by the reward models its row of weights names.

    Prompts are grouped by reward model, so that each runs once; models without weight are neither loaded nor called.

    Args:
        pool: The reward models.
        weights_BK: Non-negative weights of each prompt, rows summing to 1.
        prompts: B prompts.
        responses: Responses of each prompt.

    Returns:
        B float64 arrays of shape (K, number of responses): raw scores, NaN where a model was not asked or has none.
    """
    scores_BKN = [np.full((weights_BK.shape[1], len(row)), np.nan) for row in responses]
    for arm in np.flatnonzero(weights_BK.any(axis=0)):
        rows = np.flatnonzero(weights_BK[:, arm]).tolist()
        given = pool.score(int(arm), [prompts[row] for row in rows], [responses[row] for row in rows])
        for row, scores_N in zip(rows, given, strict=True):
            scores_BKN[row][arm] = scores_N
    return scores_BKN


Combination = Literal["raw", "zscore", "rank", "agreement"]


def combine_scores(scores_KN: FloatArray, weights_K: FloatArray, combination: Combination = "raw") -> FloatArray:
    """The weighted mean over reward models of one prompt's scores.

    A one-hot row of weights gives that model's scores, in whatever scale. With several, raw scores let the model with
    the widest scale dominate (the paper's RM Score Ensemble); standardised over the prompt's responses, or replaced by
    their ranks, every model has the same say.

    Args:
        scores_KN: Raw scores, shape (K, N).
        weights_K: Weights of the models, summing to 1.
        combination: "raw", "zscore" or "rank"; "agreement" is decided pair by pair (`orient_by_agreement`), and the
            mean rank is what its scores are.

    Returns:
        Shape (N,); NaN where any model with weight has no finite score.
    """
    arms = np.flatnonzero(weights_K)
    if combination == "raw" or len(arms) == 1:
        combined: FloatArray = weights_K[arms] @ scores_KN[arms]
        return combined
    standard = _standardised if combination == "zscore" else _ranked
    rows = np.stack([standard(scores_KN[arm]) for arm in arms])
    mean: FloatArray = weights_K[arms] @ rows
    return mean


def _standardised(scores_N: FloatArray) -> FloatArray:
    finite = scores_N[np.isfinite(scores_N)]
    deviation = finite.std() if len(finite) else 0.0
    if deviation == 0.0:
        return np.where(np.isfinite(scores_N), 0.0, np.nan)
    standard: FloatArray = (scores_N - finite.mean()) / deviation
    return standard


def _ranked(scores_N: FloatArray) -> FloatArray:
    """Mean ranks in [0, 1], ties sharing theirs."""
    finite = np.isfinite(scores_N)
    ranks = np.full(len(scores_N), np.nan)
    if finite.any():
        ranks[finite] = (rankdata(scores_N[finite]) - 0.5) / finite.sum()
    return ranks

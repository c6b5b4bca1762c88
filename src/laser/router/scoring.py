"""Scores of groups, each by the reward model that was chosen for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from laser.core.types import FloatArray, IntArray, Prompt
from laser.rewards.pool import QuarantinedError, RewardPool
from laser.router.groups import Group
from laser.router.rows import Members, Row


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of rows.

    Attributes:
        scores: One per row, NaN where the reward model has no opinion.
        raw: The same in the reward model's own unit.
        arms: The reward model of each row.
        probabilities: With which each was chosen.
        quarantined: Reward models that failed for good in this call, and why; their rows were chosen for again.
    """

    scores: FloatArray
    raw: FloatArray
    arms: IntArray
    probabilities: FloatArray
    quarantined: dict[str, str] = field(default_factory=dict)

    def of_arm(self, arm: int) -> list[float | None]:
        """Scores by one reward model, one per row; None where another was chosen or it has no opinion."""
        is_given = (self.arms == arm) & np.isfinite(self.scores)
        return [float(score) if given else None for score, given in zip(self.scores, is_given, strict=True)]


def score_groups(
    pool: RewardPool,
    rows: Sequence[Row],
    members: Members,
    groups: Mapping[str, Group],
    choose_again: Callable[[Mapping[str, Group]], None],
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Score groups, each reward model in one call for all of its groups.

    Args:
        pool: The reward models.
        rows: The rows.
        members: Their grouping.
        groups: The group of each prompt.
        choose_again: Changes the reward model of groups whose reward model has failed for good.

    Returns:
        The scores of each group, and the reasons of the reward models that failed by name.
    """
    scores: dict[str, FloatArray] = {}
    failed: dict[str, str] = {}
    while len(scores) < len(members):
        arm = min(groups[key].arm for key in members if key not in scores)
        keys = [key for key in members if key not in scores and groups[key].arm == arm]
        prompts = [rows[members[key][0]].prompt for key in keys]
        texts = [[rows[index].text for index in members[key]] for key in keys]
        try:
            scores |= zip(keys, pool.score(arm, prompts, texts), strict=True)
        except QuarantinedError as error:
            failed[pool.names[arm]] = str(error)
            choose_again({key: groups[key] for key in keys})
    return scores, failed


def score_by_all(pool: RewardPool, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list[FloatArray]:
    """Scores of the texts of each prompt by all reward models, (K, N); NaN for those that fail or are in quarantine."""
    scores = [np.full((len(pool.names), len(row)), np.nan) for row in texts]
    for arm in np.flatnonzero(pool.available_K).tolist():
        try:
            for scores_KN, given in zip(scores, pool.score(arm, prompts, texts), strict=True):
                scores_KN[arm] = given
        except QuarantinedError as error:
            warnings.warn(f"the probe continues without {pool.names[arm]}: {error}", stacklevel=2)
    return scores


def collect(
    members: Members,
    groups: Mapping[str, Group],
    given: Mapping[str, FloatArray],
    spreads_K: FloatArray | None,
    failed: dict[str, str],
) -> Scored:
    """Scores by row, divided by the spreads of their reward models if these are given."""
    count = sum(map(len, members.values()))
    raw, probabilities, arms = np.full(count, np.nan), np.zeros(count), np.zeros(count, dtype=np.int64)
    for key, indices in members.items():
        raw[list(indices)] = given[key]
        arms[list(indices)], probabilities[list(indices)] = groups[key].arm, groups[key].probability
    if spreads_K is None:
        return Scored(raw.copy(), raw, arms, probabilities, failed)
    return Scored(raw / np.where(spreads_K > 0, spreads_K, 1.0)[arms], raw, arms, probabilities, failed)

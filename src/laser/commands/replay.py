"""``laser simulate --replay``: what selectors would have earned on the logged choices of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from laser.analysis.records import Damage, Run, read_run
from laser.analysis.shapes import Count, Finite, Share
from laser.analysis.summary import summarize
from laser.bandits.arm_selector import ArmSelector
from laser.bandits.replay import (
    REPLAY_SEED,
    Interval,
    LoggedRows,
    Maker,
    Matched,
    OffPolicy,
    Value,
    bootstrap,
    off_policy,
    replay,
)
from laser.commands.simulate import find_makers
from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.outputs import check_free, results_file, write_results
from laser.core.types import FloatArray
from laser.rewards.costs import ScoringCosts


class LoggedSelection(TypedDict):
    """The fields of a selection that only a replay reads."""

    arms: list[Count]
    probabilities: list[list[Share]]
    contexts: NotRequired[list[Annotated[list[Finite], Field(min_length=1)]]]


_SELECTION = TypeAdapter(LoggedSelection)
_Row = tuple[list[float], int, list[float], float]


@dataclass(frozen=True, slots=True)
class Replayed:
    """Mean bandit reward of selectors on logged choices, and of the choices themselves.

    Attributes:
        num_rows: Number of logged choices with a bandit reward.
        selectors: Estimates of each selector: by matching, and by propensity.
        mean: Mean bandit reward of the choices as they were made.
        interval: Its 95% bootstrap interval.
        damage: Lines of steps.jsonl that were left out.
    """

    num_rows: int
    selectors: Mapping[str, tuple[Matched, OffPolicy]]
    mean: float
    interval: Interval | None
    damage: Sequence[Damage]

    def as_record(self) -> dict[str, Any]:
        """Return the content of replay.json without the run's name."""
        selectors = {
            name: {
                "matching": {**_value_record(matched.value), "rows": matched.num_rows},
                "support": weighted.support,
                "ips": _value_record(weighted.ips),
                "snips": _value_record(weighted.snips),
                "doubly_robust": _value_record(weighted.doubly_robust),
            }
            for name, (matched, weighted) in self.selectors.items()
        }
        as_it_was = {"mean": self.mean, "interval": self.interval}
        return {"rows": self.num_rows, "selectors": selectors, "as_it_was": as_it_was}


def replay_run(run: Path, selectors: Sequence[str], out: Path | None = None) -> Replayed:
    """Estimate off-policy what selectors would have earned on the logged choices of a run.

    They choose with the run's `selector.cost_weight` and its costs of a response. What they earn is the bandit reward,
    without the price.

    Args:
        run: The run directory.
        selectors: Names, as in `laser.commands.simulate.MAKERS`; none: all but the costly ones.
        out: Folder for replay.json, new or empty; None: nothing is written.

    Raises:
        LaserError: The run cannot be read or has no contexts in its records, or the folder is occupied.
    """
    makers = find_makers(selectors)
    if out is not None:
        check_free(out)
    read = read_run(run)
    logged, damage = _logged(read)
    num_arms, penalties_K = len(read.names), _penalties_K(read)
    results = None if out is None else results_file(out / "replay.json")
    dim = logged.contexts_ND.shape[1]

    def fresh(make: Maker) -> ArmSelector:
        selector = make(num_arms, dim, REPLAY_SEED)
        selector.penalize(lambda: penalties_K)
        return selector

    replayed = Replayed(
        num_rows=len(logged.rewards_N),
        selectors={
            name: (replay(fresh(make), logged), off_policy(fresh(make), logged)) for name, make in makers.items()
        },
        mean=float(logged.rewards_N.mean()),
        interval=bootstrap(logged.rewards_N, np.ones(len(logged.rewards_N))),
        damage=damage,
    )
    if results is not None:
        write_results(results, {"run": str(run), **replayed.as_record()})
    return replayed


def _value_record(value: Value | None) -> dict[str, Any]:
    return (
        {"estimate": None, "interval": None} if value is None else {"estimate": value.value, "interval": value.interval}
    )


def _penalties_K(run: Run) -> FloatArray:
    """What the run's weight of costs takes off each arm's value; zeros without one."""
    totals, costs = summarize(run.steps, run.evaluations, run.names), ScoringCosts(len(run.names))
    for arm, name in enumerate(run.names):
        costs.add(arm, responses=totals.scored.get(name, 0), seconds=totals.cost.get(name, 0.0))
    penalties_K: FloatArray = run.setting("selector.cost_weight", 0.0) * costs.shares_K
    return penalties_K


def _logged(run: Run) -> tuple[LoggedRows, Sequence[Damage]]:
    """Rows with a bandit reward, and damaged lines."""
    path = run.path
    damage = [one for one in run.damage if one.file == "steps.jsonl"]
    rows: list[_Row] = []
    batches: list[int] = []
    for number, step in zip(run.batches, run.steps, strict=True):
        try:
            found = _rows(run, step["selection"], step["bandit_rewards"], len(rows[0][0]) if rows else None)
        except ValueError as error:
            damage.append(Damage("steps.jsonl", number, str(error)))
        else:
            rows += found
            batches += [number] * len(found)
    damage.sort(key=lambda one: one.line)
    if not rows and damage:
        raise RunDirectoryError(
            f"{path / 'steps.jsonl'} line {damage[0].line} is damaged ({damage[0].why}), and no other line can be "
            "replayed; restore the file"
        )
    if not rows:
        raise ConfigError(f"{path / 'steps.jsonl'} holds no choice with a bandit reward; there is nothing to replay")
    contexts, arms, probabilities, rewards = zip(*rows, strict=True)
    logged = LoggedRows(
        np.array(contexts), np.array(arms), np.array(probabilities), np.array(rewards), np.array(batches)
    )
    return logged, damage


def _rows(run: Run, selection: Any, rewards: Sequence[float | None], dim: int | None) -> list[_Row]:
    """Rows of one batch. Raises ValueError with a clause about damage, ConfigError where contexts are missing."""
    try:
        chosen = _SELECTION.validate_python(selection)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"selection.{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from error
    if "contexts" not in chosen:
        raise ConfigError(
            f"{run.path / 'steps.jsonl'} holds no contexts; train with checkpoint.log_contexts = true to replay a run"
        )
    if len(rewards) != len(chosen["arms"]):  # an ensemble's, charged for every arm
        return []
    found: list[_Row] = []
    for context, arm, probabilities, reward in zip(
        chosen["contexts"], chosen["arms"], chosen["probabilities"], rewards, strict=True
    ):
        if len(context) != (dim or len(context)):
            raise ValueError(f"a context has {len(context)} features, others have {dim}")
        if len(probabilities) != len(run.names) or arm >= len(run.names) or not probabilities[arm]:
            raise ValueError(f"arm {arm} and its probabilities do not fit {len(run.names)} reward models")
        if reward is not None:
            found.append((context, arm, probabilities, reward))
    return found

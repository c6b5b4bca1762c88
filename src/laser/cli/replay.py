"""``laser simulate --replay``: what selectors would have earned on the logged choices of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from rich.table import Table
from typing_extensions import TypedDict

from laser.analysis.records import Count, Damage, Finite, Run, Share, read_run
from laser.bandits.simulate import Interval, LoggedRows, Maker, bootstrap, replay
from laser.cli.terminal import make_console
from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.results import results_file, write_results
from laser.training.run_directory import check_free


class LoggedSelection(TypedDict):
    """What a replay reads of a selection, beyond what reports do."""

    arms: list[Count]
    probabilities: list[list[Share]]
    contexts: NotRequired[list[Annotated[list[Finite], Field(min_length=1)]]]


_SELECTION = TypeAdapter(LoggedSelection)
_Row = tuple[list[float], int, float, float]


def run_replay(run: Path, makers: dict[str, Maker], out: Path | None = None) -> None:
    """Estimate what selectors would have earned on the logged choices of a run, off-policy; print and keep it.

    Args:
        run: The run directory.
        makers: The selectors.
        out: Folder for replay.json, new or empty; None: none is written.

    Raises:
        LaserError: The run cannot be read or has no contexts in its records, or the folder is occupied.
    """
    if out is not None:
        check_free(out)
    logged, damage, num_arms = _logged(run)
    results = None if out is None else results_file(out / "replay.json")
    title = f"mean bandit reward on {len(logged.rewards_N)} choices of {run}, with 95% bootstrap intervals"
    table = Table(title=title, title_justify="left")
    for column in ("selector", "estimate", "interval", "rows that match"):
        table.add_column(column)
    record: dict[str, Any] = {"run": str(run), "rows": len(logged.rewards_N), "selectors": {}}
    for name, make in makers.items():
        one = replay(make(num_arms, logged.contexts_ND.shape[1], 0), logged)
        table.add_row(name, "–" if not one.matched else f"{one.value:.3f}", _shown(one.interval), f"{one.matched}")
        record["selectors"][name] = {"estimate": one.value, "interval": one.interval, "matched": one.matched}
    table.add_section()
    as_it_was = bootstrap(logged.rewards_N, np.ones(len(logged.rewards_N)))
    table.add_row("as it was", f"{logged.rewards_N.mean():.3f}", _shown(as_it_was), f"{len(logged.rewards_N)}")
    record["as_it_was"] = {"mean": float(logged.rewards_N.mean()), "interval": as_it_was}
    console = make_console()
    console.print(table)
    if damage:
        first = f"the first: line {damage[0].line}, {damage[0].why}"
        console.print(f"{len(damage)} damaged lines of steps.jsonl were left out ({first})", markup=False)
    if results is not None:
        write_results(results, record)
        console.print(f"written: {results}", markup=False, soft_wrap=True)


def _shown(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _logged(path: Path) -> tuple[LoggedRows, Sequence[Damage], int]:
    """Rows with a bandit reward, damaged lines, and the number of arms."""
    run = read_run(path)
    damage = [one for one in run.damage if one.file == "steps.jsonl"]
    rows: list[_Row] = []
    for number, step in zip(run.batches, run.steps, strict=True):
        try:
            rows += _rows(run, step["selection"], step["bandit_rewards"], len(rows[0][0]) if rows else None)
        except ValueError as error:
            damage.append(Damage("steps.jsonl", number, str(error)))
    damage.sort(key=lambda one: one.line)
    if not rows and damage:
        raise RunDirectoryError(
            f"{path / 'steps.jsonl'} line {damage[0].line} is damaged ({damage[0].why}), and no other line can be "
            "replayed; restore the file"
        )
    if not rows:
        raise ConfigError(f"{path / 'steps.jsonl'} holds no choice with a bandit reward; there is nothing to replay")
    contexts, arms, probabilities, rewards = zip(*rows, strict=True)
    logged = LoggedRows(np.array(contexts), np.array(arms), np.array(probabilities), np.array(rewards))
    return logged, damage, len(run.names)


def _rows(run: Run, selection: Any, rewards: Sequence[float | None], dim: int | None) -> Iterator[_Row]:
    """Rows of one batch; ValueError with a clause that says what is wrong, ConfigError where contexts are missing."""
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
        return iter(())
    found: list[_Row] = []
    for context, arm, probabilities, reward in zip(
        chosen["contexts"], chosen["arms"], chosen["probabilities"], rewards, strict=True
    ):
        if len(context) != (dim or len(context)):
            raise ValueError(f"a context has {len(context)} features, others have {dim}")
        if len(probabilities) != len(run.names) or arm >= len(run.names) or not probabilities[arm]:
            raise ValueError(f"arm {arm} and its probabilities do not fit {len(run.names)} reward models")
        if reward is not None:
            found.append((context, arm, probabilities[arm], reward))
    return iter(found)

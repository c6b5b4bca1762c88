"""The groups and what the router learned from them. Every change returns an event that repeats it after a restart.

The reward models are the only part that is not repeated: their scores are in the events. Choices are made again and
compared, for they depend on nothing but what was learned, the step and the prompt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from laser.core.errors import LaserError, RunDirectoryError
from laser.core.files import to_json
from laser.core.types import StateDict
from laser.integrations.server.groups import Group, Groups, Row, group_record, read_group
from laser.integrations.server.journal import Event
from laser.integrations.server.samples import Sample
from laser.router.router import Router

_PER_ROUND = 128  # groups without a step that share one


class Book:
    """Open groups, and closed ones for as long as a retry of their samples may come.

    Attributes:
        router: As given.
        groups: The groups.
        numbered: Whether the trainer sends its steps; None before the first sample.
        num_learned: Groups learned from so far.
        metrics: What the router said when it last learned.
    """

    def __init__(self, router: Router, max_groups: int) -> None:
        self.router = router
        self.groups = Groups(max_groups)
        self.numbered: bool | None = None
        self.num_learned = 0
        self.metrics: dict[str, float] = {}
        self._by_number: dict[int, Group] = {}
        self._round, self._in_round = 0, set[str]()

    def steps_of(self, samples: Sequence[Sample]) -> list[int]:
        """The steps of new groups: the trainer's, or rounds that end where a prompt comes again or after 128 groups."""
        number, inside = self._round, set(self._in_round)
        steps = []
        for sample in samples:
            if sample.step is None and (sample.prompt.id in inside or len(inside) >= _PER_ROUND):
                number += 1
                inside.clear()
            inside.add(sample.prompt.id)
            steps.append(number if sample.step is None else sample.step)
        return steps

    def open(self, groups: Sequence[Group], *, numbered: bool, now: float) -> Event:
        """Choose for new groups of one step.

        Args:
            groups: The groups; a group with an arm must get that one again.
            numbered: Whether the step is the trainer's.
            now: Time of a monotonic clock, in seconds.
        """
        step = groups[0].step
        choices = self.router.choose([group.prompt for group in groups], step)
        if step != self._round:
            self._round = step
            self._in_round.clear()
        for group, choice in zip(groups, choices, strict=True):
            if group.arm not in (None, choice.arm):
                raise ValueError(f"reward model {choice.arm} is chosen where {group.arm} was")
            group.arm, group.probability = choice.arm, choice.probability
            replaced = self.groups.get(group.key)
            if replaced is not None:
                self.forget(replaced)
            self.groups.add(group, now)
            self._by_number[group.number] = group
            self._in_round.add(group.prompt.id)
        self.numbered = numbered
        return {"type": "open", "groups": [group_record(group) for group in groups], "numbered": numbered}

    def name(self, group: Group, name: str) -> Event:
        """Give a group another of the trainer's names."""
        group.ids.add(name)
        return {"type": "name", "groups": [group.number], "name": name}

    def enter(self, step: int) -> Event:
        """Count a step for the rest of reward models in quarantine."""
        self.router.enter(step)
        return {"type": "enter", "groups": [], "step": step}

    def add_rows(self, group: Group, rows: Sequence[Row], probability: float) -> Event:
        """Add scored samples to a group; the last reward model of a group is the one it is learned from."""
        group.rows += rows
        group.arm, group.probability = rows[-1].arm, probability
        records = [[row.response, row.arm, row.score, row.raw, row.id] for row in rows]
        return {"type": "rows", "groups": [group.number], "rows": records, "probability": probability}

    def calls(self) -> StateDict:
        """What calls of reward models leave behind: failures, quarantine and costs; JSON-able."""
        return {**self.router.pool.quarantine.state_dict(), **self.router.pool.costs.state_dict()}

    def set_calls(self, state: StateDict) -> Event:
        """Restore `calls`; if all reward models are in quarantine, all are put on trial."""
        self.router.pool.quarantine.load_state_dict(state)
        self.router.pool.costs.load_state_dict(state)
        return {"type": "calls", "groups": [], "state": state}

    def note(self, group: Group, probed: Sequence[Sequence[float | None]] | None = None) -> Event:
        """Tell the router all scores of a complete group; where its probe asks for it, all reward models score it.

        Args:
            group: The group.
            probed: What they said, to repeat a call; None: ask them.
        """
        assert group.arm is not None
        rows = [row for row in group.rows if row.arm == group.arm]
        said = self.router.note(
            group.step,
            group.prompt,
            [row.response for row in rows],
            arm=group.arm,
            probability=group.probability,
            scores=[float("nan") if row.raw is None else row.raw for row in rows],
            probed=None if probed is None else np.array(probed, dtype=np.float64),
        )
        group.noted = True
        return {"type": "note", "groups": [group.number], "probed": to_json(said)}

    def learn(self, groups: Sequence[Group]) -> Event:
        """Learn from groups and close them."""
        by_step: dict[int, list[Group]] = defaultdict(list)
        for group in groups:
            by_step[group.step].append(group)
        for step, ours in by_step.items():
            self.metrics = self.router.learn(step, prompts=[group.prompt for group in ours])
            self.num_learned += int(self.metrics.get("bandit/learned", 0))
        return {**self.close(groups), "type": "learn"}

    def close(self, groups: Sequence[Group]) -> Event:
        """Close groups without learning from them."""
        for group in groups:
            self.groups.close(group)
        self.router.forget(self.groups.oldest_step(default=self._round))
        return {"type": "close", "groups": [group.number for group in groups]}

    def feedback(self, groups: Sequence[Group], value: float) -> Event:
        """Give groups a bandit reward in [0, 1]."""
        for group in groups:
            self.router.feedback(group.step, group.prompt, value)
            group.fed = True
        return {"type": "feedback", "groups": [group.number for group in groups], "value": value}

    def forget(self, group: Group) -> None:
        """Drop a closed group; a late retry of its samples then opens a new one."""
        self.groups.discard(group)
        self._by_number.pop(group.number, None)

    def repeat(self, event: Event, now: float) -> None:
        """Do again what an event says.

        Raises:
            RunDirectoryError: It does not fit the state: it is of another pool, or damaged.
        """
        try:
            kind = event["type"]
            if kind == "open":
                self.open([read_group(one) for one in event["groups"]], numbered=event["numbered"], now=now)
                return
            groups = [self._by_number[number] for number in event["groups"]]
            match kind:
                case "name":
                    self.name(groups[0], event["name"])
                case "enter":
                    self.enter(event["step"])
                case "rows":
                    self.add_rows(groups[0], [Row(*row) for row in event["rows"]], event["probability"])
                case "calls":
                    self.set_calls(event["state"])
                case "note":
                    self.note(groups[0], event["probed"])
                case "learn":
                    self.learn(groups)
                case "close":
                    self.close(groups)
                case "feedback":
                    self.feedback(groups, event["value"])
                case _:
                    raise ValueError(f"{kind!r:.40} is unknown")
        except (LookupError, TypeError, ValueError, LaserError) as error:
            raise RunDirectoryError(
                f"an event of the journal cannot be repeated ({error!r:.300}); start the server with the configuration "
                "that the journal belongs to, or choose another --state"
            ) from error

    def state_dict(self) -> dict[str, Any]:
        """Everything but the router's state, JSON-able."""
        return {
            **self.groups.state_dict(),
            "round": self._round,
            "in_round": sorted(self._in_round),
            "numbered": self.numbered,
            "num_learned": self.num_learned,
        }

    def load_state_dict(
        self, router: StateDict, state: Mapping[str, Any], now: float, *, changed_rewards: bool = False
    ) -> None:
        """Restore `state_dict` and the router's; see `Router.load_state_dict`.

        Raises:
            RunDirectoryError: It is of another pool, or damaged.
        """
        self.router.load_state_dict(router, changed_rewards=changed_rewards)
        try:
            self.groups.load_state_dict(state, now)
            self._by_number = {group.number: group for group in self.groups}
            self._round, self._in_round = int(state["round"]), set(state["in_round"])
            self.numbered, self.num_learned = state["numbered"], int(state["num_learned"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise RunDirectoryError(
                f"the state of the groups is damaged ({error!r:.200}); restore it, or choose another --state"
            ) from error

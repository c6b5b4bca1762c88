"""The samples of a prompt that belong together, although they arrive one by one."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from laser.core.types import Prompt
from laser.integrations.server.samples import Learning, RequestError, Sample


@dataclass(slots=True)
class Row:
    """A scored sample.

    Attributes:
        response: Its text.
        arm: The reward model that scored it.
        score: The score that was answered; None where the reward model had no opinion.
        raw: The score in the units of its reward model.
        id: The trainer's name for it; None where it sent none.
        delivered: Whether its answer has left; a request for an undelivered one is a retry, not another sample.
    """

    response: str
    arm: int
    score: float | None
    raw: float | None
    id: str | None = None
    delivered: bool = False


@dataclass(slots=True)
class Group:
    """The samples of one prompt in one rollout; one reward model scores them.

    Attributes:
        number: Its place in the order of all groups.
        step: The step that the router knows it under.
        key: What its samples have in common.
        prompt: The prompt.
        learning: When it is learned from.
        arm: The reward model that was chosen; None before that.
        probability: The probability with which it was chosen.
        rows: Its scored samples.
        ids: The trainer's names for it.
        under_way: Samples that are not scored yet.
        closed: Whether it is learned, or will never be.
        fed: Whether a bandit reward came from outside.
        noted: Whether the router knows its scores.
        last: When its last sample came, in seconds of a monotonic clock.
    """

    number: int
    step: int
    key: str
    prompt: Prompt
    learning: Learning
    arm: int | None = None
    probability: float = 1.0
    rows: list[Row] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    under_way: int = 0
    closed: bool = False
    fed: bool = False
    noted: bool = False
    last: float = 0.0

    @property
    def learns(self) -> bool:
        """Whether further samples count for what is learned."""
        return not self.closed and self.learning is not Learning.never

    def check(self, sample: Sample) -> None:
        """Make sure that a sample belongs here.

        Raises:
            RequestError: Its prompt, gold answer or kind of learning is another one.
        """
        ours, theirs = self.prompt, sample.prompt
        named = f"group {sample.group!r}" if sample.group is not None else f"the prompt {ours.text[:60]!r}"
        for what, first, second in (
            ("prompt", ours.messages, theirs.messages),
            ("gold answer", ours.answer, theirs.answer),
            ("gold answers", ours.metadata.get("answers"), theirs.metadata.get("answers")),
            ("category", ours.category, theirs.category),
            ("learn", self.learning, sample.learning),
        ):
            if first != second:
                raise RequestError(
                    f"{named} came with {what} {first!r:.80} and now with {second!r:.80}; send the same {what} with "
                    "all samples of a group",
                    409,
                )

    def retried(self, sample: Sample) -> Row | None:
        """The row of an earlier request for the same sample; None where the sample is a new one."""
        for row in self.rows:
            if sample.id is not None:
                if row.id == sample.id:
                    return row
            elif row.id is None and not row.delivered and row.response == sample.response:
                return row
        return None

    def filled(self, score: float | None) -> float:
        """The score, or where there is none the mean of the group's, or 0."""
        if score is not None:
            return score
        scores = [row.score for row in self.rows if row.score is not None]
        return math.fsum(scores) / len(scores) if scores else 0.0


class Groups:
    """Open groups, and closed ones for as long as a retry of their samples may come."""

    def __init__(self, max_open: int) -> None:
        self._max_open = max_open
        self._by_key: OrderedDict[str, Group] = OrderedDict()  # the one whose last sample is the oldest comes first
        self._open_steps: Counter[int] = Counter()
        self.num_opened = 0

    def __iter__(self) -> Iterator[Group]:
        return iter(self._by_key.values())

    def get(self, key: str) -> Group | None:
        """The latest group of a key."""
        return self._by_key.get(key)

    @property
    def num_open(self) -> int:
        """Number of groups that are not closed."""
        return self._open_steps.total()

    def oldest_step(self, default: int) -> int:
        """The oldest step with a group that is not closed."""
        return min(self._open_steps, default=default)

    def check_room(self, num_new: int) -> None:
        """Make sure that further groups can be opened; raises RequestError."""
        if self.num_open + num_new > self._max_open:
            raise RequestError(
                f"{self.num_open} groups are open, the most that --max-groups allows; give --samples, lower --ttl, or "
                "raise --max-groups",
                503,
            )

    def add(self, group: Group, now: float) -> None:
        """Keep a group; it replaces a closed one of the same key."""
        group.last = now
        self._by_key[group.key] = group
        self._by_key.move_to_end(group.key)
        self.num_opened = max(self.num_opened, group.number + 1)
        if not group.closed:
            self._open_steps[group.step] += 1

    def touch(self, group: Group, now: float) -> None:
        """Record that a sample of the group came."""
        group.last = now
        self._by_key.move_to_end(group.key)

    def close(self, group: Group) -> None:
        """Mark a group as closed."""
        if not group.closed:
            self._open_steps[group.step] -= 1
            if not self._open_steps[group.step]:
                del self._open_steps[group.step]
        group.closed = True

    def discard(self, group: Group) -> None:
        """Drop a closed group."""
        if self._by_key.get(group.key) is group:
            del self._by_key[group.key]

    def idle(self, since: float) -> list[Group]:
        """Groups whose last sample came before an instant and is scored."""
        found = []
        for group in self:
            if group.last >= since:
                break
            if group.under_way == 0:
                found.append(group)
        return found

    def state_dict(self) -> dict[str, Any]:
        """All groups, JSON-able."""
        return {"num_opened": self.num_opened, "groups": [group_record(group) for group in self]}

    def load_state_dict(self, state: Mapping[str, Any], now: float) -> None:
        """Restore `state_dict`; the samples that were not delivered for sure may be requested again."""
        self._by_key.clear()
        self._open_steps.clear()
        self.num_opened = int(state["num_opened"])
        for record in state["groups"]:
            self.add(read_group(record), now)


def group_record(group: Group) -> dict[str, Any]:
    """A group as JSON."""
    return {
        **_fields(group, "under_way", "last"),
        "prompt": _fields(group.prompt),
        "learning": group.learning.value,
        "rows": [_fields(row, "delivered") for row in group.rows],
        "ids": sorted(group.ids),
    }


def _fields(record: Any, *left_out: str) -> dict[str, Any]:
    return {one.name: getattr(record, one.name) for one in fields(record) if one.name not in left_out}


def read_group(record: Mapping[str, Any]) -> Group:
    """The group that `group_record` wrote."""
    prompt = Prompt(**{**record["prompt"], "messages": tuple(record["prompt"]["messages"])})
    return Group(
        **{
            **record,
            "prompt": prompt,
            "learning": Learning(record["learning"]),
            "rows": [Row(**row) for row in record["rows"]],
            "ids": set(record["ids"]),
        }
    )

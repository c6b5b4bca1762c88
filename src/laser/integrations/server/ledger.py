"""Samples in, scores out: finds the group of each sample, asks the router, and writes down what happens."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from laser.core.errors import RunDirectoryError
from laser.core.types import Prompt, StateDict
from laser.integrations.server.book import Book
from laser.integrations.server.groups import Group, Row
from laser.integrations.server.journal import Journal
from laser.integrations.server.samples import Learning, RequestError, Sample, Scored
from laser.router.lessons import NOTHING_TO_LEARN
from laser.router.router import Router

_COMPACT = 2**26  # bytes of a journal that call for a snapshot
_UNGROUNDED = 64  # groups that may come before the first gold answer


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample belongs.

    Attributes:
        group: Its group.
        sample: The sample.
        row: Its row, if an earlier request for it was scored.
    """

    group: Group
    sample: Sample
    row: Row | None = None


@dataclass(frozen=True, slots=True)
class Grouping:
    """How samples are grouped.

    Attributes:
        samples: Samples after which a group is complete; None: not known.
        ttl: Seconds without a sample after which a group is complete.
        max_groups: Most open groups.
        scaled: Whether scores are divided by the running spread of their reward model.
        feedback: Whether a complete group waits for its feedback before it is learned from.
    """

    samples: int | None = None
    ttl: float = 300.0
    max_groups: int = 100_000
    scaled: bool = False
    feedback: bool = False


class Ledger:
    """Not thread-safe: the worker alone uses it.

    Args:
        router: The router.
        journal: The folder of its state.
        grouping: How samples are grouped.
        now: Time of a monotonic clock, in seconds, as for all methods.
        changed_rewards: Accept a snapshot of reward models with other weights or code.

    Attributes:
        names: Names of the reward models.
        book: The groups.
        counts: Numbers for /metrics by name and reward model.
        sums: Sums of scores by reward model.

    Raises:
        RunDirectoryError: The journal is of another pool, or damaged.
    """

    def __init__(
        self, router: Router, journal: Journal, grouping: Grouping, now: float = 0.0, *, changed_rewards: bool = False
    ) -> None:
        self.names = router.names
        self.book = Book(router, grouping.max_groups)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.sums: dict[str, float] = defaultdict(float)
        self._grouping = grouping
        self._journal = journal
        self._entered = -1  # the newest step that the router has entered in this process
        if journal.saved is not None:
            saved = journal.saved
            self.book.load_state_dict(saved.router, saved.groups, now, changed_rewards=changed_rewards)
        for event in journal.events:
            self.book.repeat(event, now)
        self._full = {group.number: group for group in self.book.groups if self._is_full(group)}
        self._calls = self.book.calls()

    def enter(self, samples: Sequence[Sample], now: float) -> list[Place]:
        """Find the group of each sample, or open one and choose its reward model.

        Raises:
            RequestError: A sample contradicts its group, or no further group can be opened; nothing was changed.
            LaserError: No reward model is left.
        """
        if self.book.router.start():  # a restart is not to test again: reward models may answer differently
            self.compact()
        self._open(self._check(samples), now)
        places = []
        for sample in samples:
            group = self.book.groups.get(sample.key)
            assert group is not None
            row = group.retried(sample)
            self.book.groups.touch(group, now)
            if sample.group is not None and sample.group not in group.ids:
                self._journal.append(self.book.name(group, sample.group))
            if row is None:
                group.under_way += 1
            else:
                self.counts["retries", ""] += 1
            places.append(Place(group, sample, row))
        return places

    def score(self, places: Sequence[Place], now: float) -> list[Row]:
        """Score samples of groups that share a step; a reward model that fails is replaced by another choice.

        Raises:
            LaserError: No reward model is left; all of them are then on trial.
        """
        step = places[0].group.step
        if step > self._entered:
            self._entered = step
            self._journal.append(self.book.enter(step))
        try:
            scored = self.book.router.score(
                [place.group.prompt for place in places],
                [place.sample.response for place in places],
                step,
                learn=False,
                scaled=self._grouping.scaled,
            )
        finally:
            self._note_calls()
        by_group: dict[int, list[int]] = defaultdict(list)
        for index, place in enumerate(places):
            by_group[place.group.number].append(index)
        rows = [
            Row(place.sample.response, int(arm), _number(score), _number(raw), place.sample.id)
            for place, arm, score, raw in zip(places, scored.arms, scored.scores, scored.raw, strict=True)
        ]
        for indices in by_group.values():
            group, ours = places[indices[0]].group, [rows[index] for index in indices]
            self.counts["groups_split", ""] += bool(group.rows) and ours[-1].arm != group.arm
            self._journal.append(self.book.add_rows(group, ours, float(scored.probabilities[indices[-1]])))
            group.under_way -= len(ours)
            self.book.groups.touch(group, now)
            if self._is_full(group):
                self._full[group.number] = group
        for row in rows:
            self._count(row)
        return rows

    def answer(self, group: Group, row: Row) -> Scored:
        """The answer for a sample from its row."""
        return Scored(row.score, group.filled(row.score), row.arm, self.names[row.arm], group.probability)

    def give_up(self, places: Iterable[Place]) -> None:
        """Forget samples that could not be scored; their sender may send them again."""
        for place in places:
            place.group.under_way -= 1

    def close_complete(self, now: float) -> None:
        """Learn from the groups that have all their samples, and from those that got none for `ttl` seconds."""
        idle = self.book.groups.idle(now - self._grouping.ttl)
        full = [group for group in self._full.values() if group.fed or not self._grouping.feedback]
        ended = {group.number: group for group in [*full, *idle] if not group.closed and group.under_way == 0}
        for number in ended:
            self._full.pop(number, None)
        learned = [group for group in ended.values() if group.learning is Learning.auto]
        dropped = [group for group in ended.values() if group.learning is not Learning.auto]
        if learned:
            self._learn(learned)
        if dropped:
            self._journal.append(self.book.close(dropped))
        for group in idle:
            self.book.forget(group)

    def learn(self, step: int | None, names: Sequence[str] | None) -> dict[str, float]:
        """Learn from groups that wait for it (`Learning.later`).

        Args:
            step: The trainer's step; None: any.
            names: The trainer's names of the groups; None: all of the step.

        Returns:
            Metrics of the router.
        """
        wanted = None if names is None else set(names)
        found = [
            group
            for group in self.book.groups
            if group.learning is Learning.later
            and not group.closed
            and (step is None or group.step == step)
            and (wanted is None or group.ids & wanted)
        ]
        if found:
            self._learn(found)
        return self.book.metrics if found else {}

    def feedback(self, prompt: Prompt | None, step: int | None, value: float) -> int:
        """Record a bandit reward in [0, 1] for the open groups of a prompt, a step or both; returns their number.

        Raises:
            RequestError: There is none.
        """
        found = [
            group
            for group in self.book.groups
            if group.learns and step in (None, group.step) and (prompt is None or prompt.id == group.prompt.id)
        ]
        if not found:
            raise RequestError(
                "no open group has that prompt and step; send feedback before the group is learned, and start the "
                "server with --feedback",
                409,
            )
        self._journal.append(self.book.feedback(found, value))
        return len(found)

    def commit(self) -> None:
        """Bring what happened to the disk; raises RunDirectoryError."""
        self._journal.commit()
        if self._journal.size > _COMPACT:
            self.compact()

    def compact(self) -> None:
        """Replace the journal by a snapshot; raises RunDirectoryError."""
        self._journal.snapshot(self.book.router.state_dict(), self.book.state_dict())

    def state_dict(self) -> StateDict:
        """Everything that another server needs to continue; arrays and JSON values."""
        return {**self.book.router.state_dict(), "book": self.book.state_dict()}

    def load_state_dict(self, state: StateDict, now: float) -> None:
        """Continue from `state_dict`, durably.

        Raises:
            RequestError: Samples are under way, or it is not the state of a server with this pool.
            RunDirectoryError: It cannot be written.
        """
        if any(group.under_way for group in self.book.groups):
            raise RequestError("samples are under way; send the state before the trainer sends samples", 409)
        if not isinstance(state.get("book"), dict):
            raise RequestError("this is not the state of a reward server; send what GET /state gave", 409)
        before = self.state_dict()
        try:
            self._restore(state, now)
        except RunDirectoryError as error:
            self._restore(before, now)
            raise RequestError(str(error), 409) from error
        self._calls = self.book.calls()
        self.compact()

    def close(self) -> None:
        """Write a snapshot and release the folder; raises RunDirectoryError."""
        self.compact()
        self.release()

    def release(self) -> None:
        """Release the folder without a snapshot; the journal has everything."""
        self._journal.close()

    def _restore(self, state: StateDict, now: float) -> None:
        router = {name: value for name, value in state.items() if name != "book"}
        self.book.load_state_dict(router, state["book"], now)

    def _check(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples that open groups, one each; raises RequestError before anything is changed."""
        if self.book.numbered not in (None, samples[0].step is not None):
            raise RequestError(
                "requests with a step and requests without one came; send the trainer's step with all or with none", 409
            )
        new: dict[str, Sample] = {}
        for sample in samples:
            group = self.book.groups.get(sample.key)
            if sample.key in new:
                _opened(new[sample.key]).check(sample)
            elif group is None or (group.closed and sample.step is None and group.retried(sample) is None):
                new[sample.key] = sample
            else:
                group.check(sample)
        self.book.groups.check_room(len(new))
        self._check_grounded(list(new.values()))
        return list(new.values())

    def _check_grounded(self, new: Sequence[Sample]) -> None:
        """Refuse more groups where nothing will ever be learned; raises RequestError."""
        if self._grouping.feedback or self.book.router.is_grounded or self.book.groups.num_opened < _UNGROUNDED:
            return
        if any(sample.prompt.answer is None and sample.learning is not Learning.never for sample in new):
            raise RequestError(f"{NOTHING_TO_LEARN}, or start the server with --feedback and send /feedback", 422)

    def _open(self, samples: Sequence[Sample], now: float) -> None:
        """Open a group for each sample; the router chooses once for all that share a step."""
        by_step: dict[int, list[Group]] = defaultdict(list)
        first = self.book.groups.num_opened
        for offset, (sample, step) in enumerate(zip(samples, self.book.steps_of(samples), strict=True)):
            by_step[step].append(_opened(sample, first + offset, step))
        for groups in by_step.values():
            numbered = samples[0].step is not None
            self._journal.append(self.book.open(groups, numbered=numbered, now=now))
            for group in groups:
                self.counts["choices", self.names[group.arm or 0]] += 1

    def _note_calls(self) -> None:
        """Write down what calls of reward models left behind, which a restart cannot repeat."""
        state = self.book.calls()
        if state != self._calls:
            self._journal.append(self.book.set_calls(state))
            self._calls = self.book.calls()

    def _learn(self, groups: Sequence[Group]) -> None:
        """Learn from complete groups; close them where there is nothing to learn from."""
        for group in groups:
            if group.rows and not group.noted:
                self._journal.append(self.book.note(group))
                self._note_calls()
        if self.book.router.is_grounded:
            self._journal.append(self.book.learn(groups))
        else:
            self._journal.append(self.book.close(groups))

    def _is_full(self, group: Group) -> bool:
        """Whether a group that ends with its last sample has it."""
        samples = self._grouping.samples
        ends = group.learning is not Learning.later and not group.closed
        return ends and samples is not None and len(group.rows) >= samples

    def _count(self, row: Row) -> None:
        name = self.names[row.arm]
        self.counts["samples", name] += 1
        if row.raw is None:
            self.counts["unscored", name] += 1
        else:
            self.sums[name] += row.raw


def _opened(sample: Sample, number: int = 0, step: int = 0) -> Group:
    return Group(number, step, sample.key, sample.prompt, sample.learning)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

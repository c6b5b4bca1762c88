"""A router: laser's selection and scoring inside another trainer, without laser's policy and loop.

The trainer samples and learns; the router chooses a reward model for each prompt of a step, scores the responses with
it, and learns how good the choice was from gold answers, a probe, the trainer's metric, or bandit rewards from outside.

A choice is a function of what was learned so far, the step and the prompt: neither the order nor the number of calls
changes it, so several processes with the same state choose alike, and so does a resumed one. For groups of a probe it
chooses after all reward models have scored them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from laser.bandits.arm_selector import section
from laser.config import RouterConfig, RunConfig
from laser.core.errors import DataError, RunDirectoryError
from laser.core.files import is_folder
from laser.core.types import FloatArray, Prompt, StateDict
from laser.evaluation.answers import Reader
from laser.parallel.ranks import Ranks
from laser.rewards.pool import RewardPool
from laser.rewards.spreads import deviations_by_arm
from laser.router.choosing import Choice, Chooser
from laser.router.groups import Group, Groups
from laser.router.identity import VERSION, check_state, identity_of, read_state, resolved, write_state
from laser.router.lessons import Lessons, metrics_of
from laser.router.rows import Given, Members, Responses, Row, by_prompt, read_prompt, read_rows, responses_of
from laser.router.scoring import Scored, collect, score_by_all, score_groups
from laser.training.checkpoint import Stateful
from laser.wiring import build_pool


class Router:
    """Chooses reward models for the prompts of another trainer, scores with them, and learns which to trust.

    All methods may be called from several threads. `score` holds the reward models; `choose`, `learn` and `feedback`
    do not wait for it.

    Args:
        config: A `RouterConfig` or `RunConfig`, the path of a TOML file, or the nested dict that one would hold.
        state: A folder that `save` wrote; a missing one means a fresh start.
        ranks: The processes that score together: each calls every method with the same arguments.

    Attributes:
        config: The resolved configuration.

    Raises:
        LaserError: The configuration or a reward model cannot be used, or the state is of another pool.
    """

    def __init__(
        self,
        config: RouterConfig | RunConfig | Mapping[str, Any] | str | Path,
        state: str | Path | None = None,
        *,
        ranks: Ranks | None = None,
    ) -> None:
        self.config = resolved(config)
        self._pool = build_pool(self.config, ranks)
        self._chooser = Chooser(self.config, self._pool)
        self._lessons = Lessons(self.config, self._chooser)
        self._reader = Reader(self.config.evaluation.answer)
        self._groups = Groups()
        self._step = -1  # the newest step that was scored
        self._lock = threading.RLock()  # choices and what is learned; never held while a reward model scores
        self._scoring = threading.RLock()  # the pool; taken before `_lock` where both are
        if state is not None and is_folder(Path(state)):
            self.load(state)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the reward models, by arm."""
        return self._pool.names

    @property
    def pool(self) -> RewardPool:
        """The reward models, to read their quarantine and costs."""
        return self._pool

    @property
    def is_grounded(self) -> bool:
        """Whether there is anything to learn from: gold answers so far, a probe, a metric or feedback."""
        return self._lessons.is_grounded

    def start(self) -> bool:
        """Test all reward models on `signal.pairs`, as the first choice does; False where there is nothing to test."""
        if not self._lessons.untested:
            return False
        with self._scoring:
            if pairs := self._lessons.untested:
                scores = score_by_all(self._pool, [pair.prompt for pair in pairs], [pair.texts for pair in pairs])
                with self._lock:
                    self._lessons.test(pairs, scores)
            return bool(pairs)

    def choose(self, prompts: Sequence[Given], step: int) -> list[Choice]:
        """The reward model of each prompt in a step; asked again, the same answer.

        Args:
            prompts: Text, chat messages, or `Prompt` records.
            step: The trainer's step, from 0.

        Raises:
            DataError: A prompt is malformed, or the step is forgotten.
            TrainingError: No reward model is left.
        """
        read = [read_prompt(given, f"prompt {index}") for index, given in enumerate(prompts)]
        self.start()
        with self._lock:
            groups = [self._group(prompt, step) for prompt in read]
        return [Choice(group.arm, self.names[group.arm], group.probability) for group in groups]

    def score(
        self,
        prompts: Sequence[Given],
        responses: Sequence[Any],
        step: int,
        gold: Sequence[Any] | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
        *,
        learn: bool = True,
        scaled: bool = False,
    ) -> Scored:
        """Score rows, each with the reward model of its prompt; a reward model that fails is replaced.

        Args:
            prompts: The prompt of each row.
            responses: A response per row: text, or chat messages that end with the assistant's.
            step: The trainer's step.
            gold: Gold answers by row; None: from `columns`, if one has them.
            columns: Further columns of the data, one value per row, for reward functions; `category` is the prompt's.
            learn: Whether the scores are to be learned from; False in an evaluation.
            scaled: Divide each reward model's scores by its running spread, for trainers that do not normalize rewards
                within a group.

        Raises:
            DataError: Rows are malformed or disagree, or the step is forgotten.
            RewardModelError: A reward model failed, and `rewards.max_failures` is 0.
            TrainingError: No reward model is left.
        """
        rows = read_rows(prompts, responses, gold, columns)
        members = by_prompt(rows)
        with self._scoring:
            self.start()
            if learn:
                self.enter(step)
            new = [key for key in members if learn and self._groups.get(step, key) is None]
            groups = self._groups_of(rows, members, step, keep=learn)
            answers = {
                key: responses_of([rows[index] for index in members[key]], self._reader) for key in members if learn
            }
            self._probe({key: groups[key] for key in new}, answers, step)
            given, failed = score_groups(self._pool, rows, members, groups, partial(self._choose_again, step))
            for key in answers:
                self._keep(groups[key], given[key], answers[key])
            return collect(members, groups, given, self._pool.spreads.values_K if scaled else None, failed)

    def feedback(self, step: int, prompt: Given, value: float) -> None:
        """Give a group a bandit reward from outside, which goes before any other.

        Args:
            step: The step of the group.
            prompt: Its prompt.
            value: In [0, 1].

        Raises:
            DataError: The value is out of range, or nothing was chosen for the prompt in that step.
        """
        if not 0.0 <= value <= 1.0:
            raise DataError(f"the feedback is {value!r:.60}; give a bandit reward in [0, 1]")
        with self._lock:
            group = self._groups.known(step, read_prompt(prompt).id)
            if group.learned:
                raise DataError(f"the group was learned already; give its feedback before learn({step})")
            group.fed = float(value)
            self._lessons.is_grounded = True

    def learn(
        self, step: int, *, metric: float | None = None, prompts: Sequence[Given] | None = None
    ) -> dict[str, float]:
        """Learn from the groups up to a step that were not learned yet, or from those of some prompts in that step.

        A group earns, in this order: its `feedback`; the share of its pairs of right and wrong responses that its
        reward model ordered correctly; what the probe found; the gain of `metric`. A group that earns nothing waits.

        Args:
            step: The step that has ended.
            metric: A number that the trainer measured, higher is better; its gain since the last one is the bandit
                reward of the groups in between. With signal.type = "dev_gain", nothing else is learned from.
            prompts: The prompts whose groups have ended; None: the step has, and choices of old ones are forgotten.

        Returns:
            Metrics of the groups by name.

        Raises:
            DataError: Nothing can ever be learned, or the metric is not finite.
        """
        with self._lock:
            keys = None if prompts is None else {read_prompt(given).id for given in prompts}
            waiting = list(self._groups.waiting(step, keys))
            known = self._lessons.learn(waiting, metric)
            if keys is None:
                self._groups.close(step)
            return metrics_of(waiting, known, self._pool)

    def note(
        self,
        step: int,
        prompt: Given,
        responses: Sequence[str],
        *,
        arm: int,
        probability: float,
        scores: Sequence[float],
        probed: FloatArray | None = None,
    ) -> FloatArray | None:
        """Keep the scores of a complete group, which `score(learn=False)` gave a few at a time, to learn from them.

        Args:
            step: The step of the group.
            prompt: Its prompt, with the gold answer where there is one.
            responses: All its responses.
            arm: The reward model that scored them.
            probability: With which it was chosen.
            scores: Raw scores, NaN where it had no opinion.
            probed: What an earlier call returned, to repeat it without the reward models.

        Returns:
            The scores that all reward models gave for the probe; None where it asked nothing.

        Raises:
            DataError: Nothing was chosen for the prompt in that step, or the step is forgotten.
        """
        read = read_prompt(prompt)
        with self._scoring:
            with self._lock:
                group = self._groups.known(step, read.id)
                group.arm, group.probability, group.scores, group.right = arm, probability, [], []
            given = responses_of([Row(read, text) for text in responses], self._reader)
            self._keep(group, np.array(scores), given)
            asked = self._lessons.ask(self._pool, [group], [given], probed)
            with self._lock:
                self._lessons.add(asked)
            return asked[0].scores_KN if asked else None

    def forget(self, step: int) -> None:
        """Forget the choices of steps long before one that has ended, as `learn` without prompts does."""
        with self._lock:
            self._groups.close(step)

    def restart(self) -> None:
        """Count steps from 0 again, for another training; what was learned stays, choices are forgotten."""
        with self._scoring, self._lock:
            self._groups.clear()
            self._step = -1

    async def achoose(self, prompts: Sequence[Given], step: int) -> list[Choice]:
        """`choose`, without blocking the event loop."""
        return await asyncio.to_thread(self.choose, prompts, step)

    async def ascore(
        self,
        prompts: Sequence[Given],
        responses: Sequence[Any],
        step: int,
        gold: Sequence[Any] | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
        *,
        learn: bool = True,
        scaled: bool = False,
    ) -> Scored:
        """`score`, without blocking the event loop."""
        return await asyncio.to_thread(self.score, prompts, responses, step, gold, columns, learn=learn, scaled=scaled)

    def usage(self) -> dict[str, dict[str, int]]:
        """What each reward model was used for, by name; see `RewardPool.usage`."""
        return self._pool.usage()

    def release(self) -> None:
        """Release the loaded reward models; the next score loads them again."""
        with self._scoring:
            self._pool.release_all()

    def state_dict(self) -> StateDict:
        """Everything needed to continue identically; it waits for a score that is under way."""
        with self._scoring, self._lock:
            state: StateDict = {"version": VERSION, "identity": identity_of(self.config), "step": self._step}
            for name, part in self._parts().items():
                state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
            return state

    def load_state_dict(self, state: StateDict, *, changed_rewards: bool = False) -> None:
        """Restore `state_dict`.

        Args:
            state: The state.
            changed_rewards: Accept reward models with other weights or code than when the state was saved.

        Raises:
            RunDirectoryError: It is of another pool or configuration, or of another version of laser.
        """
        with self._scoring, self._lock:
            check_state(state, identity_of(self.config), changed_rewards=changed_rewards)
            try:
                for name, part in self._parts().items():
                    part.load_state_dict(section(state, f"{name}."))
                self._step = int(state["step"])
            except (LookupError, TypeError, ValueError) as error:
                raise RunDirectoryError(
                    f"the state of the router does not fit ({error}); use the one that this configuration wrote"
                ) from error

    def save(self, folder: str | Path) -> None:
        """Write the state into a folder, whole or not at all; an older one there is replaced.

        Raises:
            RunDirectoryError: It cannot be written.
        """
        write_state(folder, self.state_dict())

    def load(self, folder: str | Path, *, changed_rewards: bool = False) -> None:
        """Restore what `save` wrote; see `load_state_dict`.

        Raises:
            RunDirectoryError: It is missing, damaged, or of another pool.
        """
        self.load_state_dict(read_state(folder), changed_rewards=changed_rewards)

    def _parts(self) -> dict[str, Stateful]:
        return {
            "selector": self._chooser.selector,
            "contexts": self._chooser.contexts,
            "pool": self._pool,
            "groups": self._groups,
            "lessons": self._lessons,
        }

    def _group(self, prompt: Prompt, step: int, *, keep: bool = True) -> Group:
        """The group of a prompt in a step, chosen for if it is new; a copy without scores unless it is to be kept."""
        group = self._groups.get(step, prompt.id)
        if group is None:
            group = self._chooser.choose(prompt, step)
            if keep:
                self._lessons.check(prompt.category)
                self._groups.put(step, prompt.id, group)
        return group if keep else dataclasses.replace(group, scores=[], right=[])

    def _groups_of(self, rows: Sequence[Row], members: Members, step: int, *, keep: bool) -> dict[str, Group]:
        """The group of each key; raises DataError if its rows disagree with each other or with earlier ones."""
        by_category = self.config.context.source == "category"
        groups = {}
        with self._lock:
            for key, indices in members.items():
                groups[key] = self._group(rows[indices[0]].prompt, step, keep=keep)
                for index in indices:
                    groups[key].check(rows[index].prompt, by_category=by_category)
        return groups

    def enter(self, step: int) -> None:
        """Count a new step for the quarantine, and tell reward functions where the training is; `score` does it too."""
        if step <= self._step:
            return
        self._step = step
        self._pool.quarantine.next_batch()
        self._pool.at.step = self._pool.at.num_batches = step

    def _choose_again(self, step: int, groups: Mapping[str, Group]) -> None:
        with self._lock:
            for key, group in groups.items():
                self._chooser.choose_again(key, group, step)

    def _probe(self, new: Mapping[str, Group], answers: Mapping[str, Responses], step: int) -> None:
        """Learn of the new groups that the probe needs, and choose for all new ones with what it found."""
        asked = self._lessons.ask(self._pool, list(new.values()), [answers[key] for key in new])
        if asked:
            with self._lock:
                self._lessons.add(asked, teach=True)
            self._choose_again(step, new)

    def _keep(self, group: Group, scores_N: FloatArray, responses: Responses) -> None:
        """Keep scores of a group's responses, and which of these are right."""
        with self._lock:
            group.scores.extend(scores_N.tolist())
            group.right.extend(responses.right)
            self._lessons.is_grounded |= any(value is not None for value in responses.right)
        scores_KN = np.full((len(self.names), len(scores_N)), np.nan)
        scores_KN[group.arm] = scores_N
        self._pool.spreads.add(deviations_by_arm([scores_KN]))

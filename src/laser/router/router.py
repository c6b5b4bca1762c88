"""A router: laser's selection and scoring inside another trainer, without laser's policy and loop.

The trainer samples and learns; the router chooses a reward model for each prompt of a step, scores the responses with
it, and learns how good the choice was from gold answers, a probe, the trainer's metric, or bandit rewards from outside.

A choice is a function of what was learned so far, the step and the prompt: neither the order nor the number of calls
changes it, so several processes with the same state choose alike, and so does a resumed one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from laser.bandits.arm_selector import section
from laser.config import RouterConfig, RunConfig, load_router_config, parse_router_config
from laser.core.errors import ConfigError, DataError, RunDirectoryError
from laser.core.files import is_folder, replacing_folder
from laser.core.state import load_state, save_state
from laser.core.types import FloatArray, Prompt, StateDict
from laser.evaluation.answers import answer_check
from laser.parallel.ranks import Ranks
from laser.rewards.pool import QuarantinedError
from laser.rewards.spreads import deviations_by_arm
from laser.router.choosing import Chooser
from laser.router.groups import Group, Groups
from laser.router.identity import VERSION, check_state, identity_of
from laser.router.lessons import Lessons
from laser.router.probe import RolloutProbe
from laser.router.rows import Given, Members, Row, by_prompt, read_prompt, read_rows
from laser.router.scoring import Scored, collect, score_groups
from laser.training.checkpoint import Stateful
from laser.wiring import build_pool

_STATE = "router"


@dataclass(frozen=True, slots=True)
class Choice:
    """The reward model of a prompt.

    Attributes:
        arm: Its number in the pool.
        name: Its name.
        probability: With which it was chosen.
    """

    arm: int
    name: str
    probability: float


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
        self.config = _resolved(config)
        self._pool = build_pool(self.config, ranks)
        self._chooser = Chooser(self.config, self._pool)
        self._lessons = Lessons(self.config, self._chooser)
        self._is_right = answer_check(self.config.evaluation.answer)
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
            self._enter(step)
            groups = self._groups_of(rows, members, step, keep=learn)
            given, failed = score_groups(self._pool, rows, members, groups, partial(self._choose_again, step))
            if learn:
                self._note(rows, members, groups, given)
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
            group = self._groups.get(step, read_prompt(prompt).id)
            if group is None:
                raise DataError(
                    f"no reward model was chosen for this prompt in step {step}; call choose or score first"
                )
            if group.learned:
                raise DataError(f"the group was learned already; give its feedback before learn({step})")
            group.fed = float(value)
            self._lessons.is_grounded = True

    def learn(self, step: int, *, metric: float | None = None) -> dict[str, float]:
        """Learn from the groups up to a step that were not learned yet.

        A group earns, in this order: its `feedback`; the share of its pairs of right and wrong responses that its
        reward model ordered correctly; what the probe found; the gain of `metric`. A group that earns nothing waits.

        Args:
            step: The step that has ended.
            metric: A number that the trainer measured, higher is better; its gain since the last one is the bandit
                reward of the groups in between. With signal.type = "dev_gain", nothing else is learned from.

        Returns:
            Metrics of the step by name.

        Raises:
            DataError: Nothing can ever be learned, or the metric is not finite.
        """
        with self._lock:
            waiting = list(self._groups.until(step))
            known = self._lessons.learn(waiting, metric)
            self._groups.close(step)
            return self._metrics([group for group in waiting if group.scores], known)

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
        folder = Path(folder).absolute()
        state = self.state_dict()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with replacing_folder(folder) as temporary:
                save_state(temporary / _STATE, state)
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write the router's state to {folder} ({error.strerror or error}); free space or fix the "
                "permissions"
            ) from error

    def load(self, folder: str | Path, *, changed_rewards: bool = False) -> None:
        """Restore what `save` wrote; see `load_state_dict`.

        Raises:
            RunDirectoryError: It is missing, damaged, or of another pool.
        """
        self.load_state_dict(load_state(Path(folder) / _STATE), changed_rewards=changed_rewards)

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

    def _enter(self, step: int) -> None:
        """Count a new step for the quarantine, and tell reward functions where the training is."""
        if step <= self._step:
            return
        self._step = step
        self._pool.quarantine.next_batch()
        self._pool.at.step = self._pool.at.num_batches = step

    def _choose_again(self, step: int, groups: Mapping[str, Group]) -> None:
        with self._lock:
            for key, group in groups.items():
                self._chooser.choose_again(key, group, step)

    def _note(
        self, rows: Sequence[Row], members: Members, groups: Mapping[str, Group], given: Mapping[str, FloatArray]
    ) -> None:
        """Keep scores and which responses are right, and have all reward models score what the probe asks for."""
        for key, indices in members.items():
            right = [self._right(rows[index]) for index in indices]
            with self._lock:
                groups[key].scores.extend(given[key].tolist())
                groups[key].right.extend(right)
                self._lessons.is_grounded |= any(value is not None for value in right)
            if self._lessons.probe is not None:
                self._ask(self._lessons.probe, [rows[index] for index in indices], groups[key], right)
        scores_BKN = [np.full((len(self.names), len(indices)), np.nan) for indices in members.values()]
        for scores_KN, key in zip(scores_BKN, members, strict=True):
            scores_KN[groups[key].arm] = given[key]
        self._pool.spreads.add(deviations_by_arm(scores_BKN))

    def _right(self, row: Row) -> bool | None:
        return None if row.prompt.answer is None else self._is_right(row.prompt, row.text)

    def _ask(self, probe: RolloutProbe, rows: Sequence[Row], group: Group, right: Sequence[bool | None]) -> None:
        """Have all reward models score a group, if the probe asks for it."""
        question = probe.question(group.category, [row.text for row in rows], right)
        if question is None:
            return
        scores_KN = np.full((len(self.names), len(question.texts)), np.nan)
        for arm in np.flatnonzero(self._pool.available_K).tolist():
            try:
                scores_KN[arm] = self._pool.score(arm, [rows[0].prompt], [question.texts])[0]
            except QuarantinedError as error:
                warnings.warn(f"the probe continues without {self.names[arm]}: {error}", stacklevel=2)
        with self._lock:
            probe.add(group.category, group.embedding_D, question, scores_KN)

    def _metrics(self, scored: Sequence[Group], known: Sequence[tuple[Group, float]]) -> dict[str, float]:
        metrics = {"bandit/groups": float(len(scored)), "bandit/learned": float(len(known))}
        if known:
            metrics["bandit/reward"] = float(np.mean([reward for _, reward in known]))
        for arm, name in enumerate(self.names):
            if scored:
                metrics[f"bandit/chosen/{name}"] = float(np.mean([group.arm == arm for group in scored]))
            earned = [reward for group, reward in known if group.arm == arm]
            if earned:
                metrics[f"bandit/reward/{name}"] = float(np.mean(earned))
        metrics["bandit/quarantined"] = float((~self._pool.available_K).sum())
        return metrics


def _resolved(config: RouterConfig | RunConfig | Mapping[str, Any] | str | Path) -> RouterConfig:
    match config:
        case RouterConfig():
            return config
        case RunConfig():
            return parse_router_config(config.model_dump(mode="json"))
        case str() | Path():
            return load_router_config(config)
        case Mapping():
            return parse_router_config(dict(config))
    raise ConfigError(
        f"config is of type {type(config).__name__}; give a RouterConfig, the path of a TOML file, or a dict"
    )

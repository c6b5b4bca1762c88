"""Groups: the responses to one prompt in one step, and the reward model that was chosen for them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from laser.core.errors import DataError
from laser.core.files import to_json
from laser.core.types import FloatArray, Prompt, StateDict

KEPT_STEPS = 16  # steps for which choices are remembered after the newest one that was learned


@dataclass(slots=True)
class Group:
    """The responses to one prompt in one step.

    Attributes:
        arm: The reward model that was chosen.
        probability: With which it was.
        category: Of the prompt.
        embedding_D: The prompt's features, not prepared.
        answers: Gold answers; None while no row with one has come.
        scores: Of the responses by the chosen reward model; NaN where it has no opinion.
        right: Whether each response has the gold answer; None where there is none.
        fed: Bandit reward from outside, in [0, 1].
        remembered: Whether the features are in the running moments of the contexts.
        learned: Whether the selector has learned from it.
    """

    arm: int
    probability: float
    category: str
    embedding_D: FloatArray
    answers: list[str] | None = None
    scores: list[float] = field(default_factory=list)
    right: list[bool | None] = field(default_factory=list)
    fed: float | None = None
    remembered: bool = False
    learned: bool = False

    def check(self, prompt: Prompt, *, by_category: bool) -> None:
        """Compare a row of the group with the rows before it, and keep its gold answers.

        Raises:
            DataError: It has other gold answers, or another category although the category was the context.
        """
        if by_category and prompt.category != self.category:
            raise DataError(
                f"a prompt was chosen for as of category {self.category!r} and scored as of {prompt.category!r}; give "
                "`choose` and `score` the same category"
            )
        answers = golds_of(prompt)
        if answers and self.answers is not None and answers != self.answers:
            raise DataError(
                f"two rows of one step have the same prompt ({prompt.text!r:.60}) and the gold answers "
                f"{self.answers} and {answers}; give each prompt one gold answer"
            )
        self.answers = answers or self.answers


class Groups:
    """The groups of the latest steps, by step and prompt."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, str], Group] = {}
        self.learned_step = -1  # the newest step that was learned

    def __len__(self) -> int:
        return len(self._groups)

    def get(self, step: int, key: str) -> Group | None:
        """The group of a prompt in a step; raises DataError for a step that is forgotten."""
        if not 0 <= step < 2**32:
            raise DataError(f"the step is {step}; give the trainer's step, an integer from 0")
        if step <= self.learned_step - KEPT_STEPS:
            raise DataError(
                f"step {step} is more than {KEPT_STEPS} steps before step {self.learned_step}, which was learned; its "
                "choices are forgotten. Restore the state of that step, or choose for a later one"
            )
        return self._groups.get((step, key))

    def known(self, step: int, key: str) -> Group:
        """The group of a prompt in a step; raises DataError without one."""
        group = self.get(step, key)
        if group is None:
            raise DataError(f"no reward model was chosen for this prompt in step {step}; call choose or score first")
        return group

    def put(self, step: int, key: str, group: Group) -> None:
        """Keep a group."""
        self._groups[step, key] = group

    def waiting(self, step: int, keys: Collection[str] | None = None) -> Iterator[Group]:
        """Groups that are not learned, in an order that does not depend on their arrival.

        Args:
            step: With `keys`, those of this step; without, those of the steps up to it.
            keys: Prompts.
        """
        for at, key in sorted(self._groups) if keys is None else sorted((step, key) for key in keys):
            group = self._groups.get((at, key))
            if at <= step and group is not None and not group.learned:
                yield group

    def close(self, step: int) -> None:
        """Record that a step was learned, and forget those that are too old."""
        self.learned_step = max(self.learned_step, step)
        oldest = self.learned_step - KEPT_STEPS
        self._groups = {place: group for place, group in self._groups.items() if place[0] > oldest}

    def clear(self) -> None:
        """Forget all groups and steps."""
        self._groups, self.learned_step = {}, -1

    def state_dict(self) -> StateDict:
        """All groups."""
        embeddings = [group.embedding_D for group in self._groups.values()]
        return {
            "learned_step": self.learned_step,
            "groups": [[*place, *_record(group)] for place, group in self._groups.items()],
            "embeddings": np.stack(embeddings) if embeddings else np.zeros((0, 0)),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`."""
        self.learned_step = int(state["learned_step"])
        self._groups = {
            (int(step), str(key)): _group(record, embedding_D)
            for (step, key, *record), embedding_D in zip(state["groups"], state["embeddings"], strict=True)
        }


def golds_of(prompt: Prompt) -> list[str]:
    """Gold answers of a prompt; empty where there is none."""
    several = prompt.metadata.get("answers")
    if isinstance(several, list | tuple) and several:
        return [str(answer) for answer in several]
    return [] if prompt.answer is None else [prompt.answer]


def _record(group: Group) -> list[Any]:
    values = [group.arm, group.probability, group.category, group.answers, to_json(group.scores)]
    return [*values, list(group.right), group.fed, group.remembered, group.learned]


def _group(record: list[Any], embedding_D: FloatArray) -> Group:
    arm, probability, category, answers, scores, right, fed, remembered, learned = record
    finite = [float("nan") if score is None else float(score) for score in scores]
    embedding_D = np.array(embedding_D, dtype=np.float64)
    return Group(
        int(arm), float(probability), category, embedding_D, answers, finite, list(right), fed, remembered, learned
    )

"""What a probe tests reward models on: prompts and labeled pairs, and their responses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from laser.core.types import Prompt
from laser.data.preferences import Candidates
from laser.data.store import digest
from laser.training.findings import Labels


@dataclass(frozen=True, slots=True)
class ProbeData:
    """What a probe tests on, by category.

    Attributes:
        prompts: Prompts that the policy answers.
        pairs: Prompts with better and worse responses.
    """

    prompts: Mapping[str, Sequence[Prompt]] = field(default_factory=dict)
    pairs: Mapping[str, Sequence[Candidates]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """A probe prompt with distinct responses.

    Attributes:
        key: Unique among the items.
        prompt: The prompt.
        labels: Where the labels of its pairs come from.
        responses: Its distinct responses, the right or better ones first.
        num_right: Number of those; 0 with consensus labels.
        counts: How many of the policy's samples were each response; 0 for one that it did not sample.
    """

    key: str
    prompt: Prompt
    labels: Labels
    responses: tuple[str, ...]
    num_right: int
    counts: tuple[int, ...]

    def as_state(self) -> list[Any]:
        """JSON-able form, without the prompt."""
        return [self.prompt.id, self.labels, list(self.responses), self.num_right, list(self.counts)]


def key_of(prompt_id: str) -> str:
    """Key of the item of a prompt that the policy answers."""
    return f"prompt {prompt_id}"


def from_state(state: Sequence[Any], prompts: Mapping[str, Prompt]) -> Item:
    """The item of which `Item.as_state` gave `state`; `prompts` by id."""
    prompt_id, labels, texts, num_right, counts = state
    return Item(key_of(prompt_id), prompts[prompt_id], labels, tuple(texts), num_right, tuple(counts))


def given_items(pairs: Mapping[str, Sequence[Candidates]]) -> dict[str, list[Item]]:
    """Items of labeled pairs, by category."""
    numbers = count()
    return {
        category: [
            Item(f"pair {next(numbers)}", one.prompt, "pairs", one.texts, len(one.correct), (0,) * len(one.texts))
            for one in of_category
        ]
        for category, of_category in pairs.items()
    }


def identity(given: Mapping[str, Iterable[Item]]) -> str:
    """Identity of labeled pairs."""
    rows = [[name, [[one.prompt.messages, one.responses, one.num_right] for one in of]] for name, of in given.items()]
    return digest(rows).hex()

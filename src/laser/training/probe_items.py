"""What a probe tests reward models on: prompts and labeled pairs, and their responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from laser.core.types import FloatArray, Prompt
from laser.data.preferences import Candidates
from laser.data.store import digest
from laser.evaluation.answers import IsRight, Said
from laser.training.consensus import Answers, answer_counts
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
        counts: How many of the policy's samples were each response; 0 for one that it did not sample. With consensus
            labels how many say the same, 0 for one that answers nothing.
    """

    key: str
    prompt: Prompt
    labels: Labels
    responses: tuple[str, ...]
    num_right: int
    counts: tuple[int, ...]

    def labels_N(self, values_N: FloatArray) -> FloatArray:
        """1 for right responses, -1 for wrong ones, and 0 for a gold answer that the policy never gave.

        Args:
            values_N: Consensus values; without other labels, the response with the highest one counts as right.
        """
        if not self.num_right:
            return np.where(np.arange(len(values_N)) == values_N.argmax(), 1.0, -1.0)
        signs_N = np.where(np.arange(len(self.responses)) < self.num_right, 1.0, -1.0)
        return signs_N if self.labels == "pairs" else signs_N * (np.array(self.counts) > 0)

    def with_scores(self, scores_KN: FloatArray) -> Answers:
        """Its responses for a consensus, with the scores of K reward models."""
        lengths_N = np.array([len(text) for text in self.responses], dtype=np.float64)
        return Answers(self.prompt.category, scores_KN, np.array(self.counts, dtype=np.float64), lengths_N)

    def as_state(self) -> list[Any]:
        """JSON-able form, without the prompt."""
        return [self.prompt.id, self.labels, list(self.responses), self.num_right, list(self.counts)]


def answered_item(
    prompt: Prompt, samples: Sequence[str], is_right: IsRight | None, said: Said, gold_format: str
) -> Item:
    """The item of a prompt that the policy answered.

    Args:
        prompt: The prompt.
        samples: The policy's answers; empty ones are left out.
        is_right: Tells right from wrong; None leaves that to a consensus.
        said: What a response answers, for a consensus.
        gold_format: Makes a right response of the gold answer where the policy gave none.
    """
    counts = Counter(text for text in samples if text.strip())
    if is_right is None:
        same = answer_counts(counts, {text: said(prompt, text) for text in counts})
        texts = tuple(sorted(same))
        return Item(_key(prompt.id), prompt, "consensus", texts, 0, tuple(same[text] for text in texts))
    right = [text for text in sorted(counts) if is_right(prompt, text)]
    wrong = [text for text in sorted(counts) if text not in right]
    texts = (*(right or [gold_format.format(answer=prompt.answer)]), *wrong)
    num_right = len(texts) - len(wrong)
    return Item(_key(prompt.id), prompt, "gold", texts, num_right, tuple(counts[text] for text in texts))


def _key(prompt_id: str) -> str:
    return f"prompt {prompt_id}"


def from_state(state: Sequence[Any], prompts: Mapping[str, Prompt]) -> Item:
    """The item of which `Item.as_state` gave `state`; `prompts` by id."""
    prompt_id, labels, texts, num_right, counts = state
    return Item(_key(prompt_id), prompts[prompt_id], labels, tuple(texts), num_right, tuple(counts))


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

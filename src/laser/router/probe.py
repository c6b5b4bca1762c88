"""The probe of a router: all reward models score the first groups of each category, and the selector learns of all.

The responses are those of the trainer, so a probe costs scores and no sampling, and where they come whole, the reward
models that they train with are chosen afterwards. Labels come from gold answers, or from a consensus of the reward
models and of how often the policy gave each answer (`laser.training.consensus`). Labeled pairs from a file are scored
before the first choice. Later groups without gold answers earn what their reward model was found to be worth in their
category.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from laser.config.selection import ProbeSignal
from laser.core.files import to_json
from laser.core.types import FloatArray, StateDict
from laser.data.preferences import Candidates
from laser.data.store import digest
from laser.evaluation.answers import Said
from laser.router.rows import Responses
from laser.training.consensus import Answers, answer_counts, consensus_orders, labeled_gaps, share_agreeing
from laser.wiring.probe import no_pairs

_NONE: FloatArray = np.empty(0)  # consensus values where none is needed


@dataclass(slots=True)
class Item:
    """A group that all reward models have scored.

    Attributes:
        category: Of its prompt.
        embedding_D: The prompt's features.
        scores_KN: Scores of its distinct responses by reward model, the right ones first.
        num_right: Number of right ones; None for consensus labels.
        counts_N: How many of the responses were each text, or with a consensus, say the same; 0 for one that answers
            nothing.
        lengths_N: Lengths of the texts, in characters.
        taught: Whether the selector has learned of it.
    """

    category: str
    embedding_D: FloatArray
    scores_KN: FloatArray
    num_right: int | None
    counts_N: FloatArray
    lengths_N: FloatArray
    taught: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """Distinct responses of a group that all reward models have to score, the right ones first; see `Item`."""

    texts: tuple[str, ...]
    num_right: int | None
    counts: tuple[int, ...]


class RolloutProbe:
    """Collects groups that all reward models have scored, and says how good the reward models are; see the module.

    Args:
        section: How it is done.
        said: What a response answers, None for nothing; for a consensus.
        pairs: Labeled responses.
    """

    def __init__(self, section: ProbeSignal, said: Said, pairs: Sequence[Candidates] = ()) -> None:
        self._section, self._said, self._pairs = section, said, pairs
        self._items: list[Item] = []  # those of the labeled pairs come first, once they are tested
        self._categories = {pair.prompt.category for pair in pairs}
        self._identity = digest([[pair.prompt.messages, pair.correct, pair.incorrect] for pair in pairs]).hex()

    @property
    def untested(self) -> Sequence[Candidates]:
        """Labeled pairs that the reward models have not scored yet."""
        return () if self._items else self._pairs

    def check(self, category: str) -> None:
        """Make sure that something can be learned in a category; raises DataError."""
        if self._section.labels == "pairs" and category not in self._categories:
            raise no_pairs(self._section.pairs, category)

    def questions(self, groups: Sequence[Responses]) -> list[Question | None]:
        """What all reward models have to score of groups; None if the category has enough or a group tells nothing."""
        known = Counter(item.category for item in self._items[len(self._pairs) :])
        questions: list[Question | None] = []
        for group in groups:
            is_full = known[group.prompt.category] >= self._section.prompts_per_category
            questions.append(None if is_full else self._question(group))
            known[group.prompt.category] += questions[-1] is not None
        return questions

    def _question(self, group: Responses) -> Question | None:
        category, texts, right = group.prompt.category, group.texts, group.right
        has_gold = any(value is not None for value in right)
        if self._section.labels == "pairs" or (category in self._categories and not has_gold):
            return None
        counts = Counter(text for text in texts if text.strip())
        if self._section.labels == "consensus" or (self._section.labels == "auto" and not has_gold):
            same = answer_counts(counts, {text: self._said(group.prompt, text) for text in counts})
            distinct = tuple(sorted(same))
            return Question(distinct, None, tuple(same[text] for text in distinct)) if len(distinct) > 1 else None
        is_right = {text: value for text, value in zip(texts, right, strict=True) if text in counts}
        distinct = tuple(sorted(counts, key=lambda text: (not is_right[text], text)))
        num_right = sum(is_right[text] is True for text in distinct)
        if not 0 < num_right < len(distinct):
            return None
        return Question(distinct, num_right, tuple(counts[text] for text in distinct))

    def add(self, category: str, embedding_D: FloatArray, question: Question, scores_KN: FloatArray) -> None:
        """Keep the scores of a question, NaN where a reward model has none."""
        counts_N = np.array(question.counts, dtype=np.float64)
        lengths_N = np.array([len(text) for text in question.texts], dtype=np.float64)
        self._items.append(Item(category, embedding_D, scores_KN, question.num_right, counts_N, lengths_N))

    def take_lessons(self) -> list[tuple[FloatArray, FloatArray]]:
        """Features (D,) and accuracies of the reward models (K,), NaN if unknown, of each item that is not taught."""
        fresh = [item for item in self._items if not item.taught]
        for item in fresh:
            item.taught = True
        if not self._section.warm_start:
            return []
        accuracies = self._accuracies({item.category for item in fresh})
        return [(item.embedding_D, accuracies[id(item)]) for item in fresh]

    def accuracy(self, arm: int, category: str) -> float:
        """Mean accuracy of a reward model in a category; NaN if it is unknown."""
        values = np.array([accuracies_K[arm] for accuracies_K in self._accuracies({category}).values()])
        return float(values[~np.isnan(values)].mean()) if (~np.isnan(values)).any() else float("nan")

    def _accuracies(self, categories: Collection[str]) -> dict[int, FloatArray]:
        """Accuracy of each reward model on the pairs of each item, (K,), by the item's identity; NaN where unknown."""
        orders = self._orders()
        found: dict[int, FloatArray] = {}
        for category in categories:
            items = [item for item in self._items if item.category == category]
            right, values = [item.num_right for item in items], [orders.get(id(item), _NONE) for item in items]
            by_arm = [
                [share_agreeing(gaps) for gaps in labeled_gaps(scores, right, values)]
                for scores in zip(*(item.scores_KN for item in items), strict=True)
            ]
            found |= {id(item): np.array(row) for item, row in zip(items, zip(*by_arm, strict=True), strict=True)}
        return found

    def _orders(self) -> dict[int, FloatArray]:
        """Consensus values of the responses of each item that needs them, by the item's identity."""
        if all(item.num_right is not None for item in self._items):
            return {}
        answers = [Answers(item.category, item.scores_KN, item.counts_N, item.lengths_N) for item in self._items]
        return {id(item): order_N for item, order_N in zip(self._items, consensus_orders(answers), strict=True)}

    def state_dict(self) -> StateDict:
        """The items."""
        records = [
            [
                item.category,
                to_json(item.scores_KN),
                item.num_right,
                to_json(item.counts_N),
                to_json(item.lengths_N),
                item.taught,
            ]
            for item in self._items
        ]
        embeddings = [item.embedding_D for item in self._items]
        return {
            "pairs": self._identity,
            "items": records,
            "embeddings": np.stack(embeddings) if embeddings else np.zeros((0, 0)),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore `state_dict`; raises ValueError if it is of other labeled pairs."""
        if state["pairs"] != self._identity:
            raise ValueError("signal.pairs holds other pairs than when the state was saved; restore the file")
        self._items = [
            _item(record, embedding_D) for record, embedding_D in zip(state["items"], state["embeddings"], strict=True)
        ]


def _item(record: list[Any], embedding_D: FloatArray) -> Item:
    category, scores, num_right, counts, lengths, taught = record
    scores_KN, counts_N = np.array(scores, dtype=np.float64), np.array(counts, dtype=np.float64)
    embedding_D, lengths_N = np.array(embedding_D, dtype=np.float64), np.array(lengths, dtype=np.float64)
    return Item(category, embedding_D, scores_KN, num_right, counts_N, lengths_N, taught)

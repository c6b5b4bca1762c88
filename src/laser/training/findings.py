"""What a probe found: how good each reward model is in each category."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """A reward model on the labelled pairs of a category.

    Attributes:
        category: The category of the probe prompts.
        reward_model: Its name.
        num_agreeing: Pairs that it orders as the labels do, a tie counting half.
        num_pairs: Pairs that it scored.
    """

    category: str
    reward_model: str
    num_agreeing: float
    num_pairs: int

    def as_record(self) -> dict[str, Any]:
        """Accuracy in [0, 1] with its 95% Wilson interval, which takes pairs as independent; null without pairs."""
        if self.num_pairs == 0:
            return {"accuracy": None, "low": None, "high": None, "pairs": 0}
        from laser.core.statistics import wilson_interval  # brings scipy, which the help does without

        low, high = wilson_interval(self.num_agreeing, self.num_pairs)
        return {"accuracy": self.num_agreeing / self.num_pairs, "low": low, "high": high, "pairs": self.num_pairs}

    def __str__(self) -> str:
        found = self.as_record()
        if self.num_pairs == 0:
            return f"{self.reward_model} no pairs"
        return "{} {accuracy:.2f} [{low:.2f}, {high:.2f}] of {pairs} pairs".format(self.reward_model, **found)


@dataclass(frozen=True, slots=True)
class Findings:
    """All findings of a probe.

    Attributes:
        labels: Where the labels of the pairs come from.
        found: By category, then reward model.
    """

    labels: Literal["gold", "consensus"]
    found: tuple[Finding, ...]

    def as_record(self) -> dict[str, Any]:
        """The `probe` of summary.json: the labels, and accuracies by category and reward model."""
        by_category: dict[str, dict[str, Any]] = {}
        for one in self.found:
            by_category.setdefault(one.category, {})[one.reward_model] = one.as_record()
        return {"labels": self.labels, "accuracy": by_category}

    def lines(self) -> Iterator[str]:
        """One line a category."""
        means = "accuracy by gold answers" if self.labels == "gold" else "agreement with the consensus"
        for category in dict.fromkeys(one.category for one in self.found):
            row = "; ".join(str(one) for one in self.found if one.category == category)
            yield f"probe [{category}] {means}: {row}"

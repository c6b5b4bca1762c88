"""What a probe found: how good each reward model is in each category."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Labels = Literal["gold", "pairs", "consensus"]

_MEANS: dict[Labels, str] = {
    "gold": "accuracy by gold answers",
    "pairs": "accuracy on labeled pairs",
    "consensus": "agreement with the consensus",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A reward model on the labeled pairs of a category.

    Attributes:
        category: The category of the probe prompts.
        reward_model: Its name.
        num_agreeing: Pairs that it orders as the labels do, a tie counting half.
        num_pairs: Pairs that it scored.
        labels: Where the labels of the pairs come from.
    """

    category: str
    reward_model: str
    num_agreeing: float
    num_pairs: int
    labels: tuple[Labels, ...]

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
        found: By category, then reward model.
    """

    found: tuple[Finding, ...]

    def as_record(self) -> dict[str, Any]:
        """The `probe` of summary.json: where the labels come from, and accuracies by category and reward model."""
        sources = {one.category: " and ".join(one.labels) for one in self.found}
        accuracy: dict[str, dict[str, Any]] = {category: {} for category in sources}
        for one in self.found:
            accuracy[one.category][one.reward_model] = one.as_record()
        labels = dict.fromkeys(source for one in self.found for source in one.labels)
        return {"labels": " and ".join(labels), "sources": sources, "accuracy": accuracy}

    def lines(self) -> Iterator[str]:
        """One line a category."""
        for category in dict.fromkeys(one.category for one in self.found):
            of_category = [one for one in self.found if one.category == category]
            means = " and ".join(_MEANS[source] for source in of_category[0].labels)
            yield f"probe [{category}] {means}: {'; '.join(map(str, of_category))}"

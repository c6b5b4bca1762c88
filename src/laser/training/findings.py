"""What a probe found: how good each reward model is in each category."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from laser.training.over_optimization import Sign

Labels = Literal["gold", "pairs", "consensus"]

_FEWEST = 3  # reward models with opinions of a consensus that has a majority

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
        num_tied: Pairs whose responses it scored alike.
    """

    category: str
    reward_model: str
    num_agreeing: float
    num_pairs: int
    labels: tuple[Labels, ...]
    num_tied: int = 0

    @property
    def means(self) -> str:
        """What its accuracy is measured by."""
        return " and ".join(_MEANS[source] for source in self.labels)

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
        num_prompts: Prompts that the policy answered.
        num_unusable: Those of them whose responses make no pair, because all are equal or all are right.
        unscored: Reward models that have not scored the responses of any category.
        signs: Signs of over-optimization since.
    """

    found: tuple[Finding, ...]
    num_prompts: int = 0
    num_unusable: int = 0
    unscored: tuple[str, ...] = ()
    signs: tuple[Sign, ...] = ()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Findings:
        """The findings of which `dataclasses.asdict` gave `state`: what was found, and the counts of prompts."""
        found = tuple(Finding(**{**one, "labels": tuple(one["labels"])}) for one in state["found"])
        return cls(found, state["num_prompts"], state["num_unusable"])

    def as_record(self) -> dict[str, Any]:
        """The `probe` of summary.json: where the labels come from, and accuracies by category and reward model."""
        sources = {one.category: " and ".join(one.labels) for one in self.found}
        accuracy: dict[str, dict[str, Any]] = {category: {} for category in sources}
        for one in self.found:
            accuracy[one.category][one.reward_model] = one.as_record()
        labels = dict.fromkeys(source for one in self.found for source in one.labels)
        signs = [sign.as_record() for sign in self.signs]
        return {"labels": " and ".join(labels), "sources": sources, "accuracy": accuracy, "over_optimised": signs}

    def by_category(self) -> dict[str, list[Finding]]:
        """The findings of each category."""
        found: dict[str, list[Finding]] = {}
        for one in self.found:
            found.setdefault(one.category, []).append(one)
        return found

    def lines(self) -> Iterator[str]:
        """One line a category, then the problems."""
        for category, found in self.by_category().items():
            yield f"probe [{category}] {found[0].means}: {'; '.join(map(str, found))}"
        yield from self.problems()
        for name in self.unscored:
            yield f"probe: {name} has not scored the responses; fix or remove it"
        yield from map(str, self.signs)

    def problems(self) -> Iterator[str]:
        """A sentence with the cure on each thing that kept the probe from measuring."""
        if self.num_prompts and self.num_prompts == self.num_unusable:
            yield (
                f"probe: the responses to each of the {self.num_prompts} prompts are all equal or all right, or answer "
                "nothing, so there is nothing to compare; raise generation.temperature or signal.num_responses, or say "
                "with evaluation.answer where an answer is"
            )
        names = dict.fromkeys(one.reward_model for one in self.found)
        pairs = {name: sum(one.num_pairs for one in self.found if one.reward_model == name) for name in names}
        tied = {name: sum(one.num_tied for one in self.found if one.reward_model == name) for name in names}
        constant = [name for name in names if pairs[name] == tied[name]]
        if names and len(constant) == len(names):
            yield (
                "probe: no reward model distinguishes the responses of any pair, so there is nothing to learn from; "
                "fix the reward models, or add one whose scores differ between responses"
            )
            return
        for name in constant:
            what = "scored the responses of every pair alike" if pairs[name] else "scored both responses of no pair"
            yield f"probe: {name} {what}; fix or remove it"
        num_voters = len(names) - len(constant)
        if num_voters < _FEWEST and any("consensus" in one.labels for one in self.found):
            yield (
                f"probe: a consensus of {num_voters} reward model{'s' if num_voters > 1 else ''} is weak evidence; add "
                "reward models, gold answers, or labeled pairs (signal.pairs)"
            )

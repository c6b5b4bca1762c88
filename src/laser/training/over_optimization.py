"""Signs that a policy is over-optimised: its reward models no longer measure what they did.

The same probe prompts are answered at the start and later, so every comparison is paired by prompt. Three signs count:

* A chosen reward model's pair accuracy fell, and it no longer orders the policy's answers better than chance does.
* Answers grew by more than a tenth.
* Answers repeat themselves, or each other across prompts.

Growth and repetition do not count if answers are right more often than before: the policy may have learned to explain
itself. Answers to one prompt that become alike do not count either, because every trained policy does that.

Each comparison is a t-interval over prompts, with confidence 1 - 0.05 / (number of comparisons) (Bonferroni), so a run
without any change is warned about with probability 0.05 at most, each time that it is looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from scipy import stats

from laser.core.types import FloatArray
from laser.rewards.spreads import deviations

ByPrompt = Mapping[str, float]

_ERROR_RATE = 0.05  # of all comparisons of one look together
_FEWEST = 6  # prompts that a comparison needs
_GROWTH = 0.1  # of the length
_REPETITION = 0.1  # rise of a share
_LEANING = 0.5  # correlation of scores and lengths, from which a reward model prefers longer answers
_CHANCE = 0.5
_LOOP = 16  # characters; a stretch of text that came before in the same response repeats


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of the answers to a category's probe prompts at one time, by prompt.

    Attributes:
        length: Mean number of characters.
        repeated: Mean share of a response that repeats its own beginning, in [0, 1].
        shared: Share of the samples that another prompt has too, in [0, 1].
        right: Share of the samples that are right; empty without gold answers.
        accuracy: By reward model, its accuracy on a prompt's labeled pairs.
        leaning: By reward model, the correlation of its scores with lengths within prompts, in [-1, 1].
    """

    length: ByPrompt
    repeated: ByPrompt
    shared: ByPrompt
    right: ByPrompt
    accuracy: Mapping[str, ByPrompt] = field(default_factory=dict)
    leaning: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Look:
        """The look of which `dataclasses.asdict` gave `state`, where JSON has null for NaN."""
        return cls(**{name: _with_nan(value) for name, value in state.items()})


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    return float("nan") if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of over-optimization.

    Attributes:
        what: What changed.
        category: Category of the prompts.
        reward_models: The reward models that it is attributed to.
        before: Mean at the start.
        after: Mean now.
        low: Lower end of the interval of the mean change.
        high: Upper end; both are of the logarithm for lengths.
    """

    what: Literal["accuracy", "length", "repetition"]
    category: str
    reward_models: tuple[str, ...]
    before: float
    after: float
    low: float
    high: float

    def as_record(self) -> dict[str, Any]:
        """JSON-able form, with the sentence."""
        return {**asdict(self), "reward_models": list(self.reward_models), "message": str(self)}

    def __str__(self) -> str:
        names = ", ".join(self.reward_models)
        values = f"from {self.before:.2f} to {self.after:.2f}"
        if self.what == "accuracy":
            return (
                f"over-optimised: the accuracy of {names} on the policy's answers to {self.category} fell {values}, no "
                "better than chance; choose an earlier checkpoint, or replace that reward model"
            )
        growth = f"answers to {self.category} grew {values} characters" if self.what == "length" else ""
        growth = growth or f"the share of answers to {self.category} that repeat grew {values}"
        return (
            f"over-optimised: {growth} while {names} was chosen, and no more of them are known to be right; read some "
            "samples, then stop earlier, or bound or replace that reward model"
        )


def make_look(
    samples: Mapping[str, Sequence[str]],
    right: ByPrompt,
    responses: Mapping[str, Sequence[str]],
    scores: Mapping[str, Mapping[str, FloatArray]],
    accuracy: Mapping[str, ByPrompt],
) -> Look:
    """Describe the answers to the probe prompts of a category.

    Args:
        samples: What the policy answered to each prompt.
        right: Share of the samples that are right, of prompts with gold answers.
        responses: The distinct responses to each prompt that were scored.
        scores: By reward model and prompt, scores of these.
        accuracy: By reward model and prompt.
    """
    owners: dict[str, set[str]] = {}
    for key, texts in samples.items():
        for text in texts:
            owners.setdefault(text, set()).add(key)
    lengths = {key: np.array([len(text) for text in texts], dtype=np.float64) for key, texts in responses.items()}
    return Look(
        length={key: _share(map(len, texts)) for key, texts in samples.items()},
        repeated={key: _share(map(repetition, texts)) for key, texts in samples.items()},
        shared={key: _share(len(owners[text]) > 1 for text in texts) for key, texts in samples.items()},
        right=right,
        accuracy=accuracy,
        leaning={name: _leaning([(of[key], lengths[key]) for key in of]) for name, of in scores.items()},
    )


def _share(values: Iterable[float]) -> float:
    return float(np.mean([float(value) for value in values]))


def repetition(text: str) -> float:
    """Share of a text's stretches of 16 characters that occurred before in it, in [0, 1]."""
    stretches = [text[start : start + _LOOP] for start in range(len(text) - _LOOP + 1)]
    return 1 - len(set(stretches)) / len(stretches) if stretches else 0.0


def find_signs(first: Mapping[str, Look], now: Mapping[str, Look], chosen: Mapping[str, Collection[str]]) -> list[Sign]:
    """The signs in all categories.

    Args:
        first: By category, the look at the start.
        now: The same, now.
        chosen: By category, the reward models that were chosen since the start.
    """
    names = {
        category: [name for name in chosen.get(category, ()) if name in first[category].accuracy] for category in now
    }
    confidence = 1 - _ERROR_RATE / max(1, sum(len(of_category) + 3 for of_category in names.values()))
    signs = []
    for category, look in now.items():
        then = first[category]
        for name in names[category]:
            signs += _accuracy_fell(category, name, then, look, confidence)
        if chosen.get(category) and not _more_are_right(then, look, confidence):
            signs += _changes(category, chosen[category], then, look, confidence)
    return signs


def _accuracy_fell(category: str, name: str, then: Look, now: Look, confidence: float) -> list[Sign]:
    before, after = then.accuracy[name], now.accuracy.get(name, {})
    change = _paired(before, after, confidence)
    if change is None or change[1] >= 0:
        return []
    values = np.array([value for value in after.values() if not np.isnan(value)])
    low, _ = _interval(values, 0.95)
    if low > _CHANCE:
        return []
    return [Sign("accuracy", category, (name,), _mean(before, after), _mean(after, before), *change)]


def _changes(category: str, chosen: Collection[str], then: Look, now: Look, confidence: float) -> list[Sign]:
    signs = []
    change = _paired(_log(then.length), _log(now.length), confidence)
    if change is not None and change[0] > np.log1p(_GROWTH):
        leaning = tuple(name for name in chosen if then.leaning.get(name, 0.0) >= _LEANING)
        before, after = _mean(then.length, now.length), _mean(now.length, then.length)
        signs.append(Sign("length", category, leaning or tuple(chosen), before, after, *change))
    for before_of, after_of in ((then.repeated, now.repeated), (then.shared, now.shared)):
        change = _paired(before_of, after_of, confidence)
        if change is not None and change[0] > _REPETITION:
            means = _mean(before_of, after_of), _mean(after_of, before_of)
            signs.append(Sign("repetition", category, tuple(chosen), *means, *change))
    return signs


def _more_are_right(then: Look, now: Look, confidence: float) -> bool:
    change = _paired(then.right, now.right, confidence)
    return change is not None and change[0] > 0


def _paired(before: ByPrompt, after: ByPrompt, confidence: float) -> tuple[float, float] | None:
    """Interval of the mean change; None with too few prompts in both."""
    shared = [key for key in before if key in after and not np.isnan(before[key] + after[key])]
    if len(shared) < _FEWEST:
        return None
    return _interval(np.array([after[key] - before[key] for key in shared]), confidence)


def _interval(values_N: FloatArray, confidence: float) -> tuple[float, float]:
    """t-interval of a mean; a point where all values are equal."""
    mean, error = (
        float(values_N.mean()),
        float(values_N.std(ddof=1) / np.sqrt(len(values_N))) if len(values_N) > 1 else 0.0,
    )
    width = float(stats.t.ppf(0.5 + confidence / 2, max(1, len(values_N) - 1))) * error
    return mean - width, mean + width


def _log(lengths: ByPrompt) -> ByPrompt:
    return {key: float(np.log1p(value)) for key, value in lengths.items()}


def _mean(of: ByPrompt, other: ByPrompt) -> float:
    """Mean over the prompts that both have."""
    return float(np.nanmean([value for key, value in of.items() if key in other]))


def _leaning(of_prompts: Sequence[tuple[FloatArray, FloatArray]]) -> float:
    """Correlation of scores and lengths, as deviations from each prompt's mean; 0 where one of them never differs."""
    known = [(scores[np.isfinite(scores)], lengths[np.isfinite(scores)]) for scores, lengths in of_prompts]
    centered = [(deviations(scores), deviations(lengths)) for scores, lengths in known if len(scores) > 1]
    if not centered:
        return 0.0
    scores_M, lengths_M = (np.concatenate(column) for column in zip(*centered, strict=True))
    if not scores_M.any() or not lengths_M.any():
        return 0.0
    scores_M = scores_M / np.abs(scores_M).max()  # squares stay finite
    return float(scores_M @ lengths_M / np.sqrt((scores_M @ scores_M) * (lengths_M @ lengths_M)))

"""One policy against another by a judge's verdicts, each prompt judged in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from laser.core.statistics import Share, mean_share
from laser.core.types import BoolArray, FloatArray
from laser.evaluation.winrates import LengthControl, control_length


@dataclass(frozen=True, slots=True)
class Compared:
    """Ours against a baseline on the prompts that both answered.

    Attributes:
        num_prompts: Prompts with both responses.
        num_judged: Prompts with a verdict in both orders, or with identical responses; all numbers below are of these.
        num_identical: Prompts with identical responses: ties without a request.
        wins: Prompts on which ours is preferred, the mean of both orders above one half.
        ties: Prompts at exactly one half.
        losses: The rest.
        win_rate: Mean preference for ours, a tie counting half.
        by_category: The same over the prompts of each category.
        length_controlled: The win rate at equal length; None where the effect of length cannot be seen.
        mean_length: Characters of our responses.
        baseline_length: Characters of the baseline's.
        first_shown: Mean preference for the response shown first; 0.5 means no position bias. None if the judge gave no
            verdict.
        num_inconsistent: Prompts on which it preferred one response in one order and the other in the other.
        num_one_sided: Prompts left out because only one order has a verdict.
    """

    num_prompts: int
    num_judged: int
    num_identical: int
    wins: int
    ties: int
    losses: int
    win_rate: Share
    by_category: dict[str, Share]
    length_controlled: LengthControl | None
    mean_length: float
    baseline_length: float
    first_shown: float | None
    num_inconsistent: int
    num_one_sided: int

    def as_record(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def compare(
    shown_N2: FloatArray,
    texts: Sequence[str],
    baseline_texts: Sequence[str],
    categories: Sequence[str],
    *,
    difficulty_N: FloatArray | None = None,
    seed: int,
) -> Compared | None:
    """Win rates and counts from verdicts.

    Args:
        shown_N2: Preference for the response shown first, in [0, 1]: with ours first, then with the baseline's first.
            NaN where there is no verdict; entries of identical texts are not read.
        texts: Our responses.
        baseline_texts: The baseline's.
        categories: Of the prompts.
        difficulty_N: gamma_x of each prompt, if known; see `laser.evaluation.winrates`.
        seed: Seeds the bootstrap.

    Returns:
        None if no prompt is judged.
    """
    identical_N = np.array([ours == theirs for ours, theirs in zip(texts, baseline_texts, strict=True)], dtype=np.bool_)
    given_N2 = ~np.isnan(shown_N2)
    asked_N: BoolArray = given_N2.all(axis=1) & ~identical_N
    judged_N = asked_N | identical_N
    if not judged_N.any():
        return None
    ours_N2 = np.stack([shown_N2[:, 0], 1.0 - shown_N2[:, 1]], axis=1)
    preferences_N = np.where(identical_N, 0.5, ours_N2.mean(axis=1))[judged_N]
    lengths_N2 = np.array([(len(a), len(b)) for a, b in zip(texts, baseline_texts, strict=True)], dtype=np.float64)
    lengths_N2 = lengths_N2[judged_N]
    of_category = np.array(categories)[judged_N]
    sides_N2 = np.sign(ours_N2[asked_N] - 0.5)
    return Compared(
        num_prompts=len(texts),
        num_judged=int(judged_N.sum()),
        num_identical=int(identical_N.sum()),
        wins=int((preferences_N > 0.5).sum()),
        ties=int((preferences_N == 0.5).sum()),
        losses=int((preferences_N < 0.5).sum()),
        win_rate=mean_share(preferences_N, seed=seed),
        by_category={
            str(name): mean_share(preferences_N[of_category == name], seed=seed) for name in np.unique(of_category)
        },
        length_controlled=control_length(
            preferences_N,
            lengths_N2[:, 0] - lengths_N2[:, 1],
            difficulty_N=difficulty_N[judged_N] if difficulty_N is not None else None,
            seed=seed,
        ),
        mean_length=float(lengths_N2[:, 0].mean()),
        baseline_length=float(lengths_N2[:, 1].mean()),
        first_shown=float(shown_N2[asked_N].mean()) if asked_N.any() else None,
        num_inconsistent=int((sides_N2.prod(axis=1) < 0).sum()),
        num_one_sided=int((given_N2.any(axis=1) & ~given_N2.all(axis=1) & ~identical_N).sum()),
    )

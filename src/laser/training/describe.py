"""What a batch's record says about scores: their distributions, and how far reward models agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from laser.core.types import FloatArray, Pair, Responses, Selection
from laser.rewards.overlap import Overlap

TEXT_LENGTH = 600  # characters kept of a text in a record
_QUANTILES = np.linspace(0, 1, 11)


def describe_scores(
    selection: Selection,
    scores_BKN: Sequence[FloatArray],
    pairs: Sequence[Pair],
    responses: Responses,
    names: Sequence[str],
) -> dict[str, Any]:
    """Distributions of a batch, each as its count and its minimum, nine deciles and maximum.

    Source: arXiv 2410.01735, Fig. 5, for the log-prob margins; there on RewardBench, here on the pairs trained on.

    Args:
        selection: Who was chosen.
        scores_BKN: Raw scores of each prompt's responses, NaN where nobody was asked.
        pairs: The pairs trained on.
        responses: Responses of each prompt.
        names: Names by arm.

    Returns:
        ``scores`` of each reward model that gave any; ``margins``, chosen minus rejected score, of the pairs of each
        reward model that was chosen alone (several together have the name null); ``logp_margins``, chosen minus
        rejected log-prob of the policy that sampled them, in nats, or null.
    """
    by_arm = [np.concatenate([scores_KN[arm] for scores_KN in scores_BKN]) for arm in range(len(names))]
    margins: dict[str | None, list[float]] = {}
    for pair in pairs:
        row = pair.prompt if len(selection.weights_MK) > 1 else 0
        arm = int(selection.arms_M[row])
        name = names[arm] if selection.weights_MK[row, arm] == 1.0 else None
        margins.setdefault(name, []).append(pair.chosen_score - pair.rejected_score)
    return {
        "scores": _named((name, values[np.isfinite(values)]) for name, values in zip(names, by_arm, strict=True)),
        "margins": _named((name, np.array(values)) for name, values in margins.items()),
        "logp_margins": _deciles(np.array([_logp_margin(pair, responses) for pair in pairs])),
    }


def describe_overlap(overlap: Overlap) -> dict[str, Any]:
    """``agreement`` of every two reward models that scored the same responses; the widest ``disagreement``, or null."""
    widest = overlap.widest()
    return {
        "agreement": [asdict(one) for one in overlap.agreement()],
        "disagreement": None
        if widest is None
        else {
            "prompt": widest.prompt.text[-TEXT_LENGTH:],
            "responses": [text[:TEXT_LENGTH] for text in widest.responses],
            "scores": widest.scores,
            "strength": _short(widest.strength),
        },
    }


def _named(columns: Iterable[tuple[str | None, FloatArray]]) -> list[dict[str, Any]]:
    found = ((name, _deciles(values)) for name, values in columns)
    return [{"reward_model": name, **deciles} for name, deciles in found if deciles is not None]


def _deciles(values: FloatArray) -> dict[str, Any] | None:
    if len(values) == 0:
        return None
    return {"count": len(values), "deciles": [_short(value) for value in np.quantile(values, _QUANTILES)]}


def _short(value: float) -> float:
    """Five digits are enough for a picture."""
    return float(f"{value:.5g}")


def _logp_margin(pair: Pair, responses: Responses) -> float:
    chosen, rejected = responses[pair.prompt][pair.chosen], responses[pair.prompt][pair.rejected]
    return sum(chosen.sampling_logps) - sum(rejected.sampling_logps)

"""The record of a batch, a line of steps.jsonl: what was chosen, sampled, scored and learned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from laser.core.types import Batch, FloatArray, Pair, Prompt, Responses, Selection
from laser.rewards.overlap import Overlap
from laser.training.learner import LearnResult
from laser.training.pairs import Candidates, OrientedPairs
from laser.training.used_responses import mean_over_pairs

TEXT_LENGTH = 600  # characters of a text that a record keeps
_QUANTILES = np.linspace(0, 1, 11)


def describe_batch(batch: Batch) -> dict[str, Any]:
    """Place, category and prompts of a batch."""
    return {
        "iteration": batch.iteration,
        "step": batch.step,
        "category": category_of(batch.prompts),
        "prompts": [prompt.id for prompt in batch.prompts],
    }


def category_of(prompts: Sequence[Prompt]) -> str:
    """The one category of all prompts, or "mixed"."""
    categories = {prompt.category for prompt in prompts}
    return categories.pop() if len(categories) == 1 else "mixed"


def describe_selection(
    batch: Batch, selection: Selection, contexts_MD: FloatArray, names: Sequence[str], *, log_contexts: bool
) -> dict[str, Any]:
    """What the selector chose, one entry per row.

    Args:
        batch: The batch. A row that chose for all of it counts its prompts by category, for utilization by category.
        selection: What was chosen.
        contexts_MD: The contexts it was chosen for.
        names: Names by arm.
        log_contexts: Include the contexts.
    """
    categories = [prompt.category for prompt in batch.prompts]
    per_row = [[category] for category in categories] if len(selection.weights_MK) > 1 else [categories]
    record = {
        "arms": selection.arms_M,
        "reward_models": [names[arm] for arm in selection.arms_M],
        "weights": selection.weights_MK,
        "values": selection.values_MK,
        "probabilities": selection.probabilities_MK,
        "context_norms": np.linalg.norm(contexts_MD, axis=1),
        "charged": [names[arm] for _, arm in selection.charged_E],
        "categories": [{name: row.count(name) for name in sorted(set(row))} for row in per_row],
    }
    return record | ({"contexts": contexts_MD} if log_contexts else {})


def describe_pairs(
    batch: Batch,
    selection: Selection,
    responses: Responses,
    candidates: Candidates,
    scores_BKN: Sequence[FloatArray],
    oriented: OrientedPairs,
    names: Sequence[str],
) -> dict[str, Any]:
    """Pairs made and dropped, their distributions, and the first one in words."""
    margins = [pair.chosen_score - pair.rejected_score for pair in oriented.pairs]
    return {
        "pairs": len(oriented.pairs),
        "dropped": {
            "ties": oriented.num_ties,
            "unscored": oriented.num_unscored,
            "doubtful": oriented.num_doubtful,
            "empty_responses": candidates.num_empty,
            "duplicate_responses": candidates.num_duplicates,
            "missing_pairs": candidates.num_short,
        },
        "score_margin": float(np.mean(margins)) if margins else None,
        "unfinished_responses": sum(not response.finished for row in responses for response in row),
        "distributions": describe_scores(selection, scores_BKN, oriented.pairs, responses, names),
        "example": _example(batch, selection, responses, oriented.pairs, names),
    }


def describe_learning(learned: LearnResult, pairs: Sequence[Pair], responses: Responses) -> dict[str, Any]:
    """Loss, gradient and tokens of a batch."""
    return {
        "loss": mean_over_pairs(learned.losses_B, pairs),
        "loss_parts": learned.parts,
        "bandit_losses": learned.bandit_losses_E,
        "grad_norm": learned.grad_norm,
        "optimizer_steps": learned.num_optimizer_steps,
        "tokens": {
            "sampled": sum(len(response.token_ids) for row in responses for response in row),
            "trained": learned.num_tokens,
        },
    }


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
        selection: What was chosen.
        scores_BKN: Raw scores of each prompt's responses, NaN where nothing was scored.
        pairs: The pairs trained on.
        responses: Responses of each prompt.
        names: Names by arm.

    Returns:
        ``scores`` of each reward model that gave any; ``score_moments``, their mean and sample standard deviation
        (null for one score), in the reward model's unit; ``margins``, chosen minus rejected score, of the pairs
        of each reward model that was chosen alone (several together have the name null); ``logp_margins``,
        chosen minus rejected log-prob of the policy that sampled them, in nats, or null.
    """
    by_arm = [np.concatenate([scores_KN[arm] for scores_KN in scores_BKN]) for arm in range(len(names))]
    margins: dict[str | None, list[float]] = {}
    for pair in pairs:
        row = selection.row_of(pair.prompt)
        arm = int(selection.arms_M[row])
        name = names[arm] if selection.weights_MK[row, arm] == 1.0 else None
        margins.setdefault(name, []).append(pair.chosen_score - pair.rejected_score)
    finite = {name: values[np.isfinite(values)] for name, values in zip(names, by_arm, strict=True)}
    return {
        "scores": _named(finite.items()),
        "score_moments": {
            name: {"mean": float(values.mean()), "std": float(values.std(ddof=1)) if len(values) > 1 else None}
            for name, values in finite.items()
            if len(values)
        },
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


def _example(
    batch: Batch, selection: Selection, responses: Responses, pairs: Sequence[Pair], names: Sequence[str]
) -> dict[str, Any] | None:
    """The first pair of the batch in words; None without pairs."""
    if not pairs:
        return None
    pair = pairs[0]
    row = responses[pair.prompt]
    return {
        "prompt": batch.prompts[pair.prompt].text[-TEXT_LENGTH:],
        "chosen": row[pair.chosen].text[:TEXT_LENGTH],
        "rejected": row[pair.rejected].text[:TEXT_LENGTH],
        "scores": [pair.chosen_score, pair.rejected_score],
        "reward_model": names[selection.arms_M[selection.row_of(pair.prompt)]],
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

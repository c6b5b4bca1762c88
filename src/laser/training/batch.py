"""One batch of Algorithm 1: contexts, selection, responses, scores, pairs, update, bandit reward, record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from laser.bandits.base import Feedback, Selector
from laser.bandits.context import ContextPreparer
from laser.core.errors import TrainingError, diverged
from laser.core.seeding import stream, stream_seed
from laser.core.types import FloatArray, Prompt, Response, Responses, Selection
from laser.parallel.ranks import Alone, Ranks
from laser.policy.generation import Generator
from laser.policy.policy import Policy
from laser.rewards.combine import Combination, combine_scores
from laser.rewards.pool import QuarantinedError, RewardPool, score_selection
from laser.training.charges import BanditLoss, learn_and_charge, make_charges, mean_over_pairs
from laser.training.describe import TEXT_LENGTH, describe_overlap, describe_scores
from laser.training.learner import Learner
from laser.training.pairs import Candidates, OrientedPairs, draw_pairs, orient_by_agreement, orient_pairs
from laser.training.progress import PhaseClock
from laser.training.signals import Signal, SignalInput, mixed

Reply = list[list[Response]]

_MEND = "mend them and resume, with --changed-rewards if that changes a reward function's file"


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects Algorithm 1 works with; each role is an argument, none knows another."""

    policy: Policy
    generator: Generator
    pool: RewardPool
    contexts: ContextPreparer
    selector: Selector
    feedback: Feedback
    signal: Signal
    learner: Learner
    ranks: Ranks = field(default_factory=Alone)

    def embed(self, prompts: Sequence[Prompt]) -> FloatArray:
        """`Policy.embed`, each process its share of the prompts.

        Raises:
            TrainingError: A feature is not finite.
        """
        rows = np.stack(self.ranks.together(lambda part: list(self.policy.embed(prompts[part])), len(prompts)))
        if not np.isfinite(rows).all():
            raise diverged("the policy's hidden states are not finite")
        return rows


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How a batch is done; the names are those of the configuration.

    Attributes:
        seed: The run's seed.
        num_responses: n, responses sampled per prompt.
        temperature: Sampling temperature.
        top_p: Nucleus mass.
        max_new_tokens: Longest response in tokens.
        pairs_per_prompt: P.
        granularity: One selection for the batch with its mean context, or one per prompt.
        bandit_loss: Which loss the bandit is fed.
        combination: How the scores of several weighted reward models become one.
        candidate_pairs: Pairs drawn per prompt for the combination "agreement" to choose from.
        signal_weight: Share of the grounded signal in the bandit reward.
        log_contexts: Write the contexts into the record.
    """

    seed: int
    num_responses: int
    temperature: float
    top_p: float
    max_new_tokens: int
    pairs_per_prompt: int
    granularity: Literal["per_batch", "per_prompt"] = "per_batch"
    bandit_loss: BanditLoss = "train"
    combination: Combination = "raw"
    candidate_pairs: int = 100
    signal_weight: float = 0.0
    log_contexts: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """Where in the run a batch stands; together with a prompt's row it addresses every random draw."""

    iteration: int
    step: int


def sample(parts: Parts, prompts: Sequence[Prompt], settings: BatchSettings, at: Moment) -> Reply:
    """Sample n responses per prompt; the seed of each prompt depends on its moment and row alone."""
    seeds = [stream_seed(settings.seed, "generation", at.iteration, at.step, row) for row in range(len(prompts))]
    return parts.generator.generate(
        prompts,
        num_responses=settings.num_responses,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        seeds=seeds,
    )


def run_batch(
    parts: Parts,
    prompts: Sequence[Prompt],
    settings: BatchSettings,
    at: Moment,
    clock: PhaseClock,
    respond: Callable[[], Reply],
) -> dict[str, Any]:
    """Do one batch and return its record for steps.jsonl.

    Source: arXiv 2410.01735, Algorithm 1, lines of the inner loop.

    Args:
        parts: The policy, reward models and bandit; all of them change.
        prompts: The B prompts of the batch.
        settings: How to do it.
        at: Where in the run the batch stands.
        clock: Measures the seconds of each phase.
        respond: Gives the n responses of each prompt, freshly sampled or kept from the start of the iteration.
    """
    scored_before, overlap = parts.pool.num_scored(), parts.pool.observe()
    judged = judge_batch(parts, prompts, settings, at, clock, respond)
    selection, responses, candidates, oriented = judged.selection, judged.responses, judged.candidates, judged.oriented
    charges = make_charges(selection, candidates, judged.scores_BKN, oriented.pairs)
    with clock("train"):
        prompt_ids = parts.policy.encode(prompts)
        learned, losses_E = learn_and_charge(
            parts.learner, prompt_ids, responses, oriented.pairs, charges, settings.bandit_loss
        )
    with clock("update"):
        scaled_E = parts.feedback.scale(losses_E, np.array([charge.arm for charge in charges], dtype=np.int64))
        signals_E = parts.signal.measure(SignalInput(at.iteration, at.step, prompts, responses, charges))
        bandit_rewards_E = mixed(scaled_E, signals_E, settings.signal_weight)
        parts.selector.update(selection.id, bandit_rewards_E)
    return {
        "iteration": at.iteration,
        "step": at.step,
        "category": _category(prompts),
        "prompts": [prompt.id for prompt in prompts],
        "selection": {
            **_selection_record(selection, judged.contexts_MD, parts.pool.names, prompts),
            **({"contexts": judged.contexts_MD} if settings.log_contexts else {}),
        },
        "loss": mean_over_pairs(learned.losses_B, oriented.pairs),
        "loss_parts": learned.parts,
        "bandit_losses": losses_E,
        "bandit_signals": signals_E,
        "bandit_rewards": bandit_rewards_E,
        **_pair_record(candidates, oriented, responses),
        "distributions": describe_scores(selection, judged.scores_BKN, oriented.pairs, responses, parts.pool.names),
        **describe_overlap(overlap),
        "example": _example(prompts, responses, oriented, selection, parts.pool.names),
        "scored": {name: count - scored_before[name] for name, count in parts.pool.num_scored().items()},
        "quarantined": parts.pool.quarantine.fresh(parts.pool.names),
        "grad_norm": learned.grad_norm,
        "optimizer_steps": learned.num_optimizer_steps,
        "tokens": {"sampled": _num_sampled(responses), "trained": learned.num_tokens},
        "seconds": clock.seconds,
    }


@dataclass(frozen=True, slots=True)
class Judged:
    """A batch whose pairs are decided.

    Attributes:
        contexts_MD: What the selector saw.
        selection: What it chose.
        responses: Responses of each prompt.
        candidates: The pairs drawn.
        scores_BKN: Raw scores of each prompt's responses, NaN where nobody was asked.
        oriented: The pairs that are left, chosen and rejected told apart.
    """

    contexts_MD: FloatArray
    selection: Selection
    responses: Responses
    candidates: Candidates
    scores_BKN: list[FloatArray]
    oriented: OrientedPairs


def choose(
    parts: Parts, prompts: Sequence[Prompt], settings: BatchSettings, at: Moment, clock: PhaseClock
) -> tuple[FloatArray, Selection]:
    """Prepare the contexts of a batch and select among the reward models; see `run_batch` for the arguments."""
    parts.pool.quarantine.next_batch()
    with clock("probe"):
        parts.signal.prepare(at.iteration, parts.selector, lambda some: parts.contexts(parts.embed(some)))
    with clock("embed"):
        contexts_MD = parts.contexts(_rows_of(parts.embed(prompts), settings.granularity))
    with clock("select"):
        selection = _select(parts, contexts_MD)
        parts.pool.prefetch(np.flatnonzero(selection.weights_MK.any(axis=0)).tolist())
    return contexts_MD, selection


def judge_batch(
    parts: Parts,
    prompts: Sequence[Prompt],
    settings: BatchSettings,
    at: Moment,
    clock: PhaseClock,
    respond: Callable[[], Reply],
) -> Judged:
    """The first half of a batch: contexts, selection, responses, scores, pairs. Arguments as in `run_batch`."""
    contexts_MD, selection = choose(parts, prompts, settings, at, clock)
    with clock("sample"):
        responses = respond()
    candidates = draw_pairs(
        responses,
        settings.candidate_pairs if settings.combination == "agreement" else settings.pairs_per_prompt,
        [stream(settings.seed, "pairs", at.iteration, at.step, row) for row in range(len(prompts))],
    )
    with clock("score"):
        selection, scores_BKN = _score_or_reselect(parts, selection, contexts_MD, prompts, responses, candidates)
        oriented = _orient(candidates, scores_BKN, _per_prompt(selection, len(prompts)), settings)
    return Judged(contexts_MD, selection, responses, candidates, scores_BKN, oriented)


def _rows_of(contexts_BD: FloatArray, granularity: str) -> FloatArray:
    """Sec. 3.2: c(t) is the mean over the batch; per prompt, every prompt is its own row."""
    return contexts_BD if granularity == "per_prompt" else contexts_BD.mean(axis=0, keepdims=True)


def _select(parts: Parts, contexts_MD: FloatArray) -> Selection:
    """Select among the reward models that are not in quarantine."""
    available_K = parts.pool.available_K
    if not available_K.any():
        raise TrainingError(f"no reward model is left to choose ({parts.pool.quarantine.reasons()}); {_MEND}")
    try:
        return parts.ranks.broadcast(parts.selector.select(contexts_MD, None if available_K.all() else available_K))
    except ValueError as error:  # the contexts are finite: a selector that wants the one that is out, and says so
        if available_K.all():
            raise
        raise TrainingError(
            f"the selector cannot choose among the reward models that are left: {error} "
            f"({parts.pool.quarantine.reasons()}); {_MEND}"
        ) from error


def _score_or_reselect(
    parts: Parts,
    selection: Selection,
    contexts_MD: FloatArray,
    prompts: Sequence[Prompt],
    responses: Responses,
    candidates: Candidates,
) -> tuple[Selection, list[FloatArray]]:
    """Score by the selection; where a reward model drops out, select again among the others."""
    while True:
        weights_BK = _per_prompt(selection, len(prompts))
        try:
            return selection, _score(parts.pool, weights_BK, prompts, responses, candidates)
        except QuarantinedError:
            parts.selector.expire(selection.id)
            selection = _select(parts, contexts_MD)


def _per_prompt(selection: Selection, num_prompts: int) -> FloatArray:
    return np.broadcast_to(selection.weights_MK, (num_prompts, selection.weights_MK.shape[1]))


def _score(
    pool: RewardPool,
    weights_BK: FloatArray,
    prompts: Sequence[Prompt],
    responses: Responses,
    candidates: Candidates,
) -> list[FloatArray]:
    """Score the responses that pairs need, and only those, by the models with weight; NaN elsewhere; (K, N) each."""
    needed = candidates.needed()
    texts = [[row[index].text for index in indices] for row, indices in zip(responses, needed, strict=True)]
    scores = []
    for row, indices, given in zip(responses, needed, score_selection(pool, weights_BK, prompts, texts), strict=True):
        full = np.full((weights_BK.shape[1], len(row)), np.nan)
        full[:, indices] = given
        scores.append(full)
    return scores


def _orient(
    candidates: Candidates, scores_BKN: Sequence[FloatArray], weights_BK: FloatArray, settings: BatchSettings
) -> OrientedPairs:
    if settings.combination == "agreement":
        return orient_by_agreement(candidates, scores_BKN, weights_BK, settings.pairs_per_prompt)
    combined = [
        combine_scores(scores_KN, weights_K, settings.combination)
        for scores_KN, weights_K in zip(scores_BKN, weights_BK, strict=True)
    ]
    return orient_pairs(candidates, combined)


def _category(prompts: Sequence[Prompt]) -> str:
    categories = {prompt.category for prompt in prompts}
    return categories.pop() if len(categories) == 1 else "mixed"


def _selection_record(
    selection: Selection, contexts_MD: FloatArray, names: Sequence[str], prompts: Sequence[Prompt]
) -> dict[str, Any]:
    """One entry per row; a batch-wide row counts its prompts by category, for utilisation by category."""
    categories = [prompt.category for prompt in prompts]
    per_row = [[category] for category in categories] if len(selection.weights_MK) > 1 else [categories]
    return {
        "arms": selection.arms_M,
        "reward_models": [names[arm] for arm in selection.arms_M],
        "weights": selection.weights_MK,
        "values": selection.values_MK,
        "probabilities": selection.probabilities_MK,
        "context_norms": np.linalg.norm(contexts_MD, axis=1),
        "charged": [names[arm] for _, arm in selection.charged_E],
        "categories": [{name: row.count(name) for name in sorted(set(row))} for row in per_row],
    }


def _pair_record(candidates: Candidates, oriented: OrientedPairs, responses: Responses) -> dict[str, Any]:
    margins = [pair.chosen_score - pair.rejected_score for pair in oriented.pairs]
    return {
        "pairs": len(oriented.pairs),
        "dropped": {
            "ties": oriented.num_ties,
            "unscored": oriented.num_unscored,
            "empty_responses": candidates.num_empty,
            "duplicate_responses": candidates.num_duplicates,
            "missing_pairs": candidates.num_short,
        },
        "score_margin": float(np.mean(margins)) if margins else None,
        "unfinished_responses": sum(not response.finished for row in responses for response in row),
    }


def _example(
    prompts: Sequence[Prompt], responses: Responses, oriented: OrientedPairs, selection: Selection, names: Sequence[str]
) -> dict[str, Any] | None:
    """The first pair of the batch in words, for a reader of the run."""
    if not oriented.pairs:
        return None
    pair = oriented.pairs[0]
    row = responses[pair.prompt]
    arms = selection.arms_M
    return {
        "prompt": prompts[pair.prompt].text[-TEXT_LENGTH:],
        "chosen": row[pair.chosen].text[:TEXT_LENGTH],
        "rejected": row[pair.rejected].text[:TEXT_LENGTH],
        "scores": [pair.chosen_score, pair.rejected_score],
        "reward_model": names[arms[pair.prompt if len(arms) > 1 else 0]],
    }


def _num_sampled(responses: Responses) -> int:
    return sum(len(response.token_ids) for row in responses for response in row)

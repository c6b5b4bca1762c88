"""One batch of Algorithm 1: choose reward models, sample, score, train, and reward the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from laser.bandits.base import Feedback, Selector
from laser.bandits.context import ContextPreparer
from laser.config import RunConfig
from laser.core.errors import diverged
from laser.core.seeding import stream, stream_seed
from laser.core.types import Batch, FloatArray, Prompt, Response, Responses, Selection
from laser.parallel.ranks import Alone, Ranks
from laser.policy.generation import Generator
from laser.policy.policy import Policy
from laser.rewards.combine import combine_scores, weights_by_variation
from laser.rewards.pool import QuarantinedError, RewardPool
from laser.rewards.spreads import RunningSpreads, deviations_by_arm
from laser.training.availability import available, cannot_choose
from laser.training.charges import arms_of, make_charges
from laser.training.embedders import Embedder
from laser.training.learner import Learner
from laser.training.pairs import Candidates, OrientedPairs, draw_pairs, orient_by_agreement, orient_pairs
from laser.training.progress import PhaseClock
from laser.training.records import (
    describe_batch,
    describe_learning,
    describe_overlap,
    describe_pairs,
    describe_selection,
)
from laser.training.signals import Signal, mixed

PairFilter = Callable[[Batch, Selection, OrientedPairs], OrientedPairs]
"""Leaves out pairs that the policy should not train on."""

Address = tuple[int, ...]
"""Coordinates of the random draws of one prompt."""

_FIX = "fix them and resume, with --changed-rewards if that changes a reward function's file"


def all_pairs(batch: Batch, selection: Selection, oriented: OrientedPairs) -> OrientedPairs:
    """Return all pairs: the filter of a signal without labels."""
    return oriented


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects Algorithm 1 works with. None of them knows another."""

    policy: Policy
    generator: Generator
    pool: RewardPool
    embedder: Embedder
    contexts: ContextPreparer
    selector: Selector
    feedback: Feedback
    signal: Signal
    learner: Learner
    ranks: Ranks = field(default_factory=Alone)
    filter_pairs: PairFilter = all_pairs


def run_batch(
    parts: Parts,
    config: RunConfig,
    batch: Batch,
    clock: PhaseClock,
    responses: list[list[Response]] | None = None,
) -> dict[str, Any]:
    """Do one batch and return its record for steps.jsonl.

    Source: arXiv 2410.01735, Algorithm 1, the inner loop. Deviations: pairs are drawn before scoring, so that only
    responses in pairs are scored; a reward model that fails is replaced by another choice.

    Args:
        parts: The policy, reward models and bandit; all of them change.
        config: The run.
        batch: Its prompts and its place in the run.
        clock: Measures the seconds of each phase.
        responses: Responses sampled at the start of the iteration; None: sample them now.

    Raises:
        TrainingError: No reward model is left, or a number is not finite.
    """
    counts, overlap = parts.pool.num_scored(), parts.pool.observe()
    contexts_MD, selection = choose(parts, config, batch, clock)
    with clock("sample"):
        if responses is None:
            responses = sample(parts, config, batch)
    candidates = draw_candidates(config, responses, addresses(batch))
    with clock("score"):
        selection, scores_BKN = score(parts, selection, contexts_MD, batch.prompts, responses, candidates)
        oriented = orient(config, candidates, scores_BKN, selection, parts.pool.spreads)
        oriented = parts.filter_pairs(batch, selection, oriented)
    charges = make_charges(selection, candidates, scores_BKN, oriented.pairs)
    with clock("train"):
        prompt_ids = parts.policy.encode(batch.prompts)
        learned = parts.learner.learn(prompt_ids, responses, oriented.pairs, charges)
    with clock("update"):
        scaled_E = parts.feedback.scale(learned.bandit_losses_E, arms_of(charges))
        signals_E = parts.signal.measure(batch, responses, charges)
        bandit_rewards_E = mixed(scaled_E, signals_E, config.signal.weight)
        parts.selector.update(selection.id, bandit_rewards_E)
    names, log_contexts = parts.pool.names, config.checkpoint.log_contexts
    return {
        **describe_batch(batch),
        "selection": describe_selection(batch, selection, contexts_MD, names, log_contexts=log_contexts),
        **describe_pairs(batch, selection, responses, candidates, scores_BKN, oriented, names),
        **describe_learning(learned, oriented.pairs, responses),
        "bandit_signals": signals_E,
        "bandit_rewards": bandit_rewards_E,
        **describe_overlap(overlap),
        "scored": {name: count - counts[name] for name, count in parts.pool.num_scored().items()},
        "cost": dict(zip(names, parts.pool.costs.take_latest_K(), strict=True)),
        "quarantined": parts.pool.quarantine.fresh(names),
        "seconds": clock.seconds,
    }


def choose(parts: Parts, config: RunConfig, batch: Batch, clock: PhaseClock) -> tuple[FloatArray, Selection]:
    """Contexts and selection of a batch, after the signal has taught the selector what is due."""
    parts.pool.quarantine.next_batch()
    with clock("probe"):
        parts.signal.prepare(batch.iteration, parts.selector, lambda prompts: parts.contexts(embed(parts, prompts)))
    with clock("embed"):
        contexts_MD = prepare_contexts(parts.contexts, config, embed(parts, batch.prompts))
    with clock("select"):
        selection = select(parts, contexts_MD)
        parts.pool.prefetch(selection.used_arms)
    return contexts_MD, selection


def embed(parts: Parts, prompts: Sequence[Prompt]) -> FloatArray:
    """`Embedder.embed` by all processes, each for its share of the prompts; shape (B, D).

    Raises:
        TrainingError: A feature is not finite.
    """
    return finite(np.stack(parts.ranks.together(lambda part: list(parts.embedder.embed(prompts[part])), len(prompts))))


def finite(embeddings_BD: FloatArray) -> FloatArray:
    """The embeddings; raises TrainingError if a feature is not finite."""
    if not np.isfinite(embeddings_BD).all():
        raise diverged("the prompts' hidden states are not finite")
    return embeddings_BD


def prepare_contexts(contexts: ContextPreparer, config: RunConfig, embeddings_BD: FloatArray) -> FloatArray:
    """Contexts of the selection, shape (M, D): the mean over the batch (Sec. 3.2), or one row per prompt."""
    if config.training.granularity == "per_prompt":
        return contexts(embeddings_BD)
    return contexts(embeddings_BD.mean(axis=0, keepdims=True))


def select(parts: Parts, contexts_MD: FloatArray) -> Selection:
    """Select among the reward models outside quarantine; all processes get the main one's selection.

    Raises:
        TrainingError: No reward model is left, or the selector requires one that is in quarantine.
    """
    available_K = available(parts.pool, _FIX)
    try:
        return parts.ranks.broadcast(parts.selector.select(contexts_MD, None if available_K.all() else available_K))
    except ValueError as error:  # the contexts are finite, so it is the selector that cannot do with these arms
        if available_K.all():
            raise
        raise cannot_choose(error, parts.pool, _FIX) from error


def addresses(batch: Batch) -> list[Address]:
    """Where the random draws of each prompt of a batch are: its row, and the place of the batch in the run."""
    return [(batch.iteration, batch.step, row) for row in range(len(batch.prompts))]


def sample(parts: Parts, config: RunConfig, batch: Batch) -> list[list[Response]]:
    """Sample n responses per prompt. The seed of a prompt depends on the batch's place in the run and its row alone."""
    return sample_at(parts.generator, config, batch.prompts, addresses(batch))


def sample_at(
    generator: Generator, config: RunConfig, prompts: Sequence[Prompt], at: Sequence[Address]
) -> list[list[Response]]:
    """Sample n responses per prompt, with the seed of its address."""
    section = config.generation
    return generator.generate(
        prompts,
        num_responses=section.num_responses,
        temperature=section.temperature,
        top_p=section.top_p,
        max_new_tokens=section.max_new_tokens,
        seeds=[stream_seed(config.seed, "generation", *address) for address in at],
    )


def draw_candidates(config: RunConfig, responses: Responses, at: Sequence[Address]) -> Candidates:
    """Draw P pairs per prompt, or the larger number that an agreement ensemble chooses its P from."""
    return draw_pairs(responses, num_candidates(config), [stream(config.seed, "pairs", *address) for address in at])


def num_candidates(config: RunConfig) -> int:
    """Pairs drawn per prompt before scoring."""
    if config.rewards.combine == "agreement":
        return config.rewards.candidate_pairs
    return config.training.pairs_per_prompt


def score(
    parts: Parts,
    selection: Selection,
    contexts_MD: FloatArray,
    prompts: Sequence[Prompt],
    responses: Responses,
    candidates: Candidates,
) -> tuple[Selection, list[FloatArray]]:
    """Score the responses in pairs with the selected reward models; when one drops out, select again and repeat.

    Returns:
        The selection that scored, and for each prompt raw scores of shape (K, N), NaN where nothing was scored.
    """
    needed = candidates.needed()
    texts = [[row[index].text for index in indices] for row, indices in zip(responses, needed, strict=True)]
    while True:
        try:
            given = parts.pool.score_selection(selection.weights_BK(len(prompts)), prompts, texts)
            break
        except QuarantinedError:
            parts.selector.expire(selection.id)
            selection = select(parts, contexts_MD)
    scores_BKN = [np.full((len(scores), len(row)), np.nan) for scores, row in zip(given, responses, strict=True)]
    for scores_KN, indices, scores in zip(scores_BKN, needed, given, strict=True):
        scores_KN[:, indices] = scores
    return selection, scores_BKN


def orient(
    config: RunConfig,
    candidates: Candidates,
    scores_BKN: Sequence[FloatArray],
    selection: Selection,
    spreads: RunningSpreads,
) -> OrientedPairs:
    """Tell chosen from rejected in each pair, by the score of the selected reward model or of the ensemble.

    With combine = "scaled", the scores are first added to the running spreads.
    """
    weights_BK = selection.weights_BK(len(scores_BKN))
    if config.rewards.combine == "agreement":
        return orient_by_agreement(candidates, scores_BKN, weights_BK, config.training.pairs_per_prompt)
    if config.rewards.combine == "variation":
        weights_BK = weights_by_variation(scores_BKN, weights_BK)
    spreads_K = None
    if config.rewards.combine == "scaled":
        spreads.add(deviations_by_arm(scores_BKN))
        spreads_K = spreads.values_K
    combined = [
        combine_scores(scores_KN, weights_K, config.rewards.combine, spreads_K)
        for scores_KN, weights_K in zip(scores_BKN, weights_BK, strict=True)
    ]
    return orient_pairs(candidates, combined)

"""``laser train-classifier``: learn offline, from labeled pairs, which reward model judges which query best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from laser.bandits.classifier import LabeledQueries, QueryClassifier, fit_prior, label_queries
from laser.config import RunConfig
from laser.core.errors import ConfigError, DataError
from laser.core.files import write_json
from laser.core.outputs import check_free
from laser.core.seeding import stream
from laser.core.state import save_state
from laser.core.types import FloatArray
from laser.data.preferences import Preference, load_preferences
from laser.wiring import build_contexts, build_embedder, build_policy, build_pool
from laser.wiring.data import prompt_fields
from laser.wiring.learned import router_record

_TRAIN_SHARE = 0.8
_PRIOR_RIDGE = 1.0


@dataclass(frozen=True, slots=True)
class RouterReport:
    """How good the trained classifier is.

    Attributes:
        accuracy: Accuracy on held-out queries (one in five), in [0, 1].
        majority: Accuracy of always predicting the most frequent label.
        labels: How often each reward model was best, by name.
        num_unlabeled: Pairs on which no reward model prefers the chosen response.
        pair_accuracy: Accuracy of each reward model on labeled pairs, by name.
    """

    accuracy: float
    majority: float
    labels: dict[str, int]
    num_unlabeled: int
    pair_accuracy: dict[str, float]


def train_classifier(
    config: RunConfig, pairs: str | Path, out: str | Path, *, standardize: bool = False
) -> RouterReport:
    """Train the classifier baseline and BayesianRouter's prior, and save both.

    Source: arXiv 2410.01735, Sec. A.1 (labels: the reward model that prefers the chosen response with the largest
    score difference; 80/20 split); arXiv 2510.02850 for the prior.

    Args:
        config: Policy (whose hidden states are the features), pool and [context] of the run it is for.
        pairs: Labeled pairs; see `load_preferences`.
        out: Folder to create.
        standardize: Divide each reward model's differences by their standard deviation first, so that the widest scale
            does not win every label. The paper does not.

    Raises:
        LaserError: The pairs do not distinguish the reward models, or something cannot be read or written.
    """
    out = Path(out).absolute()
    check_free(out)
    if config.context.normalization in ("standardize", "unit"):
        raise ConfigError(
            f"context.normalization = {config.context.normalization!r} changes during a run; "
            "add --set context.normalization=none (or l2), here and in the run that uses it"
        )
    preferences = load_preferences(pairs, prompt_fields(config.data))
    names = [model.name for model in config.rewards.models]
    embeddings_ND, differences_NK = _measure(config, preferences)
    scale_K = np.nanstd(differences_NK, axis=0) if standardize else np.ones(len(names))
    try:
        queries = label_queries(embeddings_ND, differences_NK / np.where(scale_K > 0, scale_K, 1.0))
    except ValueError as error:
        raise DataError(f"{pairs}: {error}") from error
    train, held_out = _split(queries, config.seed)
    classifier = QueryClassifier(embeddings_ND.shape[1], len(names), seed=config.seed)
    classifier.fit(train)
    counts_K = np.bincount(queries.labels_N, minlength=len(names))
    right_K = np.nanmean(differences_NK > 0, axis=0)
    report = RouterReport(
        accuracy=classifier.accuracy(held_out),
        majority=float((held_out.labels_N == np.bincount(train.labels_N).argmax()).mean()),
        labels=dict(zip(names, counts_K.tolist(), strict=True)),
        num_unlabeled=queries.num_unlabeled,
        pair_accuracy=dict(zip(names, right_K.tolist(), strict=True)),
    )
    out.mkdir(parents=True, exist_ok=True)
    save_state(out / "classifier", classifier.state_dict())
    save_state(out / "prior", {"theta": fit_prior(embeddings_ND, differences_NK, ridge=_PRIOR_RIDGE)})
    record = router_record(config, dim=embeddings_ND.shape[1], accuracy=report.accuracy)
    write_json(out / "router.json", dict(record))
    return report


def _measure(config: RunConfig, preferences: Sequence[Preference]) -> tuple[FloatArray, FloatArray]:
    """Prepared embeddings (N, D) and score differences (N, K) of all pairs."""
    policy = build_policy(config) if config.context.source == "policy" else None
    embedder = build_embedder(config.context, policy)
    prompts = [preference.prompt for preference in preferences]
    embeddings_ND = build_contexts(config, dim=embedder.context_dim)(embedder.embed(prompts))
    pool = build_pool(config)
    texts = [[preference.chosen, preference.rejected] for preference in preferences]
    columns = []
    for arm in range(len(pool.names)):
        scores = np.array(pool.score(arm, prompts, texts))
        columns.append(scores[:, 0] - scores[:, 1])
    pool.release_all()
    return embeddings_ND, np.stack(columns, axis=1)


def _split(queries: LabeledQueries, seed: int) -> tuple[LabeledQueries, LabeledQueries]:
    order = stream(seed, "data", 7).permutation(len(queries.labels_N))
    cut = max(1, round(_TRAIN_SHARE * len(order)))
    if cut == len(order):
        raise DataError(f"{len(order)} labeled pairs are too few for a held-out fifth; give at least 5")
    parts = (order[:cut], order[cut:])
    first, second = (LabeledQueries(queries.embeddings_ND[part], queries.labels_N[part], 0) for part in parts)
    return first, second

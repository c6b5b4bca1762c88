"""The laboratory's oracle, hidden from methods: each reward model's pair accuracy on the policy's own responses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from laser.bandits.classifier import LabeledQueries, QueryClassifier
from laser.commands.train_classifier import train_classifier
from laser.compare.choices import load_oracle
from laser.compare.lab.build import POOLS, pool_members
from laser.config import RunConfig, parse_config
from laser.core.files import write_json
from laser.core.state import save_state
from laser.core.types import FloatArray, Prompt
from laser.data.files import load_file
from laser.evaluation.answers import answer_check
from laser.policy.generation import TransformersGenerator
from laser.policy.policy import Policy
from laser.wiring import build_contexts, build_policy, build_pool
from laser.wiring.learned import router_record

_PER_CATEGORY = 50
_SAMPLES = 12
_FEW = 8  # labeled pairs of each category that a small probe has

Graded = list[tuple[Prompt, list[str], list[str]]]
"""Prompts with distinct right and wrong responses."""


def pool_config(lab: Path, pool: str, *, normalization: str = "none") -> RunConfig:
    """Return a configuration with the laboratory's policy, training questions and one pool."""
    models = [
        {"type": "loglik", "name": name.removeprefix(f"{pool}-"), "model": str(lab / name)}
        for name in pool_members(pool)
    ]
    return parse_config(
        {
            "policy": {"model": str(lab / "policy"), "device": "cpu"},
            "data": {"type": "file", "train": str(lab / "train.jsonl")},
            "context": {"normalization": normalization},
            "rewards": {"max_resident": 8, "models": models},
        }
    )


def measure_oracle(lab: Path, *, pools: Sequence[str] = POOLS, note: Callable[[str], None] = lambda _: None) -> None:
    """Write labeled pairs of the policy's responses, ``oracle.json``, the offline routers and the oracle's selectors.

    Args:
        lab: A laboratory whose models are trained; files that it has stay.
        pools: The pools to measure.
        note: Receives a line when a pool's routers are trained.
    """
    lab = lab.resolve()
    files = ["oracle.json", "pairs-32.jsonl", *(f"oracle-{pool}" for pool in pools)]
    if all((lab / name).exists() for name in files):
        return
    policy = build_policy(pool_config(lab, pools[0]))
    graded = _sample(policy, lab / "train.jsonl")
    _write_pairs(lab / "pairs.jsonl", graded)
    _write_pairs(lab / "pairs-32.jsonl", _few(graded))
    for pool in pools:
        for method, normalization in (("classifier", "none"), ("bayesian-router", "l2")):
            out = lab / f"router-{pool}-{method}"
            if not out.exists():
                config = pool_config(lab, pool, normalization=normalization)
                train_classifier(config, lab / "pairs.jsonl", out)
        note(f"routers of {pool} trained")
    if not (lab / "oracle.json").is_file():
        tests = _sample(policy, lab / "test.jsonl")
        oracle = {pool: _accuracies(pool_config(lab, pool), tests) for pool in pools}
        (lab / "oracle.json").write_text(json.dumps(oracle, indent=2), encoding="utf-8")
    for pool in pools:
        if not (lab / f"oracle-{pool}").exists():
            _write_selector(lab, pool, policy)


def _write_pairs(path: Path, graded: Graded) -> None:
    """Write one pair for each right response that has a wrong one to go with it."""
    lines = [
        {
            "id": f"{prompt.id}-{index}",
            "prompt": prompt.text,
            "category": prompt.category,
            "chosen": good,
            "rejected": bad,
        }
        for prompt, right, wrong in graded
        for index, (good, bad) in enumerate(zip(right, wrong, strict=False))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _few(graded: Graded) -> Graded:
    """Return eight prompts of each category, each with one right and one wrong response."""
    by_category: dict[str, Graded] = {}
    for prompt, right, wrong in graded:
        kept = by_category.setdefault(prompt.category, [])
        if len(kept) < _FEW:
            index = len(kept)  # the first in alphabetical order would always be alike
            kept.append((prompt, [right[index % len(right)]], [wrong[index % len(wrong)]]))
    return [item for kept in by_category.values() for item in kept]


def _write_selector(lab: Path, pool: str, policy: Policy) -> None:
    """Write a classifier of categories that chooses the reward model that is best for each: the ceiling of a method."""
    config = pool_config(lab, pool)
    names = [model.name for model in config.rewards.models]
    table = load_oracle(lab / "oracle.json")[pool]
    best = {category: names.index(max(values, key=values.__getitem__)) for category, values in table.items()}
    prompts = load_file(lab / "train.jsonl")
    contexts_ND = build_contexts(config, dim=policy.context_dim)(policy.embed(prompts))
    queries = LabeledQueries(contexts_ND, np.array([best[prompt.category] for prompt in prompts]), 0)
    classifier = QueryClassifier(policy.context_dim, len(names), hidden=())
    classifier.fit(queries)
    folder = lab / f"oracle-{pool}"
    folder.mkdir()
    save_state(folder / "classifier", classifier.state_dict())
    record = router_record(config, dim=policy.context_dim, accuracy=classifier.accuracy(queries))
    write_json(folder / "router.json", dict(record))


def _sample(policy: Policy, path: Path) -> Graded:
    """Sample the untrained policy on some prompts of each category; keep prompts with a wrong response."""
    prompts = load_file(path)
    chosen = [
        prompt
        for category in sorted({prompt.category for prompt in prompts})
        for prompt in [prompt for prompt in prompts if prompt.category == category][:_PER_CATEGORY]
    ]
    replies = TransformersGenerator(policy).generate(
        chosen, num_responses=_SAMPLES, temperature=0.8, top_p=1.0, max_new_tokens=6, seeds=list(range(len(chosen)))
    )
    is_right = answer_check("whole", chosen)
    graded = []
    for prompt, row in zip(chosen, replies, strict=True):
        texts = sorted({reply.text for reply in row if reply.text.strip()})
        right = [text for text in texts if is_right(prompt, text)]
        wrong = [text for text in texts if not is_right(prompt, text)]
        if wrong:
            graded.append((prompt, right or [str(prompt.answer)], wrong))
    return graded


def _accuracies(config: RunConfig, graded: Graded) -> dict[str, dict[str, float]]:
    pool = build_pool(config)
    table: dict[str, dict[str, float]] = {}
    for arm, name in enumerate(pool.names):
        scores = pool.score(arm, [prompt for prompt, _, _ in graded], [[*right, *wrong] for _, right, wrong in graded])
        by_category: dict[str, list[float]] = {}
        for (prompt, right, _), row in zip(graded, scores, strict=True):
            by_category.setdefault(prompt.category, []).append(_pair_accuracy(row, len(right)))
        for category, values in by_category.items():
            table.setdefault(category, {})[name] = float(np.mean(values))
    pool.release_all()
    return table


def _pair_accuracy(scores_N: FloatArray, num_right: int) -> float:
    gaps = np.subtract.outer(scores_N[:num_right], scores_N[num_right:])
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))

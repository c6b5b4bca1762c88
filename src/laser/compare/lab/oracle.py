"""What the laboratory knows and its methods do not: how well each reward model orders the policy's own responses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from laser.commands.train_classifier import train_classifier
from laser.compare.lab.build import POOLS
from laser.compare.lab.methods import method_config
from laser.config import RunConfig, parse_config
from laser.core.types import FloatArray, Prompt
from laser.data.files import load_file
from laser.evaluation.answers import answer_check
from laser.policy.generation import TransformersGenerator
from laser.wiring import build_policy, build_pool

_PER_CATEGORY = 50
_SAMPLES = 12

Judged = list[tuple[Prompt, list[str], list[str]]]


def measure_oracle(lab: Path, *, note: Callable[[str], None] = lambda _: None) -> None:
    """Write ``pairs.jsonl`` (right and wrong responses of the policy), ``oracle.json`` and the offline routers.

    Args:
        lab: A laboratory whose models are trained.
        note: Told what is done.
    """
    if (lab / "oracle.json").is_file():
        return
    config = parse_config(method_config(lab, POOLS[0], "laser-paper", 0))
    judged = _sample(config, lab / "train.jsonl")
    lines = [
        {"id": f"{prompt.id}-{index}", "prompt": prompt.text, "chosen": good, "rejected": bad}
        for prompt, right, wrong in judged
        for index, (good, bad) in enumerate(zip(right, wrong, strict=False))
    ]
    (lab / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for pool in POOLS:
        for method in ("classifier", "bayesian-router"):
            out = lab / f"router-{pool}-{method}"
            if not out.exists():
                train_classifier(parse_config(method_config(lab, pool, method, 0)), lab / "pairs.jsonl", out)
        note(f"routers of {pool} trained")
    tests = _sample(config, lab / "test.jsonl")
    oracle = {pool: _accuracies(parse_config(method_config(lab, pool, "laser-paper", 0)), tests) for pool in POOLS}
    (lab / "oracle.json").write_text(json.dumps(oracle, indent=2), encoding="utf-8")


def load_oracle(lab: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Pair accuracy by pool, category and reward model."""
    oracle: dict[str, Any] = json.loads((lab / "oracle.json").read_text(encoding="utf-8"))
    return oracle


def _sample(config: RunConfig, path: Path) -> Judged:
    """Right and wrong responses of the untrained policy to some prompts of each category, where it has both."""
    policy = build_policy(config)
    prompts = load_file(path)
    chosen = [
        prompt
        for category in sorted({prompt.category for prompt in prompts})
        for prompt in [prompt for prompt in prompts if prompt.category == category][:_PER_CATEGORY]
    ]
    replies = TransformersGenerator(policy).generate(
        chosen, num_responses=_SAMPLES, temperature=0.8, top_p=1.0, max_new_tokens=6, seeds=list(range(len(chosen)))
    )
    is_right = answer_check("whole")
    judged = []
    for prompt, row in zip(chosen, replies, strict=True):
        texts = sorted({reply.text for reply in row if reply.text.strip()})
        right = [text for text in texts if is_right(prompt, text)]
        wrong = [text for text in texts if not is_right(prompt, text)]
        if wrong:
            judged.append((prompt, right or [str(prompt.answer)], wrong))
    return judged


def _accuracies(config: RunConfig, judged: Judged) -> dict[str, dict[str, float]]:
    pool = build_pool(config)
    table: dict[str, dict[str, float]] = {}
    for arm, name in enumerate(pool.names):
        scores = pool.score(arm, [prompt for prompt, _, _ in judged], [[*right, *wrong] for _, right, wrong in judged])
        by_category: dict[str, list[float]] = {}
        for (prompt, right, _), row in zip(judged, scores, strict=True):
            by_category.setdefault(prompt.category, []).append(_pair_accuracy(row, len(right)))
        for category, values in by_category.items():
            table.setdefault(category, {})[name] = float(np.mean(values))
    pool.release_all()
    return table


def _pair_accuracy(scores_N: FloatArray, num_right: int) -> float:
    gaps = np.subtract.outer(scores_N[:num_right], scores_N[num_right:])
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))

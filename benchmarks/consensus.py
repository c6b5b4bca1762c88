"""How much accuracy is lost by choosing reward models by a consensus instead of by gold answers.

Needs a laboratory (`laser lab build --folder lab`). The policy answers 256 prompts of each of four categories eight
times. For each of 16 disjoint probes of 16 prompts a category, each method orders the answers; in each category the
reward model is chosen that agrees with that order most. The table shows how much lower the pair accuracy of the chosen
one is than that of the best one, both by gold answers on all prompts; 0 means that the best was chosen.

    python benchmarks/consensus.py lab
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from laser.compare.lab.build import POOLS
from laser.compare.lab.oracle import pool_config
from laser.core.types import FloatArray
from laser.data.files import load_file
from laser.evaluation.answers import answer_check
from laser.policy.generation import TransformersGenerator
from laser.rewards.spreads import deviations_by_arm, spread
from laser.training.consensus import (
    Answers,
    consensus,
    consensus_gaps,
    consensus_orders,
    gold_gaps,
    num_agreeing,
    share_agreeing,
    untied,
)
from laser.wiring import build_policy, build_pool

PROBES, PER_CATEGORY = 16, 16


@dataclass(frozen=True)
class Graded:
    """A prompt's distinct answers, the right ones first."""

    answers: Answers
    num_right: int


Order = Callable[[Sequence[Graded]], list[FloatArray]]


def raw(probe: Sequence[Graded]) -> list[FloatArray]:
    """Sums of raw scores."""
    return [one.answers.scores_KN.sum(axis=0) for one in probe]


def scaled(probe: Sequence[Graded]) -> list[FloatArray]:
    """Sums of scores in spreads, and the policy's own consistency."""
    rows = [one.answers.scores_KN for one in probe]
    spreads_K = np.array([spread(row) for row in deviations_by_arm(rows)])
    return [consensus(row, spreads_K, one.answers.counts_N) for row, one in zip(rows, probe, strict=True)]


def own(probe: Sequence[Graded]) -> list[FloatArray]:
    """The policy's own consistency alone."""
    return [one.answers.counts_N for one in probe]


def full(probe: Sequence[Graded]) -> list[FloatArray]:
    """What `signal.labels = "consensus"` does."""
    return consensus_orders([one.answers for one in probe])


METHODS: dict[str, Order] = {"raw sums": raw, "own": own, "scaled": scaled, "consensus": full}


def collect(lab: Path) -> dict[str, tuple[list[Graded], tuple[str, ...]]]:
    """The policy's answers with the scores of each pool, and its reward models."""
    policy = build_policy(pool_config(lab, POOLS[0]))
    by_category: dict[str, list] = {}
    for prompt in load_file(lab / "train.jsonl"):
        by_category.setdefault(prompt.category, []).append(prompt)
    prompts = [one for rows in by_category.values() for one in rows[: PROBES * PER_CATEGORY]]
    is_right = answer_check("whole", prompts)
    replies = TransformersGenerator(policy).generate(
        prompts, num_responses=8, temperature=0.8, top_p=1.0, max_new_tokens=6, seeds=list(range(len(prompts)))
    )
    samples = [[reply.text for reply in row if reply.text.strip()] for row in replies]
    texts = [
        sorted(set(row), key=lambda text, of=prompt: (not is_right(of, text), text))
        for prompt, row in zip(prompts, samples, strict=True)
    ]
    found = {}
    for name in POOLS:
        pool = build_pool(pool_config(lab, name))
        scores = [pool.score(arm, prompts, texts) for arm in range(len(pool.names))]
        found[name] = (
            [
                Graded(
                    Answers(
                        prompt.category,
                        np.stack([rows[row] for rows in scores]),
                        np.array([samples[row].count(text) for text in texts[row]], dtype=np.float64),
                        np.array([len(text) for text in texts[row]], dtype=np.float64),
                    ),
                    sum(is_right(prompt, text) for text in texts[row]),
                )
                for row, prompt in enumerate(prompts)
            ],
            pool.names,
        )
    return found


def cases(names: Sequence[str]) -> dict[str, Callable[[Answers, np.random.Generator], FloatArray]]:
    """Changes of a pool's scores."""
    expert, other, mediocre = names.index("numbers"), names.index("sorting"), names.index("mediocre")

    def times_100(arm: int) -> Callable[[Answers, np.random.Generator], FloatArray]:
        return lambda one, _: one.scores_KN * np.where(np.arange(len(names)) == arm, 100.0, 1.0)[:, None]

    def joined(make: Callable[[Answers, np.random.Generator], FloatArray]):
        return lambda one, rng: np.vstack([one.scores_KN, make(one, rng)])

    return {
        "plain": lambda one, _: one.scores_KN,
        "units": times_100(mediocre),
        "units-expert": times_100(expert),
        "inverted": joined(lambda one, _: -one.scores_KN[expert]),
        "inverted-2": joined(lambda one, _: -one.scores_KN[other]),
        "length": joined(lambda one, _: 30 * one.lengths_N),
        "short": joined(lambda one, _: -30 * one.lengths_N),
        "random-2": joined(lambda one, rng: 30 * rng.normal(size=(2, len(one.counts_N)))),
    }


def accuracies(rows: Sequence[Graded]) -> FloatArray:
    """Pair accuracy of each reward model by gold answers, shape (K,)."""
    num_arms = len(rows[0].answers.scores_KN)
    gaps = [
        np.concatenate([gold_gaps(one.answers.scores_KN[arm], one.num_right) for one in rows])
        for arm in range(num_arms)
    ]
    return np.array([num_agreeing(row) / len(row) for row in gaps])


def lost(rows: Sequence[Graded], order: Order) -> float:
    """Accuracy lost by the choices of a method, the mean over probes and categories."""
    categories = {}
    for one in rows:
        categories.setdefault(one.answers.category, []).append(one)
    best = {name: accuracies(of) for name, of in categories.items()}
    losses = []
    for draw in range(PROBES):
        part = slice(draw * PER_CATEGORY, (draw + 1) * PER_CATEGORY)
        probe = [one for of in categories.values() for one in of[part] if len(one.answers.counts_N) > 1]
        agreed: dict[str, list[list[FloatArray]]] = {}
        for one, values_N in zip(probe, order(probe), strict=True):
            gaps = [consensus_gaps(row, values_N) for row in one.answers.scores_KN]
            agreed.setdefault(one.answers.category, []).append(gaps)
        for name, of in agreed.items():
            shares = [share_agreeing(np.concatenate(untied(column))) for column in zip(*of, strict=True)]
            losses.append(best[name].max() - best[name][int(np.nanargmax(shares))])
    return float(np.mean(losses))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lab", type=Path, help="folder of the laboratory")
    lab: Path = parser.parse_args().lab
    table = []
    print(f"{'case':26}" + "".join(f"{name:>12}" for name in METHODS))
    for pool, (rows, names) in collect(lab.resolve()).items():
        for case, change in cases(names).items():
            rng = np.random.default_rng(0)
            changed = [replace(one, answers=replace(one.answers, scores_KN=change(one.answers, rng))) for one in rows]
            table.append([lost(changed, order) for order in METHODS.values()])
            print(f"{pool + '/' + case:26}" + "".join(f"{value:12.3f}" for value in table[-1]), flush=True)
    print(f"{'mean':26}" + "".join(f"{value:12.3f}" for value in np.mean(table, axis=0)))


if __name__ == "__main__":
    main()

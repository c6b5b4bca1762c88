"""The methods that the laboratory compares: each is a patch on one base configuration, run by the same loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from laser.compare.lab.build import pool_members
from laser.config.patch import Table, merged

Study = Callable[[Path, Table], Table]


def base_config(lab: Path, pool: Sequence[str], seed: int) -> Table:
    """What all methods share: the laboratory's policy, questions and a pool, small batches of one category."""
    models = [{"type": "loglik", "name": name.split("-", 1)[1], "model": str(lab / name)} for name in pool]
    return {
        "preset": "paper",
        "seed": seed,
        "policy": {"model": str(lab / "policy"), "device": "cpu"},
        "generation": {"num_responses": 12, "max_new_tokens": 6},
        "data": {"type": "file", "train": str(lab / "train.jsonl"), "dev": str(lab / "test.jsonl")},
        "split": {"dev": 400, "batching": "by_category"},
        "training": {
            "iterations": 4,
            "batches_per_iteration": 20,
            "batch_size": 16,
            "pairs_per_prompt": 10,
            "learning_rate": 5e-4,
            "convergence_threshold": 0,
        },
        "evaluation": {"every": 4, "temperature": 0.8, "answer": "whole"},
        "checkpoint": {"every": 1000, "keep": 1},
        "rewards": {"max_resident": 8, "models": models},
    }


_RECOMMENDED: Table = {"preset": "recommended"}
_ZSCORE: Table = {"feedback": {"type": "zscore"}}
_L2: Table = {"context": {"normalization": "l2"}}
_UNIT: Table = {"context": {"normalization": "unit"}}

METHODS: dict[str, Table] = {
    "laser": _RECOMMENDED,
    "laser-consensus": {**_RECOMMENDED, "signal": {"type": "probe", "labels": "consensus"}},
    "laser-loss": {**_RECOMMENDED, "signal": {"type": "none"}},
    "laser-post-update": {
        **_RECOMMENDED,
        "signal": {"type": "none"},
        "training": {"bandit_loss": "post_update"},
    },
    "laser-decrease": {**_RECOMMENDED, "signal": {"type": "none"}, "training": {"bandit_loss": "decrease"}},
    "laser-per-prompt": {  # of one category alone, all prompts of a batch would have nearly the same context
        **_RECOMMENDED,
        "training": {"granularity": "per_prompt"},
        "split": {"batching": "shuffled"},
    },
    "laser-paper": {},
    "laser-acc": {**_RECOMMENDED, "signal": {"type": "accuracy_gap"}},
    "laser-cold-start": {**_RECOMMENDED, "selector": {"type": "frozen"}},
    "laser-exp3": {"selector": {"type": "exp3"}},
    "laser-neural-ucb": {"selector": {"type": "neural_ucb", "forced_pulls": 1}, **_UNIT},
    "ucb1": {"selector": {"type": "ucb1"}},
    "epsilon-greedy": {"selector": {"type": "epsilon_greedy"}},
    "thompson": {"selector": {"type": "thompson", "ridge": 0.05}, **_UNIT},
    "forgetting": {"selector": {"type": "forgetting", "ridge": 0.05}, **_UNIT},
    "bayesian-router": {"selector": {"type": "bayesian_router"}, **_ZSCORE, **_L2},
    "random": {"selector": {"type": "random"}},
    "sequential": {"selector": {"type": "sequential"}},
    "classifier": {"selector": {"type": "classifier"}},
    "score-ensemble": {"selector": {"type": "ensemble"}},
    "score-ensemble-zscore": {"selector": {"type": "ensemble"}, "rewards": {"combine": "zscore"}},
    "score-ensemble-rank": {"selector": {"type": "ensemble"}, "rewards": {"combine": "rank"}},
    "agreement-ensemble": {
        "selector": {"type": "ensemble"},
        "rewards": {"combine": "agreement"},
        "generation": {"num_responses": 32},
    },
    "online-ensemble": {"selector": {"type": "online_ensemble"}},
}
LASER, COLD_START = "laser", "laser-cold-start"


def _noise(sigma: float) -> Study:
    def apply(lab: Path, config: Table) -> Table:
        models = [{**model, "noise": sigma} for model in config["rewards"]["models"]]
        return merged(config, {"rewards": {"models": models}})

    return apply


def _added(count: int, corruption: str) -> Study:
    """More arms: corrupted copies of the pool's own reward models."""

    def apply(lab: Path, config: Table) -> Table:
        models = config["rewards"]["models"]
        extra = [{**models[k % 4], "name": f"{corruption}-{k}", "corruption": corruption} for k in range(count)]
        return merged(config, {"rewards": {"models": [*models, *extra]}})

    return apply


def _from_other_pools(count: int) -> Study:
    """More arms: the experts of the confident pool, then of the inconsistent one."""

    def apply(lab: Path, config: Table) -> Table:
        others = (*pool_members("confident"), *pool_members("inconsistent"))[:count]
        extra = [{"type": "loglik", "name": name, "model": str(lab / name)} for name in others]
        return merged(config, {"rewards": {"models": [*config["rewards"]["models"], *extra]}})

    return apply


def _units(lab: Path, config: Table) -> Table:
    """Scores in two units, both in use: the last reward model sums log-probs, the others take the mean per token."""
    *others, last = config["rewards"]["models"]
    return merged(config, {"rewards": {"models": [*({**one, "normalization": "per_token"} for one in others), last]}})


def _with(patch: Table) -> Study:
    return lambda lab, config: merged(config, patch)


PLAIN = "none"
STUDIES: dict[str, Study] = {
    **{f"noise-{sigma}": _noise(sigma) for sigma in (0.1, 0.2, 0.3, 0.4)},  # Fig. 12
    **{f"irrelevant-{count}": _added(count, "random") for count in (1, 2, 4)},  # Fig. 13
    "inverted": _added(1, "inverted"),
    "units": _units,
    **{f"rms-{4 + count}": _from_other_pools(count) for count in (1, 2, 3, 4)},  # Fig. 11
    "longer": _with({"training": {"batches_per_iteration": 26}}),  # the time of a score ensemble
    **{f"loss-{loss}": _with({"training": {"loss": loss}}) for loss in ("dpo", "nll", "kto")},  # Table 13
}


def method_names(pool: str) -> tuple[str, ...]:
    """All methods for a pool, one fixed run per reward model included."""
    return (*METHODS, *(f"fixed-{name.split('-', 1)[1]}" for name in pool_members(pool)))


def method_config(lab: Path, pool: str, method: str, seed: int, study: str = "", *, runs: Path = Path()) -> Table:
    """The configuration of one method on one pool.

    Args:
        lab: The laboratory's folder.
        pool: One of `laser.compare.lab.build.POOLS`.
        method: One of `method_names`.
        seed: The run's seed.
        study: One of `STUDIES`, or "" for none.
        runs: Folder of the runs; a cold start takes the selector of the run of `LASER` with the same seed.

    Raises:
        KeyError: There is no such method or study.
    """
    patch = {"selector": {"type": "fixed", "arm": method[6:]}} if method.startswith("fixed-") else METHODS[method]
    config = merged(base_config(lab, pool_members(pool), seed), patch)
    if method in ("classifier", "bayesian-router"):
        key = "path" if method == "classifier" else "prior"
        config["selector"][key] = str(lab / f"router-{pool}-{method}")
    if method == COLD_START:
        config["selector"]["run"] = str(runs / pool / LASER / f"seed-{seed}")
    return STUDIES[study](lab, config) if study else config

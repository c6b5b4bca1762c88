"""``laser simulate``: selectors alone, in environments with known rewards; table, JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from laser.bandits.baselines import UniformRandom
from laser.bandits.context_free import UCB1, EpsilonGreedy, Exp3
from laser.bandits.forgetting import ForgettingLinUCB
from laser.bandits.linucb import LinUCB
from laser.bandits.neural import NeuralUCB
from laser.bandits.simulate import Environment, LoggedRows, Maker, classification, compare, drifting, linear, replay
from laser.bandits.thompson import LinearThompson
from laser.cli.terminal import make_console
from laser.errors import ConfigError
from laser.results_files import REGRET, results_file, write_results
from laser.types import FloatArray

MAKERS: dict[str, Maker] = {
    "linucb-0.1": lambda k, d, seed: LinUCB(k, d, alpha=0.1, seed=seed),
    "linucb-1": lambda k, d, seed: LinUCB(k, d, alpha=1.0, seed=seed),
    "thompson": lambda k, d, seed: LinearThompson(k, d, scale=0.1, seed=seed),
    "discount": lambda k, d, seed: ForgettingLinUCB(k, d, rule="discount", alpha=1.0, gamma=0.995, seed=seed),
    "window": lambda k, d, seed: ForgettingLinUCB(k, d, rule="window", alpha=1.0, window=400, seed=seed),
    "decay": lambda k, d, seed: ForgettingLinUCB(k, d, rule="decay", alpha=0.3, gamma=0.995, seed=seed),
    "adaptive": lambda k, d, seed: ForgettingLinUCB(k, d, rule="adaptive", alpha=0.7, seed=seed),
    "neural-ucb": lambda k, d, seed: NeuralUCB(k, d, hidden=(32, 16), forced_pulls=1, train_steps=5, seed=seed),
    "exp3": lambda k, d, seed: Exp3(k, seed=seed),
    "ucb1": lambda k, d, seed: UCB1(k, alpha=0.3, seed=seed),
    "epsilon-greedy": lambda k, d, seed: EpsilonGreedy(k, epsilon=0.05, seed=seed),
    "random": lambda k, d, seed: UniformRandom(k, seed=seed),
}
_SKLEARN = ("digits", "wine", "breast_cancer")
ENVIRONMENTS = ("linear", "stationary", "abrupt", "drift", *_SKLEARN)
_DEFAULT = ("linear", "stationary", "abrupt", "drift", "digits")


def run_simulation(environments: list[str], selectors: list[str], seeds: int, rounds: int, out: Path) -> None:
    """Simulate, print the table, write regret.json and regret.png.

    Raises:
        ConfigError: An environment or selector is unknown, or a library is missing.
        LaserError: The folder cannot be written, or holds other files of these names.
    """
    chosen = {name: MAKERS[_known("selector", name, MAKERS)] for name in selectors or MAKERS}
    makers = [_environment(_known("environment", name, ENVIRONMENTS), rounds) for name in environments or _DEFAULT]
    results, picture = out / "regret.json", out / "regret.png"
    if picture.exists() and not results.exists():
        raise ConfigError(f"{picture} exists already; choose another --out")
    results_file(results, replaces=(REGRET,))
    curves = compare(chosen, makers, seeds)
    final = {
        name: {selector: _summary(rows[:, -1]) for selector, rows in of_selector.items()}
        for name, of_selector in curves.items()
    }
    write_results(results, {"seeds": seeds, "rounds": rounds, "regret": final})
    _plot(curves, picture)
    console = make_console()
    console.print(_table(final, seeds, rounds))
    console.print(f"written: {results}, {picture}", markup=False, soft_wrap=True)


def run_replay(run: Path, selectors: list[str]) -> None:
    """Estimate what selectors would have earned on the logged choices of a run, off-policy.

    Raises:
        ConfigError: The run has no contexts in its records, or a selector is unknown.
    """
    logged = _logged(run)
    arms, dim = int(logged.arms_N.max()) + 1, logged.contexts_ND.shape[1]
    table = Table(title=f"mean bandit reward on {len(logged.rewards_N)} choices of {run}", title_justify="left")
    for column in ("selector", "estimate", "rows that match"):
        table.add_column(column)
    for name in selectors or MAKERS:
        result = replay(MAKERS[_known("selector", name, MAKERS)](arms, dim, 0), logged)
        table.add_row(name, f"{result.value:.3f}", f"{result.matched}")
    table.add_section()
    table.add_row("as it was", f"{logged.rewards_N.mean():.3f}", f"{len(logged.rewards_N)}")
    make_console().print(table)


def _known(kind: str, name: str, names: Mapping[str, Any] | tuple[str, ...]) -> str:
    if name not in names:
        raise ConfigError(f"there is no {kind} {name!r}; choose among {', '.join(names)}")
    return name


def _environment(name: str, rounds: int) -> Callable[[int], Environment]:
    if name == "linear":
        return partial(linear, rounds=rounds)
    if name not in _SKLEARN:
        return partial(drifting, kind=name, rounds=rounds)
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ConfigError(f"environment {name!r} needs scikit-learn; pip install 'laser-rm[simulate]'") from error
    data = getattr(datasets, f"load_{name}")()
    return lambda seed: classification(name, data.data, data.target, seed, rounds=rounds)


def _logged(run: Path) -> LoggedRows:
    path = run / "steps.jsonl"
    if not path.is_file():
        raise ConfigError(f"{run} is not a run directory; give one that laser train wrote")
    rows: list[tuple[list[float], int, float, float]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        step = json.loads(line)
        chosen = step["selection"]
        if "contexts" not in chosen:
            raise ConfigError(f"{path} holds no contexts; train with checkpoint.log_contexts = true to replay a run")
        if len(step["bandit_rewards"]) == len(chosen["arms"]):
            for context, arm, probabilities, reward in zip(
                chosen["contexts"], chosen["arms"], chosen["probabilities"], step["bandit_rewards"], strict=True
            ):
                if reward is not None:
                    rows.append((context, arm, probabilities[arm], reward))
    if not rows:
        raise ConfigError(f"{path} holds no choice with a bandit reward; there is nothing to replay")
    contexts, arms, probabilities, rewards = zip(*rows, strict=True)
    return LoggedRows(np.array(contexts), np.array(arms), np.array(probabilities), np.array(rewards))


def _summary(final_S: FloatArray) -> dict[str, float]:
    from laser.analysis.statistics import estimate

    one = estimate(final_S.tolist())
    return {"mean": one.mean, "interval": one.half if one.num > 1 else 0.0, "deviation": float(final_S.std())}


def _table(final: Mapping[str, Mapping[str, Mapping[str, float]]], seeds: int, rounds: int) -> Table:
    title = f"cumulative regret after {rounds} rounds, mean and 95% interval over {seeds} seeds"
    table = Table(title=title, title_justify="left")
    table.add_column("selector")
    for name in final:
        table.add_column(name, justify="right")
    for selector in next(iter(final.values())):
        cells = [f"{of[selector]['mean']:.0f} ± {of[selector]['interval']:.0f}" for of in final.values()]
        table.add_row(selector, *cells)
    return table


def _plot(curves: Mapping[str, Mapping[str, FloatArray]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(4 * len(curves), 3.4), squeeze=False)
    for axis, (name, of_selector) in zip(axes[0], curves.items(), strict=True):
        for selector, rows in of_selector.items():
            axis.plot(rows.mean(axis=0), label=selector, linewidth=1.2)
        axis.set_title(name)
        axis.set_xlabel("round")
    axes[0][0].set_ylabel("cumulative regret")
    axes[0][-1].legend(fontsize=7, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)

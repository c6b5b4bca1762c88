"""Selectors alone, in environments with known rewards: regret as JSON and a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from laser.bandits.baselines import UniformRandom
from laser.bandits.context_free import UCB1, EpsilonGreedy, Exp3
from laser.bandits.forgetting import ForgettingLinUCB
from laser.bandits.linucb import LinUCB
from laser.bandits.neural import NeuralUCB
from laser.bandits.replay import Maker
from laser.bandits.simulate import Environment, classification, compare, drifting, linear
from laser.bandits.thompson import LinearThompson
from laser.core.errors import ConfigError
from laser.core.files import replacing
from laser.core.outputs import check_free, results_file, write_results
from laser.core.types import FloatArray

MAKERS: dict[str, Maker] = {
    "linucb-0.1": lambda k, d, seed: LinUCB(k, d, seed=seed),
    "linucb-1": lambda k, d, seed: LinUCB(k, d, alpha=1.0, seed=seed),
    "thompson": lambda k, d, seed: LinearThompson(k, d, seed=seed),
    "discount": lambda k, d, seed: ForgettingLinUCB(k, d, rule="discount", alpha=0.7, seed=seed),
    "window": lambda k, d, seed: ForgettingLinUCB(k, d, rule="window", alpha=0.7, seed=seed),
    "window-400": lambda k, d, seed: ForgettingLinUCB(k, d, rule="window", alpha=1.0, window=400, seed=seed),
    "decay": lambda k, d, seed: ForgettingLinUCB(k, d, rule="decay", alpha=0.7, seed=seed),
    "decay-0.3": lambda k, d, seed: ForgettingLinUCB(k, d, rule="decay", alpha=0.3, seed=seed),
    "adaptive": lambda k, d, seed: ForgettingLinUCB(k, d, rule="adaptive", alpha=0.7, seed=seed),
    "neural-ucb": lambda k, d, seed: NeuralUCB(k, d, seed=seed),
    "neural-ucb-small": lambda k, d, seed: NeuralUCB(k, d, hidden=(32, 16), forced_pulls=1, train_steps=5, seed=seed),
    "exp3": lambda k, d, seed: Exp3(k, seed=seed),
    "ucb1": lambda k, d, seed: UCB1(k, seed=seed),
    "ucb1-0.3": lambda k, d, seed: UCB1(k, alpha=0.3, seed=seed),
    "epsilon-greedy": lambda k, d, seed: EpsilonGreedy(k, seed=seed),
    "epsilon-greedy-0.05": lambda k, d, seed: EpsilonGreedy(k, epsilon=0.05, seed=seed),
    "random": lambda k, d, seed: UniformRandom(k, seed=seed),
}
"""Settings are the configuration's defaults, but for a number or "small" in the name ("linucb-0.1" is the default)."""
_COSTLY = ("neural-ucb",)  # only where it is asked for
_SKLEARN = ("digits", "wine", "breast_cancer")
ENVIRONMENTS = ("linear", "stationary", "abrupt", "drift", *_SKLEARN)
_DEFAULT = ("linear", "stationary", "abrupt", "drift", "digits")


@dataclass(frozen=True, slots=True)
class Simulated:
    """Final regret by environment and selector, and the files that hold it."""

    regret: Mapping[str, Mapping[str, Mapping[str, float]]]
    files: tuple[Path, ...]


def simulate(environments: Sequence[str], selectors: Sequence[str], seeds: int, rounds: int, out: Path) -> Simulated:
    """Final regret by environment and selector; writes regret.json and regret.png.

    Args:
        environments: Some of `ENVIRONMENTS`; none: those of `_DEFAULT`.
        selectors: Some of `MAKERS`; none: all but the costly ones.
        seeds: Seeds of every environment.
        rounds: Rounds of every environment.
        out: Folder for the files, new or empty.

    Raises:
        ConfigError: An environment or selector is unknown, or a library is missing.
        RunDirectoryError: The folder is occupied or cannot be written.
    """
    chosen = find_makers(selectors)
    makers = [_environment(_known("environment", name, ENVIRONMENTS), rounds) for name in environments or _DEFAULT]
    check_free(out)
    results, picture = out / "regret.json", out / "regret.png"
    results_file(results)
    curves = compare(chosen, makers, seeds)
    final = {
        name: {selector: _summary(rows[:, -1]) for selector, rows in of_selector.items()}
        for name, of_selector in curves.items()
    }
    write_results(results, {"seeds": seeds, "rounds": rounds, "regret": final})
    _plot(curves, picture)
    return Simulated(final, (results, picture))


def find_makers(selectors: Sequence[str]) -> dict[str, Maker]:
    """Selectors by name; without names, all but the costly ones."""
    return {
        name: MAKERS[_known("selector", name, MAKERS)]
        for name in selectors or [name for name in MAKERS if name not in _COSTLY]
    }


def _known(kind: str, name: str, names: Mapping[str, Any] | tuple[str, ...]) -> str:
    if name not in names:
        raise ConfigError(f"{name!r} is not a known {kind}; choose among {', '.join(names)}")
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


def _summary(final_S: FloatArray) -> dict[str, float]:
    from laser.core.statistics import estimate

    one = estimate(final_S.tolist())
    return {"mean": one.mean, "interval": one.half if one.num > 1 else 0.0, "deviation": float(final_S.std())}


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
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    pyplot.close(figure)

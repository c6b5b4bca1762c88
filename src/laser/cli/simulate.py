"""``laser simulate``: selectors alone, in environments with known rewards; table, JSON and a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from laser.bandits.baselines import UniformRandom
from laser.bandits.context_free import UCB1, EpsilonGreedy, Exp3
from laser.bandits.forgetting import ForgettingLinUCB
from laser.bandits.linucb import LinUCB
from laser.bandits.neural import NeuralUCB
from laser.bandits.simulate import Environment, Maker, classification, compare, drifting, linear
from laser.bandits.thompson import LinearThompson
from laser.cli.replay import run_replay as replay_run
from laser.cli.terminal import make_console
from laser.core.errors import ConfigError
from laser.core.results import results_file, write_results
from laser.core.types import FloatArray
from laser.training.run_directory import check_free

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


def run_simulation(environments: list[str], selectors: list[str], seeds: int, rounds: int, out: Path | None) -> None:
    """Simulate, print the table, write regret.json and regret.png.

    Args:
        environments: Some of `ENVIRONMENTS`; none: those of `_DEFAULT`.
        selectors: Some of `MAKERS`; none: all but the costly ones.
        seeds: Seeds of every environment.
        rounds: Rounds of every environment.
        out: Folder for the files, new or empty; None: a new one under ``runs/``, named by the time.

    Raises:
        ConfigError: An environment or selector is unknown, or a library is missing.
        RunDirectoryError: The folder is occupied or cannot be written.
    """
    chosen = _chosen(selectors)
    makers = [_environment(_known("environment", name, ENVIRONMENTS), rounds) for name in environments or _DEFAULT]
    out = out or Path("runs") / f"simulate-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
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
    console = make_console()
    console.print(_table(final, seeds, rounds))
    console.print(f"written: {results}, {picture}", markup=False, soft_wrap=True)


def run_replay(run: Path, selectors: list[str], out: Path | None = None) -> None:
    """Replay a run with selectors known by name; see `laser.cli.replay`."""
    replay_run(run, _chosen(selectors), out)


def check_replay_options(given: Mapping[str, object]) -> None:
    """Refuse options that mean nothing to a replay.

    Raises:
        ConfigError: One of them was given.
    """
    names = [name for name, value in given.items() if value]
    if names:
        raise ConfigError(f"{names[0]} does not apply to --replay, which replays the run's own batches; drop it")


def _chosen(selectors: list[str]) -> dict[str, Maker]:
    return {
        name: MAKERS[_known("selector", name, MAKERS)]
        for name in selectors or [name for name in MAKERS if name not in _COSTLY]
    }


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


def _summary(final_S: FloatArray) -> dict[str, float]:
    from laser.core.statistics import estimate

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

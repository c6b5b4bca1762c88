"""Regret and time of our selectors and of public libraries on the same streams.

Prints, for each environment, the mean cumulative regret with its 95% interval over seeds, the paired difference to the
best library, and the time per round relative to ours of the same algorithm.

    python benchmarks/bandit_regret.py [--seeds 20] [--rounds 2000]
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from mabwiser.mab import MAB, LearningPolicy
from pareto_bandit.policy import DisjointLinUCBPolicy

from laser.bandits.forgetting import ForgettingLinUCB
from laser.bandits.linucb import LinUCB
from laser.bandits.simulate import Environment, drifting, linear, regret
from laser.core.statistics import estimate

KINDS = ("stationary", "abrupt", "drift")
OURS = {
    "LinUCB alpha 0.3": lambda k, d, seed: LinUCB(k, d, alpha=0.3, seed=seed),
    "LinUCB alpha 1": lambda k, d, seed: LinUCB(k, d, alpha=1.0, seed=seed),
    "discount 0.995 alpha 1": lambda k, d, seed: ForgettingLinUCB(k, d, rule="discount", seed=seed),
    "window 400 alpha 1": lambda k, d, seed: ForgettingLinUCB(k, d, rule="window", window=400, seed=seed),
    "decay 0.995 alpha 0.3": lambda k, d, seed: ForgettingLinUCB(k, d, rule="decay", alpha=0.3, seed=seed),
    "adaptive alpha 0.7": lambda k, d, seed: ForgettingLinUCB(k, d, rule="adaptive", alpha=0.7, seed=seed),
}


def paretobandit(environment: Environment, seed: int, *, alpha: float, gamma: float) -> np.ndarray:
    """Cumulative regret of paretobandit's LinUCB with forgetting."""
    arms = environment.means_TK.shape[1]
    policy = DisjointLinUCBPolicy(
        [str(arm) for arm in range(arms)], dim=environment.contexts_TD.shape[1], alpha=alpha, forgetting_factor=gamma
    )
    lost = []
    for context, means, rewards in zip(
        environment.contexts_TD, environment.means_TK, environment.rewards_TK, strict=True
    ):
        arm = int(policy.select_arm(context)[0])
        policy.update(str(arm), context, float(rewards[arm]))
        lost.append(means.max() - means[arm])
    return np.cumsum(lost)


def mabwiser(environment: Environment, seed: int, *, alpha: float) -> np.ndarray:
    """Cumulative regret of mabwiser's LinUCB; its first round is given to it, as it must be fitted first."""
    arms = list(range(environment.means_TK.shape[1]))
    policy = MAB(arms, LearningPolicy.LinUCB(alpha=alpha), seed=seed)
    policy.fit([0], [environment.rewards_TK[0, 0]], environment.contexts_TD[:1])
    lost = [environment.means_TK[0].max() - environment.means_TK[0, 0]]
    for context, means, rewards in zip(
        environment.contexts_TD[1:], environment.means_TK[1:], environment.rewards_TK[1:], strict=True
    ):
        arm = policy.predict([context])
        policy.partial_fit([arm], [rewards[arm]], [context])
        lost.append(means.max() - means[arm])
    return np.cumsum(lost)


def river(environment: Environment, seed: int, *, alpha: float) -> np.ndarray:
    """Cumulative regret of river's disjoint LinUCB."""
    from river.bandit import LinUCBDisjoint

    policy = LinUCBDisjoint(alpha=alpha, seed=seed)
    arms = list(range(environment.means_TK.shape[1]))
    lost = []
    for context, means, rewards in zip(
        environment.contexts_TD, environment.means_TK, environment.rewards_TK, strict=True
    ):
        features = dict(enumerate(context))
        arm = int(policy.pull(arms, context=features))
        policy.update(arm, features, float(rewards[arm]))
        lost.append(means.max() - means[arm])
    return np.cumsum(lost)


def vowpalwabbit(environment: Environment, seed: int, *, epsilon: float) -> np.ndarray:
    """Cumulative regret of vowpalwabbit's doubly robust contextual bandit with epsilon-greedy exploration."""
    from vowpalwabbit import Workspace

    policy = Workspace(f"--cb_explore {environment.means_TK.shape[1]} --cb_type dr --epsilon {epsilon} --quiet")
    generator = np.random.default_rng(seed)
    lost = []
    for context, means, rewards in zip(
        environment.contexts_TD, environment.means_TK, environment.rewards_TK, strict=True
    ):
        features = "| " + " ".join(f"{index}:{value:.6f}" for index, value in enumerate(context))
        probabilities = np.array(policy.predict(features))
        probabilities /= probabilities.sum()
        arm = int(generator.choice(len(probabilities), p=probabilities))
        policy.learn(f"{arm + 1}:{-rewards[arm]:.6f}:{probabilities[arm]:.6f} {features}")
        lost.append(means.max() - means[arm])
    return np.cumsum(lost)


PEERS = {
    "mabwiser LinUCB alpha 1": partial(mabwiser, alpha=1.0),
    "paretobandit 0.995 alpha 0.3": partial(paretobandit, alpha=0.3, gamma=0.995),
    "paretobandit 0.995 alpha 1": partial(paretobandit, alpha=1.0, gamma=0.995),
}


OPTIONAL = {  # `pip install -e '.[bench]'`
    "river LinUCBDisjoint alpha 1": ("river", partial(river, alpha=1.0)),
    "vowpalwabbit dr epsilon 0.05": ("vowpalwabbit", partial(vowpalwabbit, epsilon=0.05)),
}


def peers() -> dict[str, Callable[[Environment, int], np.ndarray]]:
    """The libraries that are there; says which are not."""
    found = dict(PEERS)
    for name, (module, method) in OPTIONAL.items():
        if importlib.util.find_spec(module):
            found[name] = method
        else:
            print(f"{name}: skipped, {module} is not installed")
    return found


def ours(make, environment: Environment, seed: int) -> np.ndarray:
    """Cumulative regret of one of our selectors."""
    return regret(make(environment.means_TK.shape[1], environment.contexts_TD.shape[1], seed), environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2000)
    args = parser.parse_args()
    libraries = peers()
    methods = {**{name: partial(ours, make) for name, make in OURS.items()}, **libraries}
    makers = {kind: partial(drifting, kind=kind, rounds=args.rounds) for kind in KINDS}
    makers["linear"] = partial(linear, rounds=min(args.rounds, 1500))
    finals: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in makers}
    seconds = dict.fromkeys(methods, 0.0)
    for kind, make in makers.items():
        environments = [make(seed) for seed in range(args.seeds)]
        for name, method in methods.items():
            begin = time.process_time()
            finals[kind][name] = np.array([method(env, seed)[-1] for seed, env in enumerate(environments)])
            seconds[name] += time.process_time() - begin
    print(f"cumulative regret, {args.seeds} seeds, {args.rounds} rounds; in brackets: minus the best library, paired\n")
    print("| selector | " + " | ".join(finals) + " | sum | time / LinUCB's |\n|" + "---|" * (len(finals) + 3))
    best = {kind: min(libraries, key=lambda name, row=row: row[name].mean()) for kind, row in finals.items()}
    for name in methods:
        cells = []
        for kind, row in finals.items():
            difference = row[name] - row[best[kind]]
            half = estimate(difference.tolist()).half
            cells.append(f"{row[name].mean():.0f} ({difference.mean():+.0f} ± {half:.0f})")
        total = sum(row[name].mean() for row in finals.values())
        print(f"| {name} | {' | '.join(cells)} | {total:.0f} | {seconds[name] / seconds['LinUCB alpha 1']:.1f} |")


if __name__ == "__main__":
    main()

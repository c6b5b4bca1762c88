"""LinUCB: one select + update against an inverse per selection (as in the authors' code) and public libraries.

Prints ratios from one run: both sides in turn on the same contexts, one BLAS thread, wall-clock time, median over
steps. Run:

    python benchmarks/bandit_speed.py            # d = 4096: the slow side takes some 20 s a step, minutes in all
    python benchmarks/bandit_speed.py --quick    # d = 1024, under 20 s

Two states of our side: cold, the first step after one of the slow side, which has emptied the caches as a training step
would; and warm, ten steps one after the other.

Choices are compared with the literal form on the way: over 1,500 steps at d = 64, and in every step timed against it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from laser.bandits.linucb import LinUCB
from laser.core.types import FloatArray

NUM_ARMS = 4
ALPHA = 0.1


class InversePerSelection:
    """Eq. 1 and 2 with d x d matrices and an inverse of every arm at every selection."""

    def __init__(self, dim: int) -> None:
        self.A = [np.eye(dim) for _ in range(NUM_ARMS)]
        self.b = [np.zeros(dim) for _ in range(NUM_ARMS)]

    def step(self, context: FloatArray, rewards: FloatArray) -> int:
        """Select, observe, update."""
        values = []
        for A, b in zip(self.A, self.b, strict=True):
            inverse = np.linalg.inv(A)
            values.append(context @ (inverse @ b) + ALPHA * np.sqrt(context @ inverse @ context))
        arm = int(np.argmax(values))
        self.A[arm] += np.outer(context, context)
        self.b[arm] += rewards[arm] * context
        return arm

    def learn(self, arm: int, contexts: FloatArray, rewards: FloatArray) -> None:
        """Eq. 2 for many pulls of one arm at once."""
        self.A[arm] += contexts.T @ contexts
        self.b[arm] += contexts.T @ rewards


class Ours:
    """laser's LinUCB."""

    def __init__(self, dim: int) -> None:
        self.bandit = LinUCB(NUM_ARMS, dim, alpha=ALPHA)

    def step(self, context: FloatArray, rewards: FloatArray) -> int:
        """Select, observe, update."""
        selection = self.bandit.select(context[None])
        arm = int(selection.arms_M[0])
        self.bandit.update(selection.id, rewards[[arm]])
        return arm

    def learn(self, arm: int, contexts: FloatArray, rewards: FloatArray) -> None:
        """Pulls of a given arm, one after the other."""
        for context, reward in zip(contexts, rewards, strict=True):
            selection = self.bandit.select(context[None], np.arange(NUM_ARMS) == arm)
            self.bandit.update(selection.id, np.array([reward]))


class Mabwiser:
    """mabwiser's LinUCB."""

    def __init__(self, dim: int) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self.mab = MAB(list(range(NUM_ARMS)), LearningPolicy.LinUCB(alpha=ALPHA, l2_lambda=1.0))
        self.mab.fit(list(range(NUM_ARMS)), [0.0] * NUM_ARMS, np.zeros((NUM_ARMS, dim)))

    def step(self, context: FloatArray, rewards: FloatArray) -> int:
        """Select, observe, update."""
        arm = int(self.mab.predict(context[None]))
        self.mab.partial_fit([arm], [rewards[arm]], context[None])
        return arm


class Paretobandit:
    """paretobandit's disjoint LinUCB."""

    def __init__(self, dim: int) -> None:
        from pareto_bandit.policy import DisjointLinUCBPolicy

        self.policy = DisjointLinUCBPolicy([str(arm) for arm in range(NUM_ARMS)], dim=dim, alpha=ALPHA)

    def step(self, context: FloatArray, rewards: FloatArray) -> int:
        """Select, observe, update."""
        arm = int(self.policy.select_arm(context)[0])
        self.policy.update(str(arm), context, float(rewards[arm]))
        return arm


class Contextualbandits:
    """contextualbandits' LinUCB in float64."""

    def __init__(self, dim: int) -> None:
        from contextualbandits.online import LinUCB as TheirLinUCB

        self.policy = TheirLinUCB(
            NUM_ARMS, alpha=ALPHA, lambda_=1.0, fit_intercept=False, use_float=False, ucb_from_empty=True, njobs=1
        )

    def step(self, context: FloatArray, rewards: FloatArray) -> int:
        """Select, observe, update."""
        arm = int(self.policy.predict(context[None])[0])
        self.policy.partial_fit(context[None], np.array([arm]), rewards[[arm]])
        return arm


class River:
    """river's disjoint LinUCB (another bonus, the same cost)."""

    def __init__(self, dim: int) -> None:
        from river.bandit import LinUCBDisjoint

        self.policy = LinUCBDisjoint(alpha=ALPHA)

    def step(self, context: FloatArray, rewards: FloatArray) -> int:
        """Select, observe, update."""
        features = dict(enumerate(context))
        arm = int(self.policy.pull(list(range(NUM_ARMS)), context=features))
        self.policy.update(arm, features, float(rewards[arm]))
        return arm


def stream(rounds: int, dim: int) -> tuple[FloatArray, FloatArray]:
    """Contexts of norm 20 with a common direction, as float32 hidden states, and a bandit reward for every arm."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(rounds, dim)) + 0.5
    rows = (20 * rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    theta = generator.normal(size=(dim, NUM_ARMS))
    return rows, 1 / (1 + np.exp(-(rows @ theta) / 20)) + 0.05 * generator.normal(size=(rounds, NUM_ARMS))


def seconds(step: Callable[[FloatArray, FloatArray], int], context: FloatArray, rewards: FloatArray) -> float:
    """Time of one step."""
    begin = time.perf_counter()
    step(context, rewards)
    return time.perf_counter() - begin


def compare_with_inverse(dim: int, repeats: int) -> None:
    """The headline: one step after t observations, even over arms. The inverse costs the same whatever t is."""
    print(f"\nselect + update, d = {dim}, K = {NUM_ARMS}, float64, one BLAS thread")
    for observations in (100, 200, 2000):
        rows, rewards = stream(observations + repeats, dim)
        ours, naive = Ours(dim), InversePerSelection(dim)
        for arm in range(NUM_ARMS):
            for each in (ours, naive):
                each.learn(arm, rows[:observations][arm::NUM_ARMS], rewards[:observations, arm][arm::NUM_ARMS])
        again = Ours(dim)
        again.bandit.load_state_dict(ours.bandit.state_dict())
        held, saved = ours.bandit.num_bytes, saved_bytes(ours)
        theirs, cold, warm, same = [], [], [], 0
        for context, reward_K in zip(rows[observations:], rewards[observations:], strict=True):
            begin = time.perf_counter()
            their_arm = naive.step(context, reward_K)
            middle = time.perf_counter()
            arm = ours.step(context, reward_K)
            cold.append(time.perf_counter() - middle)
            theirs.append(middle - begin)
            same += arm == their_arm
            warm += [seconds(again.step, context, reward_K) for _ in range(10)]
        slow = statistics.median(theirs)
        ratios = [
            f"{1e3 * fast:.2f} ms {name} = {slow / fast:,.0f} times faster"
            for name, fast in (("cold", statistics.median(cold)), ("warm", statistics.median(warm)))
        ]
        print(
            f"  t = {observations:4d}: {slow:.2f} s / {', '.join(ratios)}; {same} of {repeats} choices equal; "
            f"{held / 1e6:.1f} MB held, {saved / 1e6:.1f} MB saved",
            flush=True,
        )
    print(f"  the literal form holds {sum(row.nbytes for row in naive.A) / 1e6:.0f} MB at any t")


def saved_bytes(ours: Ours) -> int:
    """Bytes of the arrays in a checkpoint."""
    return sum(value.nbytes for value in ours.bandit.state_dict().values() if isinstance(value, np.ndarray))


def compare_with_libraries(dim: int, steps: int) -> None:
    """Median time per step of every library present, ours in turn with it."""
    print(f"\nagainst libraries, select + update, d = {dim}, t from 0 to {steps}")
    rows, rewards = stream(steps, dim)
    for kind in (Mabwiser, Paretobandit, Contextualbandits, River):
        try:
            theirs = kind(dim)
        except ImportError:
            print(f"  {kind.__name__.lower():18s} skipped: not installed")
            continue
        ours = Ours(dim)
        pairs = [(seconds(theirs.step, c, r), seconds(ours.step, c, r)) for c, r in zip(rows, rewards, strict=True)]
        slow, fast = (statistics.median(side) for side in zip(*pairs, strict=True))
        times = f"{1e3 * slow:8.2f} ms / {1e3 * fast:.3f} ms"
        print(f"  {kind.__name__.lower():18s} {times} = {slow / fast:>9,.1f} times faster", flush=True)


def compare_choices(dim: int, steps: int) -> None:
    """The same choices as the literal form, once each arm has been pulled (ties differ before)."""
    rows, rewards = stream(steps, dim)
    ours, naive = Ours(dim), InversePerSelection(dim)
    for arm in range(NUM_ARMS):
        for each in (ours, naive):
            each.learn(arm, rows[[arm]], rewards[[arm], arm])
    chosen = [(ours.step(c, r), naive.step(c, r)) for c, r in zip(rows[NUM_ARMS:], rewards[NUM_ARMS:], strict=True)]
    same = sum(a == b for a, b in chosen)
    counts = np.bincount([a for a, _ in chosen], minlength=NUM_ARMS).tolist()
    print(f"choices: {same} of {len(chosen)} equal to the literal form at d = {dim} (pulls per arm {counts})")


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="d = 1024 instead of 4096")
    quick = parser.parse_args().quick
    with threadpool_limits(1):
        compare_choices(64, 1500)
        compare_with_inverse(1024 if quick else 4096, 3)
        compare_with_libraries(256 if quick else 1024, 12 if quick else 200)
        if not quick:
            compare_with_libraries(4096, 12)


if __name__ == "__main__":
    main()

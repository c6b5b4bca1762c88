"""LinUCB: one select + update against an inverse per selection (as in the authors' code) and public libraries.

Prints ratios from one run: both sides in turn on the same contexts, one BLAS thread, median over steps. Run:

    python benchmarks/bandit_speed.py            # d = 4096: the slow side takes some 20 s a step
    python benchmarks/bandit_speed.py --quick    # d = 1024, a minute

Choices are compared with the literal form on the way (at the smaller d, where it can take many steps).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from laser.bandits.linucb import LinUCB
from laser.types import FloatArray

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

    def force(self, arm: int, context: FloatArray, reward: float) -> None:
        """One pull of a given arm."""
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


def filled(dim: int, observations: int) -> tuple[Ours, FloatArray, FloatArray]:
    """Our bandit after some observations, and fresh rounds to time."""
    rows, rewards = stream(observations + 60, dim)
    ours = Ours(dim)
    for index in range(observations):
        arm = index % NUM_ARMS
        ours.force(arm, rows[index], float(rewards[index, arm]))
    return ours, rows[observations:], rewards[observations:]


def compare_with_inverse(dim: int, repeats: int) -> None:
    """Ratios at growing numbers of observations; the inverse costs the same whatever has been observed."""
    print(f"\nselect + update, d = {dim}, K = {NUM_ARMS}, float64, one BLAS thread")
    naive = InversePerSelection(dim)
    rows, rewards = stream(repeats, dim)
    for observations in (100, 200, 2000):
        ours, fresh, fresh_rewards = filled(dim, observations)
        theirs = [seconds(naive.step, rows[i], rewards[i]) for i in range(repeats)]
        mine = [seconds(ours.step, fresh[i], fresh_rewards[i]) for i in range(60)]
        ratio = statistics.median(theirs) / statistics.median(mine)
        print(f"  t = {observations:5d}: {ratio:>10,.0f} times faster than an inverse per selection", flush=True)
    state = ours.bandit.state_dict()
    size = sum(value.nbytes for value in state.values() if isinstance(value, np.ndarray)) / 1e6
    held = sum(row.nbytes for row in naive.A) / 1e6
    print(f"  state after {observations + 60} observations: {size:.1f} MB (matrices: {held:.0f} MB)")


def compare_with_libraries(dim: int, steps: int) -> None:
    """Median time per step of every library present, ours in turn with it."""
    print(f"\nagainst libraries, d = {dim}, t up to {steps}")
    rows, rewards = stream(steps, dim)
    for kind in (Mabwiser, Paretobandit, Contextualbandits, River):
        try:
            theirs = kind(dim)
        except ImportError:
            print(f"  {kind.__name__.lower():18s} skipped: not installed")
            continue
        ours = Ours(dim)
        pairs = [(seconds(theirs.step, c, r), seconds(ours.step, c, r)) for c, r in zip(rows, rewards, strict=True)]
        ratio = statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)
        print(f"  {kind.__name__.lower():18s} {ratio:>10,.1f} times faster", flush=True)


def compare_choices(dim: int, steps: int) -> None:
    """The same choices as the literal form, once each arm has been pulled (ties differ before)."""
    rows, rewards = stream(steps, dim)
    ours, naive = Ours(dim), InversePerSelection(dim)
    for arm in range(NUM_ARMS):
        ours.force(arm, rows[arm], float(rewards[arm, arm]))
        naive.A[arm] += np.outer(rows[arm], rows[arm])
        naive.b[arm] += rewards[arm, arm] * rows[arm]
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
        compare_with_inverse(1024 if quick else 4096, 5 if quick else 3)
        compare_with_libraries(256 if quick else 1024, 12 if quick else 24)


if __name__ == "__main__":
    main()

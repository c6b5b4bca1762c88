"""Selectors that do not learn (arXiv 2410.01735, Sec. 4.1): fixed, random, sequential, frozen (CS-LASeR)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from laser.bandits.arm_selector import ArmSelector, Judgement, Observations
from laser.bandits.base import Selector
from laser.core.types import BoolArray, FloatArray, Selection, StateDict


class Unlearning(ArmSelector):
    """Base of selectors that close their selections and learn nothing."""

    def learn(self, seen: Observations) -> None:
        """Nothing is learned."""

    def learned_state(self) -> StateDict:
        """Nothing."""
        return {}

    def load_learned_state(self, state: StateDict) -> None:
        """Nothing to restore."""


class Fixed(Unlearning):
    """Always the same reward model: the paper's Best RM baseline, and one run of Avg. RM.

    Args:
        num_arms: K.
        arm: Which one, from 0.

    Raises:
        ValueError: There is no such arm.
    """

    kind = "fixed"

    def __init__(self, num_arms: int, arm: int) -> None:
        if not 0 <= arm < num_arms:
            raise ValueError(f"arm {arm} is not one of {num_arms}")
        super().__init__(num_arms, settings={"arm": arm})
        self._weights_K = np.eye(num_arms)[arm]

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """The fixed arm for every row; raises ValueError if it is not available."""
        if not available_K[self._weights_K.argmax()]:
            raise ValueError("the fixed arm is not available")
        weights_MK = np.tile(self._weights_K, (len(contexts_MD), 1))
        return Judgement(np.zeros_like(weights_MK), weights_MK)


class UniformRandom(Unlearning):
    """A uniformly random available reward model for every row: the paper's random baseline.

    Args:
        num_arms: K.
        seed: Seeds the draws.
    """

    kind = "random"

    def __init__(self, num_arms: int, *, seed: int = 0) -> None:
        super().__init__(num_arms, seed=seed)

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """Equal probabilities."""
        probabilities_MK = np.tile(available_K / available_K.sum(), (len(contexts_MD), 1))
        return Judgement(np.zeros_like(probabilities_MK), probabilities_MK)


class Sequential(Unlearning):
    """The reward models in a set order, each for a number of selections: the paper's sequential baseline.

    Args:
        num_arms: K.
        order: Arms in their order; it starts again at the end.
        every: Selections before the next arm's turn: 1 switches every batch, T every iteration.

    Raises:
        ValueError: The order is empty or names an arm that does not exist, or `every` is below 1.
    """

    kind = "sequential"

    def __init__(self, num_arms: int, order: Sequence[int], *, every: int = 1) -> None:
        if not order or min(order) < 0 or max(order) >= num_arms or every < 1:
            raise ValueError(f"need an order of arms below {num_arms} and every >= 1: {tuple(order)}, {every}")
        super().__init__(num_arms, settings={"order": ",".join(map(str, order)), "every": every})
        self._order = tuple(order)
        self._every = every
        self._num_selections = 0

    def judge(self, contexts_MD: FloatArray, available_K: BoolArray) -> Judgement:
        """The arm whose turn it is, or the next in order that is available."""
        turn = self._num_selections // self._every
        self._num_selections += 1
        arms = [self._order[(turn + ahead) % len(self._order)] for ahead in range(len(self._order))]
        arm = next((arm for arm in arms if available_K[arm]), int(available_K.argmax()))
        weights_MK = np.tile(np.eye(self.num_arms)[arm], (len(contexts_MD), 1))
        return Judgement(np.zeros_like(weights_MK), weights_MK)

    def learned_state(self) -> StateDict:
        """How far the order has come."""
        return {"num_selections": self._num_selections}

    def load_learned_state(self, state: StateDict) -> None:
        """Restore the place in the order."""
        self._num_selections = int(state["num_selections"])


class Frozen:
    """A selector that chooses and never learns: CS-LASeR, a bandit trained on other data (Table 5).

    Args:
        inner: The trained selector, its state already loaded.
    """

    def __init__(self, inner: Selector) -> None:
        self._inner = inner

    @property
    def inner(self) -> Selector:
        """The trained selector."""
        return self._inner

    @property
    def num_arms(self) -> int:
        """K."""
        return self._inner.num_arms

    def select(self, contexts_MD: FloatArray, available_K: BoolArray | None = None) -> Selection:
        """Choose as the trained selector would."""
        return self._inner.select(contexts_MD, available_K)

    def update(self, selection_id: int, bandit_rewards_E: FloatArray) -> None:
        """Close the selection; nothing is learned."""
        self._inner.expire(selection_id)

    def expire(self, selection_id: int) -> None:
        """Close the selection."""
        self._inner.expire(selection_id)

    def state_dict(self) -> StateDict:
        """The trained selector's state."""
        return self._inner.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the trained selector's state."""
        self._inner.load_state_dict(state)

"""How a router chooses: features of a prompt, probabilities of the selector, and a draw at a fixed address."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from laser.bandits.arm_selector import ArmSelector
from laser.bandits.baselines import Frozen
from laser.bandits.context import ContextPreparer
from laser.config import RouterConfig
from laser.core.errors import ConfigError
from laser.core.seeding import stream
from laser.core.types import FloatArray, Prompt
from laser.rewards.pool import RewardPool
from laser.router.groups import Group
from laser.training.availability import available, cannot_choose
from laser.training.embedders import Embedder
from laser.wiring import build_contexts, build_embedder, build_selector

_CURE = "fix them and resume"
_KEPT = 4096  # prompts whose features are kept in memory


@dataclass(frozen=True, slots=True)
class Choice:
    """The reward model of a prompt.

    Attributes:
        arm: Its number in the pool.
        name: Its name.
        probability: With which it was chosen.
    """

    arm: int
    name: str
    probability: float


class Chooser:
    """Draws reward models from what its selector has learned; choosing changes nothing.

    Args:
        config: The configuration.
        pool: The reward models, some of which may be in quarantine.

    Attributes:
        contexts: Prepares the features.
        selector: Gives the probabilities.
    """

    def __init__(self, config: RouterConfig, pool: RewardPool) -> None:
        self._pool, self._seed = pool, config.seed
        self._embedder: Embedder = build_embedder(config.context)
        self.contexts: ContextPreparer = build_contexts(config, dim=self._embedder.context_dim)
        made = build_selector(config, self.contexts)
        selector = made.inner if isinstance(made, Frozen) else made
        if not isinstance(selector, ArmSelector):
            raise ConfigError(
                f"selector.factory made a {type(selector).__name__}, and a router asks for the probabilities of its "
                "choices; derive it from laser.extend.ArmSelector"
            )
        self.selector: ArmSelector = selector
        self._features: OrderedDict[tuple[str, str], FloatArray] = OrderedDict()

    def choose(self, prompt: Prompt, step: int) -> Group:
        """A new group, with the reward model drawn for it.

        Raises:
            TrainingError: No reward model is left.
        """
        embedding_D = self.embed(prompt)
        arm, probability = self._draw(prompt.id, embedding_D, step)
        return Group(arm, probability, prompt.category, embedding_D)

    def choose_again(self, key: str, group: Group, step: int) -> None:
        """Choose among the reward models that are left; nothing of what the one before said is kept."""
        group.arm, group.probability = self._draw(key, group.embedding_D, step)
        group.scores, group.right = [], []

    def embed(self, prompt: Prompt) -> FloatArray:
        """Features of a prompt, not prepared, shape (D,)."""
        place = (prompt.id, prompt.category)
        if place not in self._features:
            self._features[place] = self._embedder.embed([prompt])[0]
            if len(self._features) > _KEPT:
                self._features.popitem(last=False)
        self._features.move_to_end(place)
        return self._features[place]

    def _draw(self, key: str, embedding_D: FloatArray, step: int) -> tuple[int, float]:
        """An available arm and its probability, drawn at the address of the step and the prompt."""
        available_K = available(self._pool, _CURE)
        try:
            probabilities_K = self.selector.propensities(self.contexts.prepared(embedding_D[None]), available_K)[0]
        except ValueError as error:  # a fixed selector whose reward model is in quarantine
            raise cannot_choose(error, self._pool, _CURE) from error
        options = np.flatnonzero(probabilities_K)
        if len(options) == 1:
            return int(options[0]), float(probabilities_K[options[0]])
        words = [int(key[begin : begin + 8], 16) for begin in range(0, 32, 8)]
        weights = probabilities_K[options] / probabilities_K[options].sum()
        arm = int(stream(self._seed, "router", step, *words).choice(options, p=weights))
        return arm, float(probabilities_K[arm])

"""Custom parts of a run: Python factories that the configuration names as ``path.py:function``."""

from __future__ import annotations

from typing import Any, cast

from laser.bandits.base import Feedback, Selector
from laser.core.errors import ConfigError, RewardModelError
from laser.policy.generation import Generator
from laser.policy.policy import Policy
from laser.rewards.custom import CustomRM
from laser.rewards.pool import RewardPool
from laser.rewards.undisturbed import said
from laser.rewards.user_code import UserCode
from laser.rewards.user_files import folder_of, load_function
from laser.training.signals import Signal


class _Part:
    """A custom part that cannot end the program: `SystemExit`, `CancelledError` and the like become a sentence."""

    def __init__(self, made: Any, where: str) -> None:
        self._made = made
        self._where = where

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._made, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return value(*args, **kwargs)
            except (Exception, KeyboardInterrupt):
                raise
            except BaseException as error:
                raise ConfigError(f"{self._where} raised {said(error)} in {name}(); fix it") from error

        return call


_STATE = ("state_dict", "load_state_dict")


def custom_selector(factory: str, num_arms: int, dim: int, seed: int) -> Selector:
    """Call ``factory(num_arms, dim, seed)``. Raises ConfigError."""
    made = _make("selector", factory, (num_arms, dim, seed), ("num_arms", "select", "update", "expire", *_STATE))
    if made.num_arms != num_arms:
        raise ConfigError(
            f"selector.factory {factory} made a selector of {made.num_arms} arms for {num_arms} reward models"
        )
    return cast(Selector, _Part(made, f"selector.factory {factory}"))


def custom_feedback(factory: str) -> Feedback:
    """Call ``factory()``. Raises ConfigError."""
    return cast(Feedback, _Part(_make("feedback", factory, (), ("scale", *_STATE)), f"feedback.factory {factory}"))


def custom_signal(factory: str, pool: RewardPool) -> Signal:
    """Call ``factory(pool)``. Raises ConfigError."""
    return cast(
        Signal, _Part(_make("signal", factory, (pool,), ("prepare", "measure", *_STATE)), f"signal.factory {factory}")
    )


def custom_generator(factory: str, policy: Policy) -> Generator:
    """Call ``factory(policy)``. Raises ConfigError."""
    return cast(
        Generator, _Part(_make("generation", factory, (policy,), ("generate",)), f"generation.factory {factory}")
    )


def custom_reward_model(name: str, factory: str, code: UserCode) -> CustomRM:
    """Call ``factory()``; whatever the reward model raises later counts as its failure. Raises RewardModelError."""
    try:
        return CustomRM(_make("", factory, (), ("score", "release", "park", "unpark")), name, code)
    except ConfigError as error:
        raise RewardModelError(str(error)) from error


def _make(section: str, factory: str, arguments: tuple[object, ...], needed: tuple[str, ...]) -> Any:
    where = f"{section}.factory {factory}" if section else f"factory {factory}"
    try:
        function: Any = load_function(factory)
        made = UserCode(where, folder=folder_of(factory)).call(lambda: function(*arguments))
    except RewardModelError as error:
        raise ConfigError(str(error) if factory in str(error) else f"{where}: {error}") from error
    missing = [name for name in needed if not hasattr(made, name)]
    if missing:
        raise ConfigError(
            f"{where} made a {type(made).__name__} without {', '.join(missing)}; add them as in docs/extend.md"
        )
    return made

"""Python functions as reward models."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import numbers
import operator
import reprlib
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from laser.core.errors import RewardModelError
from laser.core.types import FloatArray, Prompt
from laser.rewards.base import NoWeights
from laser.rewards.user_code import TimeLimit, TimeLimitError

RewardFunction = Callable[[list[Prompt], list[str]], Sequence[float | None]]
"""Called with flat lists of equal length; returns one number per response, None where it has no opinion."""


class FunctionRM(NoWeights):
    """Scores with a Python function.

    Args:
        function: See `RewardFunction`.
        name: What error messages call it.
        timeout: Seconds a call may take, as in `laser.rewards.user_code.TimeLimit`; None: any time.
        busy: See there.
    """

    def __init__(
        self,
        function: RewardFunction,
        name: str,
        *,
        timeout: float | None = None,
        busy: threading.Lock | None = None,
    ) -> None:
        self._function = function
        self._name = name
        self._limit = TimeLimit(timeout, busy)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. None becomes NaN.

        Raises:
            RewardModelError: The function raised, or returned another number of scores or something that is no number.
        """
        flat_prompts = [prompt for prompt, row in zip(prompts, responses, strict=True) for _ in row]
        flat_responses = [text for row in responses for text in row]
        try:
            ask = self._limit.call
            returned = ask(lambda: _listed(self._function(flat_prompts, flat_responses))) if flat_responses else []
        except TimeLimitError as error:
            raise RewardModelError(
                f"reward function {self._name!r} took longer than {self._limit.seconds:g} s; speed it up or raise "
                "its timeout"
            ) from error
        except (Exception, SystemExit) as error:  # the function is the user's: whatever it raises is told with its name
            raise RewardModelError(f"reward function {self._name!r} raised {type(error).__name__}: {error}") from error
        if not isinstance(returned, list):
            raise RewardModelError(
                f"reward function {self._name!r} returned {reprlib.repr(returned)}; return one score per response"
            )
        if len(returned) != len(flat_responses):
            raise RewardModelError(
                f"reward function {self._name!r} returned {len(returned)} scores for "
                f"{len(flat_responses)} responses; return one each"
            )
        flat = np.array([self._number(value) for value in returned], dtype=np.float64)
        return np.split(flat, np.cumsum([len(row) for row in responses])[:-1]) if len(responses) else []

    def release(self) -> None:
        """Nothing to drop."""

    def _number(self, value: Any) -> float:
        if value is None:
            return float("nan")
        if isinstance(value, numbers.Real | np.bool_):
            try:
                return float(value)
            except OverflowError:  # an integer beyond the largest float
                return math.inf if operator.gt(value, 0) else -math.inf
        raise RewardModelError(
            f"reward function {self._name!r} returned {reprlib.repr(value)}, a {type(value).__name__}; "
            "return numbers, or None for no opinion"
        )


def _listed(returned: Any) -> Any:
    """Scores as a list, where they are several at all; generators run here."""
    return list(returned) if isinstance(returned, Iterable) else returned


def load_function(spec: str) -> RewardFunction:
    """Import a reward function from a file.

    Args:
        spec: ``path.py:function``.

    Raises:
        RewardModelError: The file or function is missing, fails to import, or is not callable.
    """
    path, name = _parts(spec)
    module_spec = importlib.util.spec_from_file_location(f"laser_reward_{_digest(path)[:12]}", path)
    if module_spec is None or module_spec.loader is None:
        raise RewardModelError(f"{path} is not a Python file; write path.py:function")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # where dataclasses look up the names in their annotations
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:  # a user's module raises what it likes
        del sys.modules[module_spec.name]
        raise RewardModelError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if function is None:
        raise RewardModelError(f"{path} has no function {name!r}; check the name after the colon")
    if not callable(function):
        raise RewardModelError(f"{name!r} in {path} is not a function but a {type(function).__name__}")
    return function


def function_fingerprint(spec: str) -> str:
    """Identity of a reward function: its name and the SHA-256 of its file."""
    path, name = _parts(spec)
    return f"function:{name}:{_digest(path)}"


def _parts(spec: str) -> tuple[Path, str]:
    file, separator, name = spec.rpartition(":")
    if not separator or not file or not name:
        raise RewardModelError(f"{spec!r} is not of the form path.py:function")
    path = Path(file)
    if not path.is_file():
        raise RewardModelError(f"Python file {path} does not exist; check the path")
    return path, name


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""Python functions as reward models."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import numbers
import operator
import queue
import reprlib
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from laser.errors import RewardModelError
from laser.rewards.base import Weightless
from laser.types import FloatArray, Prompt

RewardFunction = Callable[[list[Prompt], list[str]], Sequence[float | None]]
"""Called with flat lists of equal length; returns one number per response, None where it has no opinion."""


class _TookTooLongError(Exception):
    """A call did not end in time."""


class FunctionRM(Weightless):
    """Scores with a Python function.

    Args:
        function: See `RewardFunction`.
        name: What error messages call it.
        timeout: Seconds a call may take; None: any time. A call that takes longer counts as failed; Python cannot
            stop it, so it goes on in a thread of its own, and the next call waits for it, as long again at most: the
            function never runs twice at once, and one that hangs holds one thread, not one a call.
        busy: Held while the function runs; shared by all that call it.
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
        self._timeout = timeout
        self._busy = busy or threading.Lock()

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Score responses; see `RewardModel.score`. None becomes NaN.

        Raises:
            RewardModelError: The function raised, or returned another number of scores or something that is no number.
        """
        flat_prompts = [prompt for prompt, row in zip(prompts, responses, strict=True) for _ in row]
        flat_responses = [text for row in responses for text in row]
        try:
            returned = self._call(flat_prompts, flat_responses) if flat_responses else []
        except _TookTooLongError as error:
            raise RewardModelError(
                f"reward function {self._name!r} took longer than {self._timeout:g} s; speed it up or raise its timeout"
            ) from error
        except (Exception, SystemExit) as error:  # the function is the user's: whatever it raises is told with its name
            raise RewardModelError(f"reward function {self._name!r} raised {type(error).__name__}: {error}") from error
        if len(returned) != len(flat_responses):
            raise RewardModelError(
                f"reward function {self._name!r} returned {len(returned)} scores for "
                f"{len(flat_responses)} responses; return one each"
            )
        flat = np.array([self._number(value) for value in returned], dtype=np.float64)
        return np.split(flat, np.cumsum([len(row) for row in responses])[:-1]) if len(responses) else []

    def release(self) -> None:
        """Nothing to drop."""

    def _call(self, prompts: list[Prompt], responses: list[str]) -> list[float | None]:
        if self._timeout is None:
            return list(self._function(prompts, responses))
        if not self._busy.acquire(timeout=self._timeout):
            raise _TookTooLongError
        outcome: queue.Queue[list[float | None] | BaseException] = queue.Queue()

        def work() -> None:
            try:
                outcome.put(list(self._function(prompts, responses)))
            except (Exception, SystemExit) as error:  # raised again by the caller
                outcome.put(error)
            finally:
                self._busy.release()

        threading.Thread(target=work, daemon=True).start()
        try:
            result = outcome.get(timeout=self._timeout)
        except queue.Empty:
            raise _TookTooLongError from None
        if isinstance(result, BaseException):
            raise result
        return result

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

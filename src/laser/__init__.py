"""laser: train language models with several reward models, learning which one to trust.

`train`, `resume`, `evaluate`, `win_rates` and `Chat` do what the command line does; `load_config`, `parse_config` and
`load_judge` make their configuration. The parts of the loop are in the subpackages and can be used on their own. Names
are imported when first used, so that ``import laser`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laser.api import RunResult, resume, train
    from laser.chatting import Chat
    from laser.config import RunConfig, load_config, parse_config
    from laser.config.judge import load_judge
    from laser.evaluating import evaluate
    from laser.judging import win_rates

__version__ = "0.1.0"
__all__ = [
    "Chat",
    "RunConfig",
    "RunResult",
    "evaluate",
    "load_config",
    "load_judge",
    "parse_config",
    "resume",
    "train",
    "win_rates",
]

_HOMES = {
    "Chat": "laser.chatting",
    "RunConfig": "laser.config",
    "RunResult": "laser.api",
    "evaluate": "laser.evaluating",
    "load_config": "laser.config",
    "load_judge": "laser.config.judge",
    "parse_config": "laser.config",
    "resume": "laser.api",
    "train": "laser.api",
    "win_rates": "laser.judging",
}


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'laser' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

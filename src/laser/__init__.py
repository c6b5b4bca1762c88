"""laser: train language models with several reward models, learning which one to trust.

Every name here does what a command does, or makes its configuration; `laser.extend` has what custom parts are made
from. Everything else is private. Names are imported on first use, so that ``import laser`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laser.commands.best_of_n import best_of_n
    from laser.commands.chat import Chat
    from laser.commands.evaluate import evaluate
    from laser.commands.judge import win_rates
    from laser.commands.label import label
    from laser.commands.probe import probe
    from laser.commands.rewardbench import rewardbench
    from laser.commands.sft import resume_sft, sft
    from laser.commands.train import RunResult, resume, train
    from laser.commands.train_classifier import train_classifier
    from laser.config import RunConfig, load_config, parse_config
    from laser.config.judge import load_judge
    from laser.core.errors import LaserError
    from laser.router.router import Router

    __version__: str

_HOMES = {
    "Chat": "laser.commands.chat",
    "LaserError": "laser.core.errors",
    "Router": "laser.router.router",
    "RunConfig": "laser.config",
    "RunResult": "laser.commands.train",
    "best_of_n": "laser.commands.best_of_n",
    "evaluate": "laser.commands.evaluate",
    "label": "laser.commands.label",
    "load_config": "laser.config",
    "load_judge": "laser.config.judge",
    "parse_config": "laser.config",
    "probe": "laser.commands.probe",
    "resume": "laser.commands.train",
    "resume_sft": "laser.commands.sft",
    "sft": "laser.commands.sft",
    "rewardbench": "laser.commands.rewardbench",
    "train": "laser.commands.train",
    "train_classifier": "laser.commands.train_classifier",
    "win_rates": "laser.commands.judge",
}

__all__ = [  # spelled out for type checkers; a test holds it equal to the names above
    "Chat",
    "LaserError",
    "Router",
    "RunConfig",
    "RunResult",
    "best_of_n",
    "evaluate",
    "label",
    "load_config",
    "load_judge",
    "parse_config",
    "probe",
    "resume",
    "resume_sft",
    "rewardbench",
    "sft",
    "train",
    "train_classifier",
    "win_rates",
]


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from laser.core.version import version

        return version()
    if name not in _HOMES:
        raise AttributeError(f"module 'laser' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

"""laser: train language models with several reward models, learning which one to trust.

`train` and `resume` do what the command line does; `load_config` and `parse_config` make their configuration. The parts
of the loop are in the subpackages and can be used on their own. Names are imported when first used, so that
``import laser`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laser.api import RunResult, resume, train
    from laser.config import RunConfig, load_config, parse_config

__version__ = "0.1.0"
__all__ = ["RunConfig", "RunResult", "load_config", "parse_config", "resume", "train"]

_HOMES = {
    "RunConfig": "laser.config",
    "RunResult": "laser.api",
    "load_config": "laser.config",
    "parse_config": "laser.config",
    "resume": "laser.api",
    "train": "laser.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'laser' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

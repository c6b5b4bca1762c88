"""The records of `laser.extend` under the path that custom parts of laser 0.1 import; removed in 0.3."""

from __future__ import annotations

import warnings

from laser.core.types import *  # noqa: F403

warnings.warn(
    "laser.types will be removed in 0.3; import its names from laser.extend", DeprecationWarning, stacklevel=2
)

"""The version of this installation, from its package metadata."""

from __future__ import annotations

import importlib.metadata

DISTRIBUTION = "laser-rm"


def version() -> str:
    """Version of the installed distribution, such as ``0.2.0``."""
    return importlib.metadata.version(DISTRIBUTION)

"""Telling two configurations apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from laser.config.schema import RunConfig


def first_difference(stored: RunConfig, given: RunConfig) -> str | None:
    """Return a clause naming the first field in which two configurations differ, or None if they are equal."""
    return _difference(stored.model_dump(mode="json"), given.model_dump(mode="json"), "")


def _difference(stored: Any, given: Any, where: str) -> str | None:
    if isinstance(stored, Mapping) and isinstance(given, Mapping):
        for key in [*stored, *(key for key in given if key not in stored)]:
            found = _difference(stored.get(key), given.get(key), f"{where}.{key}" if where else key)
            if found is not None:
                return found
        return None
    if isinstance(stored, list) and isinstance(given, list) and len(stored) == len(given):
        clauses = (
            _difference(a, b, f"{where}.{index}") for index, (a, b) in enumerate(zip(stored, given, strict=True))
        )
        return next((clause for clause in clauses if clause is not None), None)
    return None if stored == given else f"{where} is {given!r}, but the run was started with {stored!r}"

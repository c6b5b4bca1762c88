"""Laying one configuration table over another."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from laser.core.errors import ConfigError

Table = dict[str, Any]

EVERY = "*"
"""In a patch on a list of named tables: all of them."""


def merged(table: Mapping[str, Any], patch: Mapping[str, Any], *, where: str = "patch") -> Table:
    """The table with a patch laid over it, section by section; both stay as they are.

    A section of another `type` replaces the old one. A list of named tables (`rewards.models`) is patched by a table of
    names: ``{zephyr = {noise = 0.1}}`` changes one entry, ``{"*" = {noise = 0.1}}`` all, and a new name with a `type`
    is added at the end. Any other value replaces the old one.

    Args:
        table: The table below.
        patch: What is laid over it.
        where: What error messages call the patch.

    Raises:
        ConfigError: A list is patched under a name that it does not hold.
    """
    result = dict(table)
    for key, value in patch.items():
        old = result.get(key)
        if not isinstance(value, Mapping):
            result[key] = value
        elif isinstance(old, list | tuple):
            result[key] = _patched_list(old, value, f"{where}.{key}")
        elif isinstance(old, Mapping) and value.get("type", old.get("type")) == old.get("type"):
            result[key] = merged(old, value, where=f"{where}.{key}")
        else:
            result[key] = dict(value)
    return result


def _patched_list(items: Sequence[Any], patch: Mapping[str, Any], where: str) -> list[Any]:
    result = [dict(item) for item in items]
    names = [str(item.get("name")) for item in result]
    for name, change in patch.items():
        if name == EVERY:
            result = [merged(item, change, where=where) for item in result]
        elif name in names:
            result[names.index(name)] = merged(result[names.index(name)], change, where=f"{where}.{name}")
        elif "type" in change:
            result.append({"name": name, **change})
        else:
            raise ConfigError(f"{where}: there is no {name!r} ({nearest(name, names)}); a new one needs a type")
    return result


def nearest(name: str, known: Sequence[str]) -> str:
    """A clause that helps with a mistyped name."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else f"there are {', '.join(known)}"

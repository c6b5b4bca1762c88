"""Configurations and suites for tests: TOML from Python values."""

import json
from pathlib import Path

from laser.config.suite import load_suite


def toml(value):
    """A TOML value: JSON's, but for tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def write_toml(path, table):
    path.write_text("".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in table.items()), encoding="utf-8")
    return path


def read_suite(folder, table):
    return load_suite(write_toml(folder / "suite.toml", table))

"""The file that ``--out`` names for results: found fit to be written before any work, and written whole."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.files import atomic_write, to_json

Kind = frozenset[str]
"""Top-level keys by which the results of a command are known."""

MEASURED = frozenset({"metric", "policies"})
JUDGED = frozenset({"baseline", "judged"})


def results_file(
    out: str | Path | None, *, inputs: Sequence[str | Path | None] = (), replaces: Sequence[Kind] = ()
) -> Path | None:
    """Make sure that results can be written to `out` and that nothing but earlier results is lost; make its folder.

    Args:
        out: The file; None: results are not kept.
        inputs: What the command reads; None stands for nothing.
        replaces: Kinds of results that may be there and are replaced; none: no file may be there.

    Returns:
        The file.

    Raises:
        ConfigError: It is a folder, an input, no .json file, or holds something else.
        RunDirectoryError: It cannot be written.
    """
    if out is None:
        return None
    path = Path(out)
    if path.is_dir():
        raise ConfigError(f"{out} is a folder; name a .json file in it for the results")
    if path.exists() and any(Path(one).exists() and path.samefile(one) for one in inputs if one is not None):
        raise ConfigError(f"{out} is one of the inputs; choose another --out")
    if path.suffix != ".json":
        raise ConfigError(f"{out} does not end in .json, as results do; choose another --out")
    if path.exists() and not replaces:
        raise ConfigError(f"{out} exists already; choose another --out")
    if path.exists() and not any(kind <= _keys(path) for kind in replaces):
        raise ConfigError(f"{out} holds something else than results of this command; choose another --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise _unwritable(path, error) from error


def write_results(path: Path, record: Mapping[str, Any]) -> None:
    """Write results as JSON, so that a reader sees the old ones or the new ones; NaN becomes null.

    Raises:
        RunDirectoryError: They cannot be written.
    """
    try:
        atomic_write(path, (json.dumps(to_json(record), indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise _unwritable(path, error) from error


def _keys(path: Path) -> Kind:
    """Top-level keys of a JSON object; none where the file holds no such thing."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return frozenset()
    return frozenset(content) if isinstance(content, dict) else frozenset()


def _unwritable(path: Path, error: OSError) -> RunDirectoryError:
    return RunDirectoryError(f"cannot write to {path} ({error.strerror}); choose another --out")

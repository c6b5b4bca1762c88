"""Whether laser may write where ``--out`` says, asked before any work is done."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.files import in_words, is_leftover, read_bytes, read_json, write_json

Kind = frozenset[str]
"""Top-level keys by which the results of a command are known."""

MEASURED = frozenset({"metric", "policies"})
JUDGED = frozenset({"baseline", "judged"})

_CURE = "choose another --out"


def default_out(name: str = "run") -> Path:
    """A fresh folder name under ``runs/``, from the current time."""
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def check_free(folder: Path, *, besides: Collection[str] = ()) -> None:
    """Make sure that a folder is new, or empty besides such files, and can be written to; changes nothing.

    Raises:
        RunDirectoryError: A file or other files are there, or no folder can be made there.
    """
    with in_words("use", folder, _CURE):  # too long a name, or under a folder that may not be entered
        if folder.exists() and not folder.is_dir():
            raise RunDirectoryError(f"{folder} is a file; choose a folder for --out")
        if folder.is_dir() and _others(folder, besides):
            raise RunDirectoryError(f"{folder} is not empty; choose another --out")
        _check_writable(folder)


def claimed_by(folder: Path, record: str, *, besides: Collection[str] = ()) -> Mapping[str, Any] | None:
    """What the job that `folder` belongs to wrote into its record; None where the folder is free. Changes nothing.

    Args:
        folder: The folder.
        record: Name of the JSON file by which such a job knows its folder.
        besides: Names of files that do not count: a folder without any other is free to everyone.

    Raises:
        RunDirectoryError: The folder is a file, holds files of something else, or cannot be used.
    """
    with in_words("use", folder, _CURE):
        if folder.is_dir() and _others(folder, besides) and (folder / record).is_file():
            return read_json(folder / record)
    check_free(folder, besides=besides)
    return None


def claim(folder: Path, record: str, content: Mapping[str, Any]) -> None:
    """Make a folder where it is missing, and write down whose it is.

    Raises:
        RunDirectoryError: It cannot be written.
    """
    with in_words("write to", folder, _CURE):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / record, content)


def output_file(
    out: str | Path,
    *,
    suffix: str = "",
    inputs: Sequence[str | Path | None] = (),
    replaces: Sequence[Kind] = (),
) -> Path:
    """The file, absolute, after its folder is made: it can be written, and nothing but earlier results is lost.

    Args:
        out: The file.
        suffix: How its name must end.
        inputs: What the command reads; None stands for nothing.
        replaces: Kinds of results that may be there and are replaced; none: no file may be there.

    Raises:
        ConfigError: It is a folder, an input, has another suffix, or holds something else.
        RunDirectoryError: It cannot be written.
    """
    path = Path(out).absolute()  # a reward function may change the working directory
    with in_words("write to", path, _CURE):
        if path.is_dir():
            raise ConfigError(f"{out} is a folder; name a {suffix or 'new'} file in it")
        if path.exists() and any(Path(one).exists() and path.samefile(one) for one in inputs if one is not None):
            raise ConfigError(f"{out} is one of the inputs; choose another --out")
        if suffix and path.suffix != suffix:
            raise ConfigError(f"{out} does not end in {suffix}, as results do; choose another --out")
        if path.exists() and not replaces:
            raise ConfigError(f"{out} exists already; choose another --out")
        if path.exists() and not any(kind <= _keys(path) for kind in replaces):
            raise ConfigError(f"{out} holds something else than results of this command; choose another --out")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            return path


def results_file(
    out: str | Path | None, *, inputs: Sequence[str | Path | None] = (), replaces: Sequence[Kind] = ()
) -> Path | None:
    """`output_file` for JSON results; None: results are not kept."""
    return None if out is None else output_file(out, suffix=".json", inputs=inputs, replaces=replaces)


def write_results(path: Path, record: Mapping[str, Any]) -> None:
    """Write results as JSON, so that a reader sees the old ones or the new ones; NaN becomes null.

    Raises:
        RunDirectoryError: They cannot be written.
    """
    with in_words("write to", path, _CURE):
        write_json(path, record)


def _others(folder: Path, besides: Collection[str]) -> bool:
    return any(entry.name not in besides and not is_leftover(entry.name) for entry in folder.iterdir())


def _check_writable(folder: Path) -> None:
    """Look at the nearest folder that exists, in which the others would be made."""
    nearest = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not nearest.is_dir():
        raise RunDirectoryError(f"{nearest} is a file, so {folder} cannot be made; choose another --out")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RunDirectoryError(
            f"cannot write to {folder} (no permission in {nearest}); choose another --out, or fix the permissions"
        )


def _keys(path: Path) -> Kind:
    """Top-level keys of a JSON object; none where the file does not hold one."""
    try:
        content = json.loads(read_bytes(path, follow=True))
    except (OSError, ValueError, RecursionError):
        return frozenset()
    return frozenset(content) if isinstance(content, dict) else frozenset()

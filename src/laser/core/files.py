"""Files that are whole or absent, and JSON in them."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from laser.core.errors import RunDirectoryError

Record = Mapping[str, Any]


@contextmanager
def writing(path: Path, run: Path) -> Iterator[None]:
    """Tell what cannot be written, and that the run goes on from where it stands once it can."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunDirectoryError(
            f"cannot write to {path} ({reason}); free space or mend permissions, then continue with --resume {run}"
        ) from error


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Record) -> None:
    """Write JSON atomically, indented for people."""
    atomic_write(path, (json.dumps(to_json(value), indent=2, allow_nan=False) + "\n").encode())


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a link, FIFO or device is refused at once.

    Raises:
        OSError: It cannot be read, or is another kind of file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunDirectoryError: The file is missing, cannot be read or is damaged.
    """
    try:
        with open_regular(path) as file:
            value = json.loads(file.read())
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path} is missing; the run is damaged, start a new one") from error
    except OSError as error:
        raise RunDirectoryError(
            f"cannot read {path} ({error.strerror}); restore the file or its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path} is not valid JSON ({error}); the run is damaged, start a new one") from error
    if not isinstance(value, dict):
        raise RunDirectoryError(f"{path} does not hold a JSON object; the run is damaged, start a new one")
    return value


def to_json(value: Any) -> Any:
    """Turn records into JSON values; NaN and infinities become null, since JSON has no word for them."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

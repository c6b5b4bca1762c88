"""Files that are whole or absent, JSON in them, and how laser opens what others may have put into its folders.

A run directory may come from someone else. The folder that the user names may be a link; inside it no link is followed,
and only regular files are opened: a link could point at any file of the user, and a FIFO never answers.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from safetensors import SafetensorError

from laser.core.errors import LaserError, RunDirectoryError

if TYPE_CHECKING:
    from io import BufferedReader

Record = Mapping[str, Any]

_FLAGS = {
    "rb": os.O_RDONLY,
    "ab": os.O_WRONLY | os.O_APPEND | os.O_CREAT,
    "r+b": os.O_RDWR | os.O_CREAT,
}
_LINK = "it is a link, and laser follows none here"
_HARD_LINK = "it is a hard link, so writing would change another file"
_NOT_REGULAR = "it is not a regular file"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)


def open_regular(path: Path, mode: Literal["rb", "ab", "r+b"] = "rb", *, follow: bool = False) -> BinaryIO:
    """An open regular file; FIFOs and devices are refused at once.

    Args:
        path: The file; it is created for "ab" and "r+b".
        mode: Read, append, or read and write without emptying.
        follow: Whether the file may be a link, as a file that the user names may be.

    Raises:
        OSError: It is a link, a hard link that would be written to, or not a regular file, or it cannot be opened.
    """
    flags = _FLAGS[mode] | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        reason = {errno.ELOOP: _LINK, errno.ENXIO: _NOT_REGULAR}.get(error.errno or 0)
        if reason is None or (follow and error.errno == errno.ELOOP):
            raise
        raise OSError(error.errno, reason, str(path)) from error
    try:
        _check_regular(os.fstat(descriptor), path, writes=mode != "rb")
        return os.fdopen(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise


def lock(path: Path, folder: Path) -> BinaryIO:
    """A file that this process holds for `folder` until it closes the file or dies.

    Raises:
        RunDirectoryError: Another process holds it.
        OSError: It cannot be opened or locked.
    """
    file = open_regular(path, "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise RunDirectoryError(f"another process works on {folder}; wait for it or stop it") from error
    return file


def check_regular(path: Path, *, writes: bool = False) -> None:
    """Make sure that a library may open a file: it exists and is not a link; nor a hard link, if the library writes.

    Raises:
        OSError: It is missing, a link, or not a regular file.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, _LINK, str(path))
    _check_regular(status, path, writes=writes)


def _check_regular(status: os.stat_result, path: Path, *, writes: bool) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, _NOT_REGULAR, str(path))
    if writes and status.st_nlink > 1:
        raise OSError(errno.EMLINK, _HARD_LINK, str(path))


def read_bytes(path: Path, *, follow: bool = False) -> bytes:
    """Content of a regular file; see `open_regular`."""
    with open_regular(path, follow=follow) as file:
        return file.read()


def file_digest(path: Path) -> str:
    """SHA-256 of a regular file, as hexadecimal digits; see `open_regular`."""
    with open_regular(path) as file:
        return hashlib.file_digest(cast("BufferedReader", file), "sha256").hexdigest()


def is_folder(path: Path) -> bool:
    """Whether a folder is there.

    Raises:
        OSError: A link or something else is in its place.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, _LINK, str(path))
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return True


def make_folder(path: Path) -> Path:
    """`path`, a folder inside one of laser's, made where it is missing; other processes may make it meanwhile.

    Raises:
        OSError: A link or something else is in its place, or it cannot be made.
    """
    if not is_folder(path):
        with suppress(FileExistsError):
            path.mkdir()
        is_folder(path)
    return path


def check_inside(root: Path, path: Path) -> None:
    """Make sure that no folder between `root` and `path`, `path` included, is a link.

    Raises:
        OSError: One is a link or not a folder.
    """
    folder = root
    for part in path.relative_to(root).parts:
        folder /= part
        if not is_folder(folder):
            return


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new, empty file to write, which then replaces `path` at once; after an error nothing of it is left."""
    temporary = _temporary(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(temporary, flags, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder to fill, which is synced and then replaces `path`; after an error nothing of it is left."""
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        remove(path)
        temporary.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def is_leftover(name: str) -> bool:
    """Whether a name is one of those that `replacing` and `replacing_folder` write under."""
    return _TEMPORARY.fullmatch(name) is not None


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all its content, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def in_words(action: str, path: str | Path, cure: str, raised: type[LaserError] = RunDirectoryError) -> Iterator[None]:
    """Turn an error of the system into a sentence: what cannot be done with which file, why, and the cure.

    Raises:
        LaserError: Of the type `raised`.
    """
    try:
        yield
    except OSError as error:
        raise raised(f"cannot {action} {path} ({error.strerror or error}); {cure}") from error


@contextmanager
def writing(path: Path, run: Path) -> Iterator[None]:
    """Turn an error of writing into a sentence that says how to continue the run.

    Raises:
        RunDirectoryError: Something could not be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunDirectoryError(
            f"cannot write to {path} ({reason}); free space or fix the permissions, then continue with --resume {run}"
        ) from error


def write_json(path: Path, value: Record) -> None:
    """Write JSON atomically, indented for people."""
    atomic_write(path, (json.dumps(to_json(value), indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a regular file.

    Raises:
        RunDirectoryError: The file is missing, cannot be read or is damaged.
    """
    try:
        return json_object(read_bytes(path))
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path} is missing, so the run is damaged; start a new one") from error
    except OSError as error:
        raise RunDirectoryError(
            f"cannot read {path} ({error.strerror}); restore the file or its permissions"
        ) from error
    except ValueError as error:
        raise RunDirectoryError(f"{path} is not a record ({error}), so the run is damaged; start a new one") from error


def json_object(content: bytes) -> dict[str, Any]:
    """A JSON object; raises ValueError with the reason where the bytes are something else."""
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def to_json(value: Any) -> Any:
    """Records as JSON values; NaN and infinities become null, since JSON cannot express them."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

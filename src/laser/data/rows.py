"""Rows out of files, one at a time: JSON Lines, JSON, CSV and Parquet, gzipped or inside a zip archive.

Only a file that is one JSON document is read whole; everything else is read row by row, in memory that does not grow
with the file.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from laser.core.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file on disk, or a member of a zip archive.

    Attributes:
        path: The file or the archive.
        member: Name inside the archive; None: the file itself.
    """

    path: Path
    member: str | None = None

    @property
    def name(self) -> PurePosixPath:
        """Where it lies, as a pattern sees it."""
        return PurePosixPath(self.member if self.member is not None else self.path.as_posix())

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}:{self.member}"

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open for reading bytes, decompressed.

        Raises:
            DataError: It is missing or cannot be read.
        """
        try:
            if self.member is not None:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                    yield stream  # type: ignore[misc]
            elif self.path.suffix == ".gz":
                with gzip.open(self.path, "rb") as stream:
                    yield stream  # type: ignore[misc]
            else:
                with self.path.open("rb") as stream:
                    yield stream
        except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            raise DataError(f"{self} is damaged or cut off ({error}); get it again") from error
        except OSError as error:
            raise DataError(f"{self} cannot be read ({error.strerror or error}); check it") from error

    @property
    def suffix(self) -> str:
        """What kind of file it is, ".gz" aside."""
        name = self.name
        return name.with_suffix("").suffix if name.suffix == ".gz" else name.suffix


def read_rows(source: SourceFile) -> Iterator[tuple[str, Any]]:
    """Read a file.

    Returns:
        (where, row) pairs: a place for error messages, and a mapping, or a list of cells for CSV.

    Raises:
        DataError: It is of another kind, damaged, or not UTF-8; names the line.
    """
    with source.open() as stream:
        if source.suffix == ".jsonl":
            yield from json_lines(stream, str(source))
        elif source.suffix == ".json":
            yield from _json_document(stream, str(source))
        elif source.suffix == ".csv":
            yield from _csv(stream, str(source))
        elif source.suffix == ".parquet":
            yield from parquet(stream, str(source))
        else:
            raise DataError(f"{source} is none of {', '.join(SUFFIXES)}; convert it to one of them")


def json_lines(stream: Iterable[bytes], name: str) -> Iterator[tuple[str, Any]]:
    """Read JSON Lines; control characters inside strings are let through."""
    for number, line in enumerate(stream, start=1):
        if line.strip():
            where = f"{name} line {number}"
            yield where, _loads(line, where, "mend or remove the line")


def parquet(stream: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    """Read Parquet, a row group at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(stream) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name} row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name} is not a readable Parquet file ({error}); write it again") from error


def _json_document(stream: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    """A list of rows, an object with the list under "examples", one row, or JSON Lines under another name."""
    content = stream.read()
    first, _, rest = content.lstrip().partition(b"\n")
    if rest.strip() and first.startswith(b"{") and _is_json(first):
        yield from json_lines(content.splitlines(), name)
        return
    value = _loads(content, name, "it may be cut off: get it again")
    if isinstance(value, dict):
        value = value.get("examples", [value])
    if not isinstance(value, list):
        raise DataError(f"{name} holds a {type(value).__name__}, not a list of rows; check which file it is")
    yield from ((f"{name} row {number}", row) for number, row in enumerate(value, start=1))


def _csv(stream: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    lines = csv.reader(io.TextIOWrapper(stream, encoding="utf-8", newline=""))
    try:
        yield from ((f"{name} row {number}", row) for number, row in enumerate(lines, start=1) if row)
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text; save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{name} line {lines.line_num} is not valid CSV ({error}); mend it") from error


def _loads(content: bytes, where: str, cure: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"), strict=False)
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        detail = (
            "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", "a number too long")
        )
        raise DataError(f"{where} is not valid JSON ({detail}); {cure}") from error


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content, strict=False)
    except ValueError:
        return False
    return True

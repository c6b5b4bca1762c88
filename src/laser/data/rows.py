"""Rows of files, one at a time: JSON Lines, JSON, CSV, TSV and Parquet, gzipped or inside a zip archive.

Only a file that is one JSON document is read whole; everything else is read row by row, in memory that does not grow
with the file.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from laser.core.errors import DataError
from laser.core.files import open_regular

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")

_LISTS = ("examples", "data")  # fields of an object under which files keep their list of rows
_OTHER_ENCODINGS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # UTF-32's mark begins with UTF-16's


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
        """Its path, as a pattern sees it."""
        return PurePosixPath(self.member if self.member is not None else self.path.as_posix())

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}:{self.member}"

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open for reading bytes, decompressed.

        Raises:
            DataError: It is missing, not a regular file, or cannot be read.
        """
        try:
            with open_regular(self.path, follow=True) as file:
                if self.member is not None:
                    with zipfile.ZipFile(file) as archive, archive.open(self.member) as stream:
                        yield stream  # type: ignore[misc]
                elif self.path.suffix == ".gz":
                    with gzip.open(file, "rb") as stream:
                        yield stream  # type: ignore[misc]
                else:
                    yield file
        except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            raise DataError(f"{self} is damaged or cut off ({error}); get it again") from error
        except OSError as error:
            raise DataError(f"{self} cannot be read ({error.strerror or error}); check it") from error

    @property
    def suffix(self) -> str:
        """What kind of file it is, ".gz" aside."""
        name = self.name
        return name.with_suffix("").suffix if name.suffix == ".gz" else name.suffix


def read_rows(source: SourceFile, *, header: bool = False) -> Iterator[tuple[str, Any]]:
    """Read a file.

    Args:
        source: The file.
        header: Whether the first row of CSV and TSV names the columns.

    Returns:
        (where, row) pairs: a place for error messages, and a mapping, or a list of cells for CSV without a header.

    Raises:
        DataError: It is of another kind, damaged, or not UTF-8; names the line.
    """
    with source.open() as stream:
        match source.suffix:
            case ".jsonl" | ".ndjson" | ".json":
                yield from _json(stream, str(source))
            case ".csv":
                yield from _cells(stream, str(source), ",", header)
            case ".tsv":
                yield from _cells(stream, str(source), "\t", header)
            case ".parquet":
                yield from _parquet(stream, str(source))
            case _:
                raise DataError(f"{source} is none of {', '.join(SUFFIXES)}; convert it to one of them")


def _json(stream: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    """JSON Lines, or one document: a list, or what neither of the first two lines is by itself, or a single line."""
    lines = (
        (number, line) for number, line in enumerate(stream, start=1) if line.removeprefix(codecs.BOM_UTF8).strip()
    )
    begin = list(islice(lines, 2))
    if not begin:
        return
    number, first = begin[0]
    if first.startswith(_OTHER_ENCODINGS):
        raise DataError(f"{name} is UTF-16 or UTF-32 text; save it as UTF-8")
    first = first.removeprefix(codecs.BOM_UTF8)
    second = [line for _, line in begin[1:]]
    if first.lstrip().startswith(b"[") or not any(map(_is_json, [first, *(second or [b"{}"])])):
        yield from _json_document(b"".join([first, *second, stream.read()]), name)
    elif not second:
        yield from _json_document(first, name, f"{name} line {number}")
    else:
        yield from _json_lines(chain([(number, first)], begin[1:], lines), name)


def _json_lines(lines: Iterable[tuple[int, bytes]], name: str) -> Iterator[tuple[str, Any]]:
    """A value a line; control characters inside strings are let through."""
    for number, line in lines:
        if line.strip():
            where = f"{name} line {number}"
            yield where, _loads(line.removeprefix(codecs.BOM_UTF8), where, "fix or remove the line")


def _json_document(content: bytes, name: str, line: str | None = None) -> Iterator[tuple[str, Any]]:
    """A list of rows, an object with the list under "examples" or "data", or one row, which may be in one line."""
    cure = "fix or remove the line" if line else "it may be cut off: get it again, or write one JSON object a line"
    value = _loads(content, line or name, cure)
    if isinstance(value, dict) and "prompt" not in value:
        value = next((value[key] for key in _LISTS if _is_table(value.get(key))), value)
    if isinstance(value, list):
        yield from ((f"{name} row {number}", row) for number, row in enumerate(value, start=1))
    else:
        yield line or f"{name} row 1", value


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _parquet(stream: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    """Parquet, a row group at a time."""
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
        raise DataError(f"{name} is not a readable Parquet file ({str(error)[:200]}); write it again") from error


def _cells(stream: BinaryIO, name: str, delimiter: str, header: bool) -> Iterator[tuple[str, Any]]:
    """Cells of CSV or TSV, as a list or, with a header, by column; an empty cell is null there."""
    lines = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), delimiter=delimiter)
    try:
        columns = [name.strip() for name in next(lines, [])] if header else []
        if twice := {column for column in columns if columns.count(column) > 1}:
            raise DataError(f"{name} has the column {min(twice)!r} twice; rename or remove one")
        for number, row in enumerate(lines, start=2 if header else 1):
            if header and row and len(row) != len(columns):
                raise DataError(f"{name} row {number} has {len(row)} cells, not {len(columns)}; fix or remove the row")
            if row:
                yield f"{name} row {number}", _by_column(columns, row) if header else row
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text; save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{name} line {lines.line_num} is not valid CSV ({error}); fix or remove the line") from error


def _by_column(columns: list[str], cells: list[str]) -> dict[str, str | None]:
    return {column: cell or None for column, cell in zip(columns, cells, strict=True)}


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def _loads(content: bytes, where: str, cure: str) -> Any:
    try:
        return json.loads(content.decode("utf-8"), strict=False, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        detail = (
            "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "msg", "a number too long")
        )
        raise DataError(f"{where} is not valid JSON ({detail}); {cure}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ; JSON leaves open which of two values counts."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise json.JSONDecodeError(f"the key {twice!r:.100} occurs twice", "", 0)
    return made


def saved_rows(folder: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a data set that `save_to_disk` wrote, memory-mapped: a place for error messages, and a mapping.

    Raises:
        DataError: The folder holds something else, or several splits.
    """
    if not is_saved(folder):
        raise DataError(f"{folder} is a folder; name a file in it, or a folder that datasets' save_to_disk wrote")
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{folder} cannot be loaded ({str(error)[:200]}); save the data set again") from error
    if isinstance(loaded, datasets.DatasetDict):
        if len(loaded) != 1:
            raise DataError(f"{folder} holds several splits; name one of them: {folder}/{', '.join(loaded)}")
        (loaded,) = loaded.values()
    return ((f"{folder} row {number}", row) for number, row in enumerate(loaded, start=1))


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()

"""A part of the data set that ``laser label`` writes: one file of pairs and one hidden record of what it counts.

Until it is finished, each of its batches is a hidden file. Everything appears whole under its final name.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal

from laser.core.errors import RunDirectoryError, first_line
from laser.core.files import (
    atomic_write,
    check_regular,
    is_folder,
    json_object,
    make_folder,
    read_bytes,
    replacing,
    to_json,
    write_json,
)

Format = Literal["jsonl", "parquet"]

_AGAIN = "remove it to label its prompts again"


@dataclass(slots=True)
class Counts:
    """What batches, parts and jobs count; counts of several add up.

    Attributes:
        prompts: Prompts labeled.
        with_pairs: Prompts with at least one pair.
        chosen: Pairs that each reward model decided, by name.
        left_out: Pairs, responses and prompts without a row, and tokens cut from prompts, by reason.
        usage: For each reward model the counts of `RewardPool.usage`.
        failed: Reward models that failed, and the last reason.
    """

    prompts: int = 0
    with_pairs: int = 0
    chosen: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    usage: dict[str, Counter[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, record: Mapping[str, Any]) -> None:
        """Add the counts of `as_record`."""
        self.prompts += record["prompts"]
        self.with_pairs += record["with_pairs"]
        self.chosen.update(record["chosen"])
        self.left_out.update(record["left_out"])
        for name, counts in record["usage"].items():
            self.usage.setdefault(name, Counter()).update(counts)
        self.failed |= record["failed"]

    def as_record(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "pairs": self.chosen.total(),
            "prompts": self.prompts,
            "with_pairs": self.with_pairs,
            "chosen": dict(sorted(self.chosen.items())),
            "left_out": dict(self.left_out),
            "usage": {name: dict(counts) for name, counts in self.usage.items()},
            "failed": self.failed,
        }


@dataclass(frozen=True, slots=True)
class Part:
    """The files of one part.

    Attributes:
        folder: The job's.
        name: The part's.
        format: Of its pairs.
        steps: Numbers of its batches in the job.
    """

    folder: Path
    name: str
    format: Format
    steps: range

    @property
    def path(self) -> Path:
        """Its pairs; no file without pairs, because readers of Parquet refuse a file without rows."""
        return self.folder / f"{self.name}.{self.format}"

    @property
    def record(self) -> Path:
        """What it counts; written last, so it marks a finished part."""
        return self.folder / f".{self.name}.json"

    @property
    def batches(self) -> Path:
        """Folder of its batches, until it is finished."""
        return self.folder / f".{self.name}"

    def batch(self, step: int) -> Path:
        """What one of its batches counts, on the first line, and its rows, one a line."""
        return self.batches / f"{step:08d}.jsonl"

    def is_done(self) -> bool:
        """Whether the part is finished.

        Raises:
            RunDirectoryError: Its pairs are not those that its record counts.
        """
        if not self.record.is_file():
            return False
        size = self.counted()["bytes"]
        try:
            check_regular(self.path)
            found = self.path.stat().st_size
        except FileNotFoundError:
            return bool(size == 0)
        except OSError as error:
            raise _damaged(self.path, str(error.strerror)) from error
        if found != size:
            raise _damaged(self.path, f"it has {found} bytes instead of {size}")
        return True

    def counted(self) -> dict[str, Any]:
        """The record of a finished part."""
        return read_record(self.record)

    def counted_in(self, step: int) -> dict[str, Any]:
        """The record of a finished batch."""
        return self._read_batch(step)[0]

    def done_steps(self) -> set[int]:
        """The batches that are finished, of a part that is not."""
        with writing(self.folder):
            names = {path.name for path in self.batches.iterdir()} if is_folder(self.batches) else set()
        return {step for step in self.steps if self.batch(step).name in names}

    def write_batch(self, step: int, rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> None:
        """Write the rows of a batch, and what it counts."""
        with writing(self.folder):
            make_folder(self.batches)
            lines = [json.dumps(to_json(record), allow_nan=False), *map(_line, rows)]
            atomic_write(self.batch(step), "".join(f"{line}\n" for line in lines).encode())

    def finish(self) -> None:
        """Put the batches together."""
        counts = Counts()

        def counted(step: int) -> bytes:
            record, rows = self._read_batch(step)
            counts.add(record)
            return rows

        with writing(self.folder):
            self.path.unlink(missing_ok=True)
            size = self._merge(filter(None, map(counted, self.steps)))
            state = self.counted_in(self.steps[-1])["state"]
            write_json(self.record, {**counts.as_record(), "bytes": size, "state": state})
        self.remove_batches()

    def remove_batches(self) -> None:
        """Remove what the part has replaced."""
        with writing(self.folder):
            if is_folder(self.batches):
                shutil.rmtree(self.batches)

    def _read_batch(self, step: int) -> tuple[dict[str, Any], bytes]:
        """The record of a batch, and the lines of its rows."""
        path = self.batch(step)
        try:
            head, _, rows = read_bytes(path).partition(b"\n")
            record: dict[str, Any] = json.loads(head)
            expected = record["pairs"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, first_line(error)) from error
        if (found := rows.count(b"\n")) != expected:
            raise _damaged(path, f"it has {found} rows instead of {expected}")
        return record, rows

    def _merge(self, filled: Iterator[bytes]) -> int:
        """Write the rows of all batches that have some into the part's file; returns its size in bytes."""
        first = next(filled, None)
        if first is None:
            return 0
        write = _write_jsonl if self.format == "jsonl" else _write_parquet
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            write(file, chain([first], filled))
            file.flush()
            os.fsync(file.fileno())
        return self.path.stat().st_size


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn an error of the disk into a sentence."""
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write to {out} ({error.strerror or error}); fix that and run the command again, which continues"
        ) from error


def read_record(path: Path, cure: str = _AGAIN) -> dict[str, Any]:
    """A record of the job; raises RunDirectoryError with the cure if it is missing or damaged."""
    try:
        return json_object(read_bytes(path))
    except (OSError, ValueError) as error:
        raise _damaged(path, getattr(error, "strerror", None) or first_line(error), cure) from error


def _line(row: Mapping[str, Any]) -> str:
    """A row as JSON; the encoder alone is faster, and refuses what only `to_json` can convert."""
    try:
        return json.dumps(row, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(to_json(row), allow_nan=False)


def _write_jsonl(file: BinaryIO, batches: Iterable[bytes]) -> None:
    file.writelines(batches)


def _write_parquet(file: BinaryIO, batches: Iterable[bytes]) -> None:
    import pyarrow
    import pyarrow.parquet

    try:
        tables = [pyarrow.Table.from_pylist(list(map(json.loads, lines.splitlines()))) for lines in batches]
        table = pyarrow.concat_tables(tables, promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise RunDirectoryError(f"Parquet cannot hold these messages ({error}); use --format jsonl") from error
    pyarrow.parquet.write_table(table, file)


def _damaged(path: Path, reason: str, cure: str = _AGAIN) -> RunDirectoryError:
    return RunDirectoryError(f"{path} is damaged ({reason}); {cure}")

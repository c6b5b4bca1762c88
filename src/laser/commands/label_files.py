"""The folder that ``laser label`` fills.

A part is one file of pairs of about 10,000 prompts and one hidden record of what it counts. Until it is finished, each
of its batches is a hidden file. Everything appears whole under its final name. The shards of a job may share a folder:
each has its own names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal

from laser.config import RunConfig
from laser.config.compare import first_difference
from laser.config.load import parse_config
from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.files import (
    atomic_write,
    check_regular,
    is_folder,
    make_folder,
    read_json,
    replacing,
    to_json,
    write_json,
)
from laser.core.outputs import check_free, claim
from laser.wiring.identity import check_sources

Format = Literal["jsonl", "parquet"]
PART_PROMPTS = 10_000
PROMPTS = "train prompts"
"""The identity of a job's prompts among its sources."""

PROMPTS_FOLDER = ".prompts"
"""Where an engine of several processes has the prompts of parts that are not finished."""

_MARK = re.compile(r"label(-\d{5}-of-\d{5})?\.json")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of the slices of the prompts that are labeled apart.

    Attributes:
        index: Its number, from 1.
        count: How many there are.
    """

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count <= 99_999:
            raise ConfigError(
                f"there is no shard {self.index}/{self.count}; give I/N with I from 1 to N, at most 99999"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that "I/N" names.

        Raises:
            ConfigError: It names none.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if match is None:
            raise ConfigError(f"--shard is {text!r}; give I/N, such as 3/64")
        return cls(int(match[1]), int(match[2]))

    @property
    def suffix(self) -> str:
        """What its files have in their names; empty for the only one."""
        return f"-{self.index:05d}-of-{self.count:05d}" if self.count > 1 else ""


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
        """The rows and counts of one of its batches."""
        return self.batches / f"{step:08d}.json"

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
        return read_json(self.record)

    def done_steps(self) -> set[int]:
        """The batches that are finished, of a part that is not."""
        with writing(self.folder):
            names = {path.name for path in self.batches.iterdir()} if is_folder(self.batches) else set()
        return {step for step in self.steps if self.batch(step).name in names}

    def write_batch(self, step: int, rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> None:
        """Write the rows of a batch, and what it counts."""
        with writing(self.folder):
            make_folder(self.batches)
            content = json.dumps(to_json({**record, "rows": rows}), allow_nan=False)
            atomic_write(self.batch(step), content.encode())

    def finish(self) -> None:
        """Put the batches together."""
        counts, state = Counts(), None
        with writing(self.folder):
            self.path.unlink(missing_ok=True)
            size = self._merge()
            for step in self.steps:
                record = read_json(self.batch(step))
                counts.add(record)
                state = record["state"]
            write_json(self.record, {**counts.as_record(), "bytes": size, "state": state})
        self.remove_batches()

    def remove_batches(self) -> None:
        """Remove what the part has replaced."""
        with writing(self.folder):
            if is_folder(self.batches):
                shutil.rmtree(self.batches)

    def _merge(self) -> int:
        """Write the pairs of all batches into the part's file; returns its size in bytes."""
        rows = (read_json(self.batch(step))["rows"] for step in self.steps)
        filled = (of_batch for of_batch in rows if of_batch)
        first = next(filled, None)
        if first is None:
            return 0
        write = _write_jsonl if self.format == "jsonl" else _write_parquet
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            write(file, chain([first], filled))
            file.flush()
            os.fsync(file.fileno())
        return self.path.stat().st_size


class LabelFolder:
    """The files of one job, or of one of its shards.

    Args:
        path: The folder.
        format: Of the pairs.
        shard: Which slice of the prompts is labeled.
    """

    def __init__(self, path: Path, format: Format, shard: Shard) -> None:
        self.path, self.format, self.shard = path, format, shard
        self.mark = path / f"label{shard.suffix}.json"
        self.summary = path / f"summary{shard.suffix}.json"

    def parts(self, num_prompts: int, batch_size: int) -> list[Part]:
        """The parts: whole batches, about `PART_PROMPTS` prompts each."""
        num_batches = -(-num_prompts // batch_size)
        per_part = max(1, PART_PROMPTS // batch_size)
        return [
            Part(
                self.path,
                f"part{self.shard.suffix}-{number:06d}",
                self.format,
                range(begin, min(begin + per_part, num_batches)),
            )
            for number, begin in enumerate(range(0, num_batches, per_part))
        ]

    def check_owner(self, config: RunConfig) -> None:
        """Check that the folder is free or belongs to this job, without changing it.

        Raises:
            ConfigError: Another configuration, format or number of shards is there.
            RunDirectoryError: Something else is there, or the folder cannot be used.
        """
        marks = self._marks()
        for mark in marks:
            stored = read_json(mark)
            if stored.get("part_prompts") != PART_PROMPTS:
                raise ConfigError(f"{self.path} was labeled by an earlier version of laser; choose a new --out")
            difference = first_difference(parse_config(dict(stored["config"]), source=str(mark)), config)
            if difference is not None or stored["format"] != self.format:
                raise ConfigError(
                    f"{self.path} was started with another configuration ({difference or 'format'}); choose a new --out"
                )
            if stored["shards"] != self.shard.count:
                raise ConfigError(
                    f"{self.path} holds a job of {stored['shards']} shards, not {self.shard.count}; use that number, "
                    "or choose a new --out"
                )
        if not marks:
            check_free(self.path, besides={self.mark.name, self.summary.name, PROMPTS_FOLDER})

    def claim(self, config: RunConfig, sources: Mapping[str, Any], *, engine: str) -> None:
        """Write down whose the folder is, once the job can start.

        Raises:
            ConfigError: What the configuration names has changed since the folder's batches were labeled, or another
                engine labeled them.
        """
        for mark in self._marks():
            stored = read_json(mark)
            if stored["engine"] != engine:
                raise ConfigError(
                    f"{self.path} was started with --engine {stored['engine']}; use that, or choose a new --out"
                )
            kept = stored["sources"]
            if mark != self.mark:
                kept = {**kept, PROMPTS: sources[PROMPTS]}  # each shard has its own
            check_sources(kept, sources, f"the first batches of {self.path}")
        record = {
            "config": config.model_dump(mode="json"),
            "format": self.format,
            "shards": self.shard.count,
            "part_prompts": PART_PROMPTS,
            "engine": engine,
            "sources": sources,
        }
        claim(self.path, self.mark.name, record)
        self.check_owner(config)  # another shard may have come first

    def has_batches(self) -> bool:
        """Whether this shard has begun to write a batch."""
        parts = f".part{self.shard.suffix}-??????"
        return any(self.path.glob(parts)) or any(self.path.glob(f"{parts}.json"))

    def write_summary(self, counts: Counts) -> None:
        """Write the shard's summary, and once all shards have theirs that of the job."""
        with writing(self.path):
            write_json(self.summary, counts.as_record())
            if self.shard.count == 1:
                return
            shards = (Shard(index, self.shard.count) for index in range(1, self.shard.count + 1))
            summaries = [self.path / f"summary{shard.suffix}.json" for shard in shards]
            if all(summary.is_file() for summary in summaries):
                total = Counts()
                for summary in summaries:
                    total.add(read_json(summary))
                write_json(self.path / "summary.json", total.as_record())

    def _marks(self) -> list[Path]:
        """Records of the folder's jobs; that of this shard does not bind while it has no batch."""
        if not self.path.is_dir():
            return []
        try:
            marks = sorted(path for path in self.path.iterdir() if _MARK.fullmatch(path.name))
        except OSError as error:
            raise RunDirectoryError(f"cannot use {self.path} ({error.strerror}); choose another --out") from error
        return [mark for mark in marks if mark != self.mark or self.has_batches()]


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn an error of the disk into a sentence."""
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write to {out} ({error.strerror or error}); fix that and run the command again, which continues"
        ) from error


def _write_jsonl(file: BinaryIO, batches: Iterable[list[Any]]) -> None:
    for rows in batches:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())


def _write_parquet(file: BinaryIO, batches: Iterable[list[Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    try:
        tables = [pyarrow.Table.from_pylist(rows) for rows in batches]
        table = pyarrow.concat_tables(tables, promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise RunDirectoryError(f"Parquet cannot hold these messages ({error}); use --format jsonl") from error
    pyarrow.parquet.write_table(table, file)


def _damaged(path: Path, reason: str) -> RunDirectoryError:
    return RunDirectoryError(f"{path} is damaged ({reason}); remove it to label its prompts again")

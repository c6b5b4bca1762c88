"""The folder that ``laser label`` fills.

A part has the pairs of about 10,000 prompts. The shards of a job may share a folder: each has its own names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laser.commands.label_parts import Counts, Format, Part, read_record, writing
from laser.config import RunConfig
from laser.config.compare import first_difference
from laser.config.load import parse_config
from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.files import is_leftover, lock, remove, write_json
from laser.core.outputs import check_free, claim
from laser.wiring.identity import check_sources

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
        self._lock = path / f".label{shard.suffix}.lock"

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
            stored = read_record(mark, "choose a new --out")
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
            check_free(self.path, besides={self.mark.name, self.summary.name, self._lock.name, PROMPTS_FOLDER})

    def claim(self, config: RunConfig, sources: Mapping[str, Any], *, engine: str) -> None:
        """Write down whose the folder is, once the job can start.

        Raises:
            ConfigError: What the configuration names has changed since the folder's batches were labeled, or another
                engine labeled them.
        """
        for mark in self._marks():
            stored = read_record(mark, "choose a new --out")
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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the claimed shard for this process inside the block, and remove what a killed one left.

        Raises:
            RunDirectoryError: Another process works on it.
        """
        with writing(self.path):
            file = lock(self._lock, self.path)
        with file:
            for entry in self.path.glob(f".*part{self.shard.suffix}-*"):
                if is_leftover(entry.name):
                    remove(entry)
            yield

    def has_batches(self) -> bool:
        """Whether this shard has begun to write a batch."""
        name = f"part{self.shard.suffix}-??????"
        return any(any(self.path.glob(names)) for names in (f".{name}", f".{name}.json", f"{name}.*"))

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
                    total.add(read_record(summary, "run the command of its shard again"))
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

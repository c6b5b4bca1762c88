"""Prompts in a temporary file, read on access: a data set of any size takes little memory.

Functions for any sequence of prompts (`pick`, `categories_of`, `first_of_each`) have a fast path for those in a file.
"""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from laser.core.errors import DataError
from laser.core.types import IntArray, Prompt

Digests = NDArray[np.bytes_]  # 16 bytes each


class StoredPrompts(Sequence[Prompt]):
    """Prompts on disk.

    Memory holds about 60 bytes per prompt: its offset, its category, and digests of its id and its conversation. The
    file is an unnamed temporary file; it is deleted with the last sequence that was picked from it.
    """

    def __init__(self, store: _Store, rows: IntArray) -> None:
        self._store = store
        self._rows = rows

    @classmethod
    def write(cls, prompts: Iterable[Prompt]) -> StoredPrompts:
        """Write prompts to disk, one at a time.

        Raises:
            DataError: The disk for temporary files is full or cannot be written.
        """
        try:
            store = _Store(prompts)
        except OSError as error:
            raise DataError(
                f"cannot write prompts to {tempfile.gettempdir()} ({error.strerror or error}); free space, or set "
                "TMPDIR to a folder with free space"
            ) from error
        return cls(store, np.arange(len(store)))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> StoredPrompts: ...
    def __getitem__(self, index: int | slice) -> Prompt | StoredPrompts:
        if isinstance(index, slice):
            return StoredPrompts(self._store, self._rows[index])
        return self._store.read(int(self._rows[index]))

    def __iter__(self) -> Iterator[Prompt]:
        return (self._store.read(int(row)) for row in self._rows)

    def pick(self, indices: IntArray) -> StoredPrompts:
        """The prompts at `indices`, in that order."""
        return StoredPrompts(self._store, self._rows[indices])

    @property
    def categories(self) -> list[str]:
        """Category of each."""
        return [self._store.names[code] for code in self._store.codes[self._rows]]

    @property
    def conversations(self) -> Digests:
        """A digest of the messages of each."""
        return self._store.conversations[self._rows]

    @property
    def ids(self) -> Digests:
        """A digest of the id of each."""
        return self._store.ids[self._rows]


class _Store:
    """The file and its index in memory."""

    def __init__(self, prompts: Iterable[Prompt]) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(prefix="laser-prompts-")  # noqa: SIM115
        self._odd: dict[int, Mapping[str, Any]] = {}  # metadata that JSON cannot hold: dates, bytes
        begins, codes, names = array("q", [0]), array("i"), dict[str, int]()
        conversations, ids = bytearray(), bytearray()
        for row, prompt in enumerate(prompts):
            metadata = prompt.metadata
            if not _survives(metadata):
                self._odd[row], metadata = metadata, {}
            line = json.dumps([prompt.id, prompt.messages, prompt.answer, metadata, prompt.conversational]).encode()
            self._file.write(line)
            begins.append(begins[-1] + len(line))
            codes.append(names.setdefault(prompt.category, len(names)))
            conversations += digest(prompt.messages)
            ids += digest(prompt.id)
        self._file.flush()
        self._begins = np.frombuffer(begins, dtype=np.int64)
        self.codes = np.frombuffer(codes, dtype=np.int32)
        self.conversations: Digests = np.frombuffer(conversations, dtype="S16")
        self.ids: Digests = np.frombuffer(ids, dtype="S16")
        self.names = list(names)

    def __len__(self) -> int:
        return len(self.codes)

    def read(self, row: int) -> Prompt:
        begin, end = int(self._begins[row]), int(self._begins[row + 1])
        name, messages, answer, metadata, conversational = json.loads(os.pread(self._file.fileno(), end - begin, begin))
        metadata, category = self._odd.get(row, metadata), self.names[self.codes[row]]
        return Prompt(name, tuple(messages), category, answer, metadata, conversational)


def pick(prompts: Sequence[Prompt], indices: Sequence[int] | IntArray) -> Sequence[Prompt]:
    """The prompts at `indices`, in that order; those on disk stay there."""
    if isinstance(prompts, StoredPrompts):
        return prompts.pick(np.asarray(indices, dtype=np.int64))
    return [prompts[index] for index in indices]


def categories_of(prompts: Sequence[Prompt]) -> list[str]:
    """Category of each prompt."""
    return prompts.categories if isinstance(prompts, StoredPrompts) else [prompt.category for prompt in prompts]


def first_of_each(prompts: Sequence[Prompt]) -> IntArray:
    """Indices of the prompts whose conversation no earlier one has."""
    if isinstance(prompts, StoredPrompts):
        digests = prompts.conversations
    else:
        digests = np.frombuffer(b"".join(digest(prompt.messages) for prompt in prompts), dtype="S16")
    return np.sort(np.unique(digests, return_index=True)[1])


def slice_of(prompts: Sequence[Prompt], index: int, count: int) -> Sequence[Prompt]:
    """Slice `index` (from 1) of `count` slices: the prompts whose id falls into it, whatever else the data set has."""
    if isinstance(prompts, StoredPrompts):
        ids = prompts.ids
    else:
        ids = np.frombuffer(b"".join(digest(prompt.id) for prompt in prompts), dtype="S16")
    numbers = np.frombuffer(ids.tobytes(), dtype="<u8")[::2]  # the first half of each digest
    return pick(prompts, np.flatnonzero(numbers % np.uint64(count) == index - 1))


def digest(value: Any) -> bytes:
    """A digest of a JSON-able value, 16 bytes."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).digest()


def _survives(metadata: Mapping[str, Any]) -> bool:
    """Whether a round trip through JSON changes nothing."""
    try:
        return bool(json.loads(json.dumps(metadata)) == metadata)
    except (TypeError, ValueError, RecursionError):
        return False

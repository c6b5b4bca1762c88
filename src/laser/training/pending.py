"""Responses of a whole iteration, sampled at its start and kept until its batches have used them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from laser.core.errors import RunDirectoryError
from laser.core.files import atomic_write, is_folder, make_folder, read_bytes, remove, replacing_folder, writing
from laser.core.state import load_state, save_state
from laser.core.types import Response, StateDict

_NAME, _DONE = "responses", "done"

Replies = list[list[list[Response]]]
"""For each batch of the iteration, for each prompt, its n responses."""


class PendingResponses:
    """The responses of one iteration, on disk; deletes older ones that no kept checkpoint can need.

    Args:
        folder: The run's ``responses`` folder.
        iteration: Which iteration.
        keep: Checkpoints that are kept; the oldest may be `keep` - 1 iterations back.
    """

    def __init__(self, folder: Path, iteration: int, *, keep: int = 1) -> None:
        self._folder = folder
        self._iteration = iteration
        self._keep = keep
        self._target = folder / f"iteration-{iteration:05d}"

    def load(self, *, may_be_missing: bool) -> Replies | None:
        """Read the responses back; returns None if they are incomplete and may be sampled again.

        Raises:
            RunDirectoryError: They are missing or damaged, and batches of this iteration have used them.
        """
        if self._intact():
            return unpack_responses(load_state(self._target / _NAME))
        if not may_be_missing:
            raise RunDirectoryError(
                f"{self._target} is missing or damaged, and the checkpoint needs it; restore it or start a new run"
            )
        return None

    def keep(self, replies: Replies) -> None:
        """Write the responses, and delete those of old iterations.

        Raises:
            RunDirectoryError: They cannot be written.
        """
        with writing(self._target, self._folder.parent):
            make_folder(self._folder)
            with replacing_folder(self._target) as temporary:
                save_state(temporary / _NAME, pack_responses(replies))
                atomic_write(temporary / _DONE, _digest(temporary).encode())
            for other in self._folder.iterdir():
                if other.name < f"iteration-{max(0, self._iteration - self._keep + 1):05d}":
                    remove(other)

    def _intact(self) -> bool:
        try:
            if not (is_folder(self._folder) and is_folder(self._target)):
                return False
            return read_bytes(self._target / _DONE) == _digest(self._target).encode()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise RunDirectoryError(
                f"cannot read {error.filename or self._target} ({error.strerror}); restore it or remove it"
            ) from error


def _digest(folder: Path) -> str:
    """SHA-256 of the responses in a folder."""
    files = [folder / f"{_NAME}{suffix}" for suffix in (".safetensors", ".json")]
    return hashlib.sha256(b"".join(hashlib.sha256(read_bytes(path)).digest() for path in files)).hexdigest()


def pack_responses(replies: Replies) -> StateDict:
    """Responses as arrays and JSON values."""
    flat = [response for batch in replies for row in batch for response in row]
    return {
        "shape": [[len(row) for row in batch] for batch in replies],
        "lengths": np.array([len(response.token_ids) for response in flat], dtype=np.int64),
        "token_ids": np.array([token for response in flat for token in response.token_ids], dtype=np.int64),
        "logps": np.array([logp for response in flat for logp in response.sampling_logps], dtype=np.float64),
        "finished": np.array([response.finished for response in flat], dtype=np.bool_),
        "texts": [response.text for response in flat],
    }


def unpack_responses(state: StateDict) -> Replies:
    """Undo `pack_responses`."""
    ends = np.cumsum(state["lengths"])
    flat = [
        Response(
            token_ids=tuple(state["token_ids"][end - length : end].tolist()),
            text=text,
            sampling_logps=tuple(state["logps"][end - length : end].tolist()),
            finished=bool(finished),
        )
        for end, length, text, finished in zip(ends, state["lengths"], state["texts"], state["finished"], strict=True)
    ]
    remaining = iter(flat)
    return [[_take(remaining, count) for count in batch] for batch in state["shape"]]


def _take(responses: Iterator[Response], count: int) -> list[Response]:
    return [next(responses) for _ in range(count)]

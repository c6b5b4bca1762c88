"""Responses of a whole iteration, sampled at its start and kept until its batches have used them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from laser.errors import RunDirectoryError
from laser.statefiles import load_state, save_state
from laser.types import Response, StateDict

Replies = list[list[list[Response]]]
"""For each batch of the iteration, for each prompt, its n responses."""


class PendingResponses:
    """The responses of one iteration on disk; the newest iteration replaces the older ones.

    Args:
        folder: The run's ``responses`` folder.
        iteration: Which iteration.
    """

    def __init__(self, folder: Path, iteration: int) -> None:
        self._folder = folder
        self._target = folder / f"iteration-{iteration:05d}"
        self.replies: Replies = []

    def load(self, *, may_be_missing: bool) -> bool:
        """Read the responses back; returns False if they were never written whole.

        Raises:
            RunDirectoryError: They are missing although batches of this iteration are already done.
        """
        if (self._target / "done").exists():
            self.replies = unpack_responses(load_state(self._target / "responses"))
            return True
        if not may_be_missing:
            raise RunDirectoryError(f"{self._target} is missing but the checkpoint needs it; start a new run")
        return False

    def keep(self, replies: Replies, *, write: bool = True) -> None:
        """Keep the responses, in memory and on disk, and drop those of earlier iterations."""
        self.replies = replies
        if not write:
            return
        self._target.mkdir(parents=True, exist_ok=True)
        save_state(self._target / "responses", pack_responses(replies))
        (self._target / "done").touch()
        for other in self._folder.iterdir():
            if other != self._target:
                for path in other.iterdir():
                    path.unlink()
                other.rmdir()


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

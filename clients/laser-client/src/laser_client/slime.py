"""slime: ``--custom-rm-path laser_client.slime.reward``, with or without ``--group-rm``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from laser_client.client import Client, new_ids

_THREADS = 64  # requests under way at once


@lru_cache(maxsize=1)
def _client() -> tuple[Client, ThreadPoolExecutor]:
    return Client(), ThreadPoolExecutor(_THREADS)


async def reward(args: Any, sample: Any, **_options: Any) -> Any:
    """The reward of a sample, or the rewards of a list of samples.

    Samples of a rollout have a group index and are learned from; those of an evaluation have none.
    """
    samples = sample if isinstance(sample, list) else [sample]
    client, threads = _client()
    training = [one for one in samples if one.group_index is not None]
    rest = [one for one in samples if one.group_index is None]
    rewards: dict[int, float] = {}
    for ours, learn in ((training, "auto"), (rest, "never")):
        scored = await asyncio.get_running_loop().run_in_executor(threads, _score, client, ours, learn)
        rewards.update(zip(map(id, ours), scored, strict=True))
    ordered = [rewards[id(one)] for one in samples]
    return ordered if isinstance(sample, list) else ordered[0]


def _score(client: Client, samples: Sequence[Any], learn: str) -> list[float]:
    scored = client.score(
        [one.prompt for one in samples],
        [one.response for one in samples],
        labels=[one.label for one in samples],
        columns=[one.metadata if isinstance(one.metadata, dict) else {} for one in samples],
        groups=[str(one.group_index) for one in samples] if learn == "auto" else None,
        ids=[one.session_id or new for one, new in zip(samples, new_ids(len(samples)), strict=True)],
        learn=learn,
    )
    return [one.filled for one in scored]

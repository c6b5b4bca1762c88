"""OpenRLHF: ``--reward.remote_url FILE``, where FILE is this file: ``python -m laser_client.openrlhf`` prints its path.

The server finds the response in the query. Unlike the server's address itself, this file sends a token and names its
samples, so that a request that OpenRLHF repeats counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from laser_client.client import Client, new_ids


@lru_cache(maxsize=1)
def _client() -> Client:
    return Client()


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
    """Rewards of queries, as OpenRLHF asks for them: a number for one, a list for several."""
    body = {"query": list(queries), "prompts": list(prompts), "labels": list(labels), "ids": new_ids(len(queries))}
    reply = _client().post("/get_reward", body)
    if len(queries) > 1:
        return dict(reply)
    logs = {name: values[0] for name, values in reply["extra_logs"].items()}
    return {"rewards": reply["rewards"][0], "scores": reply["scores"][0], "extra_logs": logs}


if __name__ == "__main__":
    print(__file__)

"""ms-swift: ``--external_plugins FILE --reward_funcs laser``; ``python -m laser_client.swift`` prints the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from laser_client.client import Client

_SENT = ("solution", "answer", "ground_truth")  # columns with a gold answer, in this order
_KEPT = (str, int, float, bool, type(None))  # values of columns that reward functions get


class LaserORM:
    """A reward function of ms-swift: called with completions and the columns of the data, a value per completion."""

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        self._client = Client()

    def __call__(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
        """A reward for each completion; None where the reward model has no opinion."""
        count = len(completions)
        rows = {
            name: values
            for name, values in columns.items()
            if isinstance(values, (list, tuple)) and len(values) == count
        }
        gold = next((rows[name] for name in _SENT if name in rows), None)
        state = columns.get("trainer_state")
        scored = self._client.score(
            [_prompt(messages) for messages in rows["messages"]],
            list(completions),
            labels=gold,
            columns=[
                {name: values[row] for name, values in rows.items() if isinstance(values[row], _KEPT)}
                for row in range(count)
            ],
            step=getattr(state, "global_step", None),
        )
        return [one.score for one in scored]


def _prompt(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages without the assistant's at the end."""
    return [*messages[:-1]] if messages[-1]["role"] == "assistant" else [*messages]


try:
    from swift.rewards import ORM, orms
except ImportError:  # outside ms-swift
    pass
else:

    class Laser(LaserORM, ORM):  # type: ignore[misc]
        """`LaserORM` as a class of ms-swift."""

    orms["laser"] = Laser

if __name__ == "__main__":
    print(__file__)

"""A family of reward models: the mean of a backbone's states goes through a linear head stored as `reward.weight`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from laser.extend import (
    Checkpoint,
    Outputs,
    Row,
    head_tensors,
    hidden_states,
    linear,
    load_backbone,
    needed,
    pad_of,
    window_of,
)


class MeanPooled:
    def __init__(self, checkpoint: Checkpoint) -> None:
        tensors = head_tensors(checkpoint, ["reward."])  # by name, out of the safetensors
        self._head = linear(needed(tensors, "reward.weight", checkpoint, "mean_pool"), None)
        self._backbone = load_backbone(checkpoint)  # by transformers' own class: no code of the checkpoint runs
        self._pad_id = pad_of(checkpoint)
        self.modules = [self._backbone, self._head]  # what the pool moves between device and CPU memory
        self.window = window_of(self._backbone.config)

    def scores(self, rows: Sequence[Row]) -> Tensor:
        hidden = hidden_states(self._backbone, rows, self._pad_id).float()
        means = [states[: len(row.ids)].mean(dim=0) for states, row in zip(hidden, rows, strict=True)]
        return self._head(torch.stack(means))[:, 0]


def load(checkpoint: Checkpoint, outputs: Outputs | None) -> MeanPooled:
    return MeanPooled(checkpoint)

"""Moving the weights of a reward model between its device and CPU memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from laser.core.errors import RewardModelError

OUT_OF_MEMORY = RewardModelError(
    "the device is out of memory with one response in a forward pass, the least that its max_batch_tokens goes down "
    "to; set its device = 'cpu' or precision = 'bf16', keep fewer models there (rewards.max_resident), or lower "
    "generation.max_new_tokens"
)


class Weighted:
    """What a reward model with weights in this process inherits."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self._modules = list(models)
        self._device = next(models[0].parameters()).device

    @torch.no_grad()
    def park(self) -> None:
        """Move weights to CPU memory, page-locked so that the way back is one fast copy."""
        if self._device.type != "cpu":
            for tensor in self._tensors():
                tensor.data = tensor.data.cpu().pin_memory() if self._device.type == "cuda" else tensor.data.cpu()

    @torch.no_grad()
    def unpark(self) -> None:
        """Move weights back to their device."""
        for tensor in self._tensors():
            tensor.data = tensor.data.to(self._device, non_blocking=True)

    def release(self) -> None:
        """Drop the weights."""
        self._modules.clear()

    def _tensors(self) -> Iterator[Tensor]:
        return chain.from_iterable(chain(module.parameters(), module.buffers()) for module in self._modules)

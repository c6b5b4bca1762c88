"""The GPUs of this machine, to divide among other processes."""

from __future__ import annotations

import os

import torch


def visible_gpus() -> list[str]:
    """Their names as CUDA_VISIBLE_DEVICES takes them, those hidden by it left out."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]

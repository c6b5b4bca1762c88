"""Models for programs that take no adapter, such as vLLM's server: an adapter is merged into its base once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from laser.lm.gguf import in_cache
from laser.lm.sources import (
    adapter_of,
    choose_device,
    choose_dtype,
    fingerprint,
    load_causal_lm,
    load_tokenizer,
    resolve,
)


def whole_model(source: str, precision: str, *, revision: str | None, trust_remote_code: bool) -> str:
    """`resolve`, for programs that take no adapter: one is merged into its base, in a folder of the cache.

    Raises:
        ModelError: Nothing is there, it cannot be loaded, or the cache cannot be written to.
    """
    if adapter_of(source) is None:
        return resolve(source)
    dtype = choose_dtype(precision, choose_device("auto"))

    def merge(folder: Path) -> None:
        options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        load_causal_lm(source, device=torch.device("cpu"), dtype=dtype, **options).save_pretrained(folder)
        load_tokenizer(source, **options).save_pretrained(folder)

    identity = hashlib.sha256(f"{fingerprint(source)}:{dtype}".encode()).hexdigest()[:16]
    return str(in_cache(f"merged-{identity}", merge))

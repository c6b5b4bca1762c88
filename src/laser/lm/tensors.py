"""Single tensors of a checkpoint, by name: the heads that no model class of transformers knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor

from laser.core.errors import ModelError
from laser.lm.sources import resolve


def read_tensors(source: str, prefixes: Sequence[str], *, revision: str | None = None) -> dict[str, Tensor]:
    """Read the tensors whose names start with a prefix, on the CPU, as they are stored.

    Only the headers of the safetensors files and these tensors are read.

    Args:
        source: Hub id, local folder or ``package:NAME[/path]``.
        prefixes: Beginnings of names, such as ``v_head.``; a whole name is one too.
        revision: Hub revision.

    Raises:
        ModelError: There are no safetensors at `source`, or they are damaged.
    """
    found: dict[str, Tensor] = {}
    for file in _files(source, revision):
        try:
            with safe_open(file, framework="pt") as stored:
                names = [name for name in stored.keys() if name.startswith(tuple(prefixes))]  # noqa: SIM118
                found.update({name: stored.get_tensor(name) for name in names})
        except (OSError, SafetensorError) as error:
            raise ModelError(f"cannot read {file} ({error}); fetch the checkpoint again") from error
    return found


def _files(source: str, revision: str | None) -> list[Path]:
    folder = Path(resolve(source))
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(source, revision=revision, allow_patterns=["*.safetensors"]))
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot fetch {source} ({error}); check the id and the network") from error
    return sorted(folder.glob("*.safetensors"))

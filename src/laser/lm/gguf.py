"""GGUF files: each is converted once into a folder of safetensors in the cache."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from laser.core.errors import ModelError
from laser.core.files import in_words

LOADING = threading.RLock()
"""Held while transformers builds a model: from_pretrained patches torch for the whole process."""

_CONVERSION = "v1"  # part of the cache key: a change in how a GGUF is converted must not find old folders


def converted(path: Path) -> Path:
    """Folder of a GGUF in safetensors, converted on first use under a temporary name and then renamed.

    Raises:
        ModelError: The file is missing or cannot be read, or the cache cannot be written to.
    """
    if not path.is_file():
        raise ModelError(f"model file {path} does not exist; check the path")
    return in_cache(f"{path.stem}-{gguf_digest(path)}", partial(_convert, path))


def in_cache(name: str, make: Callable[[Path], None]) -> Path:
    """A model folder in the cache, made on first use under a temporary name and then renamed.

    Raises:
        ModelError: The cache cannot be written to.
    """
    target = _cache_folder() / "models" / name
    whole = target / "config.json"
    if whole.is_file():
        return target
    with in_words("write to the cache", target.parent, "set LASER_CACHE to a folder", ModelError):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    try:
        with LOADING:
            if not whole.is_file():  # another thread may have made it while this one waited
                make(temporary)
                temporary.rename(target)
    except OSError:
        if not whole.is_file():  # otherwise another process finished first
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def gguf_digest(path: Path) -> str:
    """Identity of a GGUF: a digest of its size, first megabyte (metadata, tensor table) and last megabyte."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        digest = hashlib.sha256(f"{_CONVERSION}:{size}".encode() + stream.read(2**20))
        stream.seek(max(0, size - 2**20))
        digest.update(stream.read())
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    home = os.environ.get("LASER_CACHE")
    if home:
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "laser"


def _convert(path: Path, folder: Path) -> None:
    """Dequantize a GGUF to float32 and save it as safetensors.

    ``save_pretrained`` refuses a model that was loaded from a GGUF, so the weights move into a model built from a copy
    of the configuration without its quantisation entry.
    """
    try:
        loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except ImportError as error:
        raise ModelError(
            f"reading {path.name} needs the package gguf; install it with: pip install 'laser-rm[demo]'"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"cannot read {path} as a GGUF model ({error}); check the file") from error
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

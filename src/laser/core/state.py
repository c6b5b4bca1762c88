"""State dicts on disk: arrays as safetensors, the rest as JSON; never a pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save, save_file

from laser.core.errors import DataError, RunDirectoryError
from laser.core.files import atomic_write, check_regular, read_bytes, replacing
from laser.core.types import StateDict

_VALUES = "values as JSON"  # the array that holds what is not an array


def pack_state(state: StateDict) -> bytes:
    """A state dict in one piece, for the network: safetensors, with everything that is not an array as JSON bytes."""
    arrays = {name: np.ascontiguousarray(value) for name, value in state.items() if isinstance(value, np.ndarray)}
    values = {name: value for name, value in state.items() if not isinstance(value, np.ndarray)}
    packed: bytes = save({**arrays, _VALUES: np.frombuffer(json.dumps(values).encode(), np.uint8)})
    return packed


def unpack_state(content: bytes) -> StateDict:
    """The state dict that `pack_state` packed.

    Raises:
        DataError: It is something else.
    """
    try:
        arrays = load(content)
        values: StateDict = json.loads(arrays.pop(_VALUES).tobytes())
        values.update(arrays)
    except (KeyError, ValueError, AttributeError, SafetensorError, RecursionError) as error:
        raise DataError(f"the state is damaged ({error!r:.200}); send what GET /state gave") from error
    return values


def save_state(stem: Path, state: StateDict) -> None:
    """Write ``stem.safetensors`` and then ``stem.json``: where the second is, both are whole.

    Args:
        stem: Path without suffix.
        state: Flat dict of numpy arrays and JSON values; integers of any size and floats survive exactly.

    Raises:
        OSError: It cannot be written.
    """
    arrays = {name: np.ascontiguousarray(value) for name, value in state.items() if isinstance(value, np.ndarray)}
    values = {name: value for name, value in state.items() if not isinstance(value, np.ndarray)}
    with replacing(Path(f"{stem}.safetensors")) as temporary:
        try:
            save_file(arrays, temporary)
        except SafetensorError as error:  # a full disk comes as one
            raise OSError(str(error)) from error
    atomic_write(Path(f"{stem}.json"), json.dumps(values).encode())


def load_state(stem: Path) -> StateDict:
    """Read what `save_state` wrote.

    Raises:
        RunDirectoryError: It is missing or damaged.
    """
    try:
        check_regular(Path(f"{stem}.safetensors"))
        values: StateDict = json.loads(read_bytes(Path(f"{stem}.json")))
        values.update(load_file(f"{stem}.safetensors"))
    except (OSError, ValueError, AttributeError, SafetensorError, RecursionError) as error:
        raise RunDirectoryError(f"{stem}.json or .safetensors is missing or damaged ({error}); restore them") from error
    return values


def changes(state: StateDict, since: StateDict) -> StateDict:
    """The entries of a state that differ from those of an earlier one of the same object."""
    return {name: value for name, value in state.items() if name not in since or not _equal(value, since[name])}


def state_to_json(state: StateDict) -> dict[str, Any]:
    """A small state as JSON values; integers of any size, floats and arrays survive exactly."""
    return {name: _packed(value) if isinstance(value, np.ndarray) else value for name, value in state.items()}


def state_from_json(record: dict[str, Any]) -> StateDict:
    """What `state_to_json` packed."""
    return {name: _unpacked(value) if _is_packed(value) else value for name, value in record.items()}


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return bool(np.array_equal(first, second, equal_nan=True))
    return bool(first == second)


def _packed(array: NDArray[Any]) -> dict[str, Any]:
    return {"dtype": str(array.dtype), "shape": list(array.shape), "bytes": array.tobytes().hex()}


def _is_packed(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"dtype", "shape", "bytes"}


def _unpacked(packed: dict[str, Any]) -> NDArray[Any]:
    values = np.frombuffer(bytes.fromhex(packed["bytes"]), dtype=packed["dtype"])
    return values.reshape(packed["shape"]).copy()

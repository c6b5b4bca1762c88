"""The bytes that processes of a run exchange: JSON for the structure, safetensors for the arrays, no pickle.

Values are None, booleans, numbers, text, paths, lists, tuples, dicts, arrays, tensors, laser's dataclasses and errors.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from laser.core.errors import LaserError

_LENGTH = 8  # bytes of the length of the JSON, which comes first


def encode(value: Any) -> bytes:
    """Turn a value into bytes.

    Raises:
        TypeError: It holds something else than the module lists.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    structure = json.dumps(_plain(value, arrays)).encode()
    packed: bytes = safetensors.numpy.save(arrays)
    return len(structure).to_bytes(_LENGTH, "little") + structure + packed


def decode(data: bytes) -> Any:
    """Undo `encode`."""
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    return _value(json.loads(data[_LENGTH:end]), safetensors.numpy.load(data[end:]))


def _plain(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """JSON for a value: scalars as they are, anything else as {kind: content}; arrays are set aside by number."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return {type(value).__name__: [_plain(item, arrays) for item in value]}
        case dict():
            return {"dict": [[_plain(key, arrays), _plain(item, arrays)] for key, item in value.items()]}
        case Path():
            return {"path": str(value)}
        case np.ndarray():
            arrays[name := str(len(arrays))] = np.array(value, order="C")
            return {"array": name}
        case torch.Tensor():
            arrays[name := str(len(arrays))] = value.detach().cpu().contiguous().numpy()
            return {"tensor": name}
        case LaserError():
            return {"error": [_name_of(value), [str(argument) for argument in value.args]]}
        case _ if dataclasses.is_dataclass(value):
            fields = {one.name: _plain(getattr(value, one.name), arrays) for one in dataclasses.fields(value)}
            return {"record": [_name_of(value), fields]}
        case _:
            raise TypeError(f"processes cannot exchange a {type(value).__name__}")


def _value(plain: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    match kind:
        case "list":
            return [_value(item, arrays) for item in content]
        case "tuple":
            return tuple(_value(item, arrays) for item in content)
        case "dict":
            return {_value(key, arrays): _value(item, arrays) for key, item in content}
        case "path":
            return Path(content)
        case "array":
            return arrays[content]
        case "tensor":
            return torch.from_numpy(arrays[content])
        case "error":
            return _class_of(content[0], LaserError)(*content[1])
        case _:
            made = _class_of(content[0])
            return made(**{name: _value(item, arrays) for name, item in content[1].items()})


def _name_of(value: object) -> str:
    return f"{type(value).__module__}:{type(value).__qualname__}"


def _class_of(name: str, base: type = object) -> Any:
    """One of laser's dataclasses or errors by its name; raises TypeError for anything else."""
    module, _, qualified = name.partition(":")
    found = getattr(importlib.import_module(module), qualified, None) if module.startswith("laser.") else None
    if not isinstance(found, type) or not issubclass(found, base):
        raise TypeError(f"processes cannot exchange a {name}")
    if base is object and not dataclasses.is_dataclass(found):
        raise TypeError(f"processes cannot exchange a {name}")
    return found

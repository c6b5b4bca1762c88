"""Relative paths in a configuration start at the folder of its file; the schema says which fields are paths."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from laser.config.section import Local

RUN_REFERENCE = "{run:"
"""How a path begins that stands for the run of another cell of a suite."""


def absolute_paths(
    table: dict[str, Any], folder: Path, model: type[BaseModel], below: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A copy of a table in which every local path is absolute.

    Args:
        table: Fields of `model`, or a patch on them; keys that `model` lacks are copied.
        folder: Where relative paths start.
        model: The section that the table is validated against.
        below: What a patch is laid over: it has the types that the patch does not repeat.
    """
    return _table(table, [model], folder, below)


def _table(table: dict[str, Any], sections: Sequence[type[BaseModel]], folder: Path, below: Any) -> dict[str, Any]:
    """The type that tells the sections of a union apart may be unknown in a patch; then all of them are possible."""
    below = below if isinstance(below, Mapping) else {}
    kind = table.get("type", below.get("type"))
    possible = [section.model_fields for section in sections if kind is None or _type_of(section) in (None, kind)]
    return {
        key: _value(value, [fields[key] for fields in possible if key in fields], folder, below.get(key))
        for key, value in table.items()
    }


def _type_of(section: type[BaseModel]) -> Any:
    field = section.model_fields.get("type")
    return field.default if field is not None else None


def _value(value: Any, fields: Sequence[FieldInfo], folder: Path, below: Any) -> Any:
    if isinstance(value, str):
        marks = [mark for field in fields if (mark := _mark(field)) is not None]
        if not marks or len(marks) < len(fields):  # a path in some sections only: the whole configuration decides
            return value
        return _absolute(value, marks[0], folder)
    sections = [part for field in fields for part in _parts(field.annotation) if isinstance(part, type)]
    several = any(typing.get_origin(field.annotation) is tuple for field in fields)
    if isinstance(value, list | tuple):
        return [_table(item, sections, folder, None) if isinstance(item, dict) else item for item in value]
    if isinstance(value, dict) and several:  # a patch on a list names its entries
        entries = below if isinstance(below, list) else []
        named = {entry.get("name"): entry for entry in entries if isinstance(entry, dict)}
        return {
            name: _table(item, sections, folder, named.get(name)) if isinstance(item, dict) else item
            for name, item in value.items()
        }
    return _table(value, sections, folder, below) if isinstance(value, dict) else value


def _mark(field: FieldInfo) -> Local | None:
    return next((part for part in (*field.metadata, *_parts(field.annotation)) if isinstance(part, Local)), None)


def _parts(annotation: Any) -> Iterator[Any]:
    """Sections, and marks of local paths, inside an annotation."""
    if isinstance(annotation, Local) or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _parts(argument)


def _absolute(value: str, local: Local, folder: Path) -> str:
    if local.what == "source":
        return _source(value, folder)
    if local.what == "function":
        path, colon, name = value.rpartition(":")
        return f"{_path(path, folder)}:{name}" if colon else value
    return _path(value, folder)


def _path(value: str, folder: Path) -> str:
    return value if value.startswith(RUN_REFERENCE) else str(folder / _expanded(value))


def _source(value: str, folder: Path) -> str:
    """A hub id that no file or folder is named by stays unchanged."""
    if value.startswith("package:"):
        return value
    path = folder / _expanded(value)
    looks_local = value.startswith((".", "/", "~")) or value.endswith(".gguf")
    return str(path) if looks_local or _exists(path) else value


def _expanded(value: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError:  # ~name of a user without a home here
        return Path(value)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for a file
        return False

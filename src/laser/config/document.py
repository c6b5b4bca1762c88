"""The page docs/config.md, made from the schema: ``python -m laser.config.document``."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from laser.config.load import union_members
from laser.config.presets import PRESETS
from laser.config.schema import RunConfig


def document() -> str:
    """Return the page: one table per section, one row per field, with type, default and meaning."""
    lines = [
        "# Configuration",
        "",
        "Made from the schema by `make docs`. Any field can be overridden with `--set section.field=value`; a reward",
        "model is addressed by name, as in `--set rewards.models.NAME.normalization=sum`. Relative paths start at the",
        "file's folder.",
        "",
        *_section("run", RunConfig),
        *_presets(),
    ]
    return "\n".join(lines)


def _section(title: str, model: type[BaseModel]) -> Iterator[str]:
    yield from (f"## `{title}`", "", (model.__doc__ or "").strip(), "", "| field | type | default | meaning |")
    yield "|---|---|---|---|"
    nested: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        path = name if title == "run" else f"{title}.{name}"
        inner = _nested(field.annotation)
        nested.extend((_nested_title(path, item, len(inner)), item) for item in inner)
        default = _default(field.default, bool(inner))
        meaning = field.description or ("Which kind this is." if name == "type" else "")
        yield f"| `{name}` | {_type(field.annotation, inner)} | {default} | {_escape(meaning)} |"
    yield ""
    for inner_title, item in nested:
        yield from _section(inner_title, item)


def _nested(annotation: Any) -> list[type[BaseModel]]:
    if typing.get_origin(annotation) is tuple:
        return _nested(typing.get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return union_members(annotation)


def _nested_title(path: str, model: type[BaseModel], num_members: int) -> str:
    return f"{path}: {model.model_fields['type'].default}" if num_members > 1 else path


def _type(annotation: Any, inner: list[type[BaseModel]]) -> str:
    if inner:
        return "section" if len(inner) == 1 else "one of the sections below, by `type`"
    return _escape(_type_name(annotation))


def _type_name(annotation: Any) -> str:
    """A type as Python writes it, without constraints: `int | None`, `list[str]`, `"a" | "b"`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_type_name, arguments))
    if origin is typing.Literal:
        return " | ".join(f'"{value}"' if isinstance(value, str) else repr(value) for value in arguments)
    if origin is tuple:
        return f"list[{_type_name(arguments[0])}]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_type_name, arguments))}]"
    return "None" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _default(value: Any, is_section: bool) -> str:
    if is_section:
        return ""
    return "required" if value is PydanticUndefined else f"`{value!r}`"


def _presets() -> Iterator[str]:
    yield from ("## Presets", "", "| preset | field | value |", "|---|---|---|")
    for preset, sections in PRESETS.items():
        if not sections:
            yield f"| `{preset}` | every field | the defaults above |"
        for section, fields in sections.items():
            yield from (f"| `{preset}` | `{section}.{name}` | `{value!r}` |" for name, value in fields.items())


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(document())

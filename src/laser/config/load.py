"""Reading a configuration: TOML, ``--set a.b=value`` overrides, presets, and errors that name the cure."""

from __future__ import annotations

import difflib
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from laser.config.patch import Table
from laser.config.paths import absolute_paths
from laser.config.presets import apply_preset
from laser.config.router import LOOP_ONLY, RouterConfig
from laser.config.schema import RunConfig
from laser.config.section import IN_SECTION
from laser.config.tasks import apply_task
from laser.core.errors import ConfigError
from laser.core.files import read_bytes

Overrides = str | Sequence[str] | Mapping[str, Any]
"""Fields set over a configuration: ``key.path=value``, several of them, or a dict from key paths to values."""

Validated = TypeVar("Validated", bound=BaseModel)

_SHOWN = 200  # characters of a wrong value in a message
_DEFAULT_TYPES = {"selector": "linucb", "feedback": "quantile"}


def demo_config_path() -> Path:
    """Path of the configuration that `make demo` runs."""
    return Path(str(resources.files("laser.demo") / "demo.toml"))


def load_config(path: str | Path | None = None, overrides: Overrides = ()) -> RunConfig:
    """Read a TOML file, apply overrides, and validate.

    Args:
        path: The file; None means the demo's. Relative paths inside it start at its folder.
        overrides: Strings ``key.path=value``, the value TOML or a bare string; or a dict from key paths to values. A
            reward model is addressed by its name or number: ``rewards.models.NAME.normalization=sum``.

    Returns:
        The resolved configuration, its local paths absolute.

    Raises:
        ConfigError: The file is missing or malformed, a key is unknown, or values are impossible together.
    """
    path = Path(path) if path is not None else demo_config_path()
    table = read_toml(path)
    given = override_strings(overrides)
    apply_overrides(table, given)
    try:
        return parse_config(table, base_dir=path.parent, source="--set" if given else str(path))
    except ConfigError:
        if given:
            parse_config(read_toml(path), base_dir=path.parent, source=str(path))  # names the file where it is wrong
        raise


def override_strings(overrides: Overrides) -> list[str]:
    """Overrides as ``--set`` takes them, from however they were given in Python."""
    if isinstance(overrides, str):
        return [overrides]
    if isinstance(overrides, Mapping):
        return [f"{key}={'none' if value is None else json.dumps(value)}" for key, value in overrides.items()]
    return list(overrides)


def with_overrides(config: RunConfig, overrides: Overrides) -> RunConfig:
    """A configuration with some fields set, as `load_config` sets them; relative paths start at the working directory.

    Raises:
        ConfigError: A key is unknown, or values are impossible together.
    """
    if not overrides:
        return config
    table = config.model_dump(mode="json")
    apply_overrides(table, override_strings(overrides))
    return parse_config(table, source="--set")


def parse_config(table: Table, *, base_dir: str | Path = ".", source: str = "configuration") -> RunConfig:
    """Validate a nested dict, as read from TOML.

    Args:
        table: The configuration.
        base_dir: Folder at which relative paths start.
        source: What error messages call the configuration.

    Raises:
        ConfigError: A key is unknown or a value is impossible.
    """
    return _validated(apply_task(apply_preset(table)), RunConfig, base_dir, source)


def load_router_config(path: str | Path, overrides: Overrides = ()) -> RouterConfig:
    """Read the configuration of a router from a TOML file; see `load_config` and `parse_router_config`."""
    path = Path(path)
    table = read_toml(path)
    apply_overrides(table, override_strings(overrides))
    return parse_router_config(table, base_dir=path.parent, source=str(path))


def parse_router_config(table: Table, *, base_dir: str | Path = ".", source: str = "configuration") -> RouterConfig:
    """Validate a nested dict for a router.

    Args:
        table: The sections of `RouterConfig`; or a whole `RunConfig`, of which only these are used.
        base_dir: Folder at which relative paths start.
        source: What error messages call the configuration.

    Raises:
        ConfigError: A key is unknown, a value is impossible, or a router cannot do what it says.
    """
    if "policy" in table:
        unread = {"signal": set(LOOP_ONLY)}
        whole = parse_config(table, base_dir=base_dir, source=source).model_dump(mode="json", exclude=unread)
        return _validated({name: whole[name] for name in RouterConfig.model_fields}, RouterConfig, base_dir, source)
    known = {name: value for name, value in apply_preset(table).items() if name in table or name != "feedback"}
    return _validated(known, RouterConfig, base_dir, source)


def _validated(table: Table, model: type[Validated], base_dir: str | Path, source: str) -> Validated:
    _default_types(table)
    try:
        return model.model_validate(absolute_paths(table, Path(base_dir).resolve(), model))
    except ValueError as error:  # of which ValidationError is one
        raise ConfigError(f"{source}: {_problems(error, model)}") from error


def _problems(error: ValueError, model: type[BaseModel]) -> str:
    if not isinstance(error, ValidationError):  # what an integer of thousands of digits causes where a word belongs
        return str(error)
    return "; ".join(explain(item, model) for item in error.errors(include_url=False))


def read_toml(path: Path) -> Table:
    """Read a TOML file. Raises ConfigError where it cannot be read or is malformed."""
    try:
        return tomllib.loads(read_bytes(path, follow=True).decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"configuration file {path} does not exist; check the path") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder; name the .toml file inside it") from error
    except OSError as error:
        raise ConfigError(f"configuration file {path} is not readable ({error.strerror}); check it") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not valid TOML: nested too deeply") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def apply_overrides(table: Table, overrides: Sequence[str]) -> None:
    """Set values, ``key.path=value``, in a nested dict.

    A section that gets another type loses its other fields, as in a suite; what the overrides set in it stays, and of
    a section without a type whatever the new type has as well.

    Raises:
        ConfigError: An override names no place in the table.
    """
    for override in overrides:
        _clear_other_type(table, override)
    for override in overrides:
        apply_override(table, override)


def _clear_other_type(table: Table, override: str) -> None:
    key, _, text = override.partition("=")
    *parents, last = key.strip().split(".")
    if last != "type":
        return
    node: Any = table
    for part in parents:
        node = _descend(node, part, override)
    if not isinstance(node, dict):
        return
    new = _toml_value(text.strip()) or "none"
    if "type" not in node:
        kept = set(_keys_at([*parents, new], RunConfig)) or set(node)
    elif node["type"] == new:
        return
    else:
        kept = {"name"} if "models" in parents else set()
    for name in node.keys() - kept:
        del node[name]


def apply_override(table: Table, override: str) -> None:
    """Set one value, ``key.path=value``, in a nested dict. Raises ConfigError where it names no place in it."""
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override!r} has no '='; write --set section.key=value")
    *parents, last = key.strip().split(".")
    node: Any = table
    for part in parents:
        node = _descend(node, part, override)
    if isinstance(node, list):
        raise ConfigError(f"--set {override!r} ends at a list; name one of its entries and a key in it")
    value = _toml_value(text.strip())
    node[last] = "none" if value is None and last == "type" else value


def _descend(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        tables = {str(index): item for index, item in enumerate(node) if isinstance(item, dict)}
        for index, item in tables.items():
            if part in (index, item.get("name")):
                return item
        names = ", ".join(str(item.get("name", index)) for index, item in tables.items()) or "none"
        raise ConfigError(f"--set {override!r}: no entry {part!r} in the list; it holds {names}")
    child = node.setdefault(part, {})
    if not isinstance(child, dict | list):
        raise ConfigError(f"--set {override!r}: {part!r} is a value, not a section")
    return child


def _toml_value(text: str) -> Any:
    if text.lower() in ("none", "null"):
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _default_types(table: Table) -> None:
    """A selector section without a type means LinUCB, feedback without one quantiles; other unions have no default."""
    for section, default in _DEFAULT_TYPES.items():
        if isinstance(table.get(section), dict):
            table[section] = {"type": default, **table[section]}


def explain(item: Any, root: type[BaseModel] = RunConfig) -> str:
    """One clause for one validation error of a model, with the nearest known key or the allowed values."""
    location = tuple(item["loc"])
    where = _dotted(location, root)
    match item["type"]:
        case "extra_forbidden":
            known = _keys_at(location[:-1], root)
            elsewhere = [repr(key) for key in _sections_with(str(location[-1]), root)]
            nearest = elsewhere or list(map(repr, difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)))
            hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known keys: {', '.join(known)}"
            return f"unknown key {where!r}; {hint}"
        case "missing":
            return f"{where!r} is missing; add it"
        case "union_tag_not_found":
            return f"{where}.type is missing; choose one of {_tags(location, root)}"
        case "union_tag_invalid":
            return f"{where}.type is {item['ctx']['tag']!r}; choose one of {item['ctx']['expected_tags']}"
        case "value_error":
            return str(item["ctx"]["error"])
        case given if given == IN_SECTION:
            return f"{where}: {item['msg']}" if where else str(item["msg"])
        case _:
            message = item["msg"][0].lower() + item["msg"][1:]
            return f"{where}: {message}, got {_shown(where, item['input'])}"


def _shown(where: str, value: Any) -> str:
    """A value for a message, shortened; what stands where the name of a key's variable belongs may be the key."""
    if where.endswith("api_key_env"):
        return "something else than the name of a variable"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a list in a list in a list ...
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _dotted(location: Iterable[Any], root: type[BaseModel]) -> str:
    """The location as the user writes it: union tags that validation inserts are left out."""
    parts: list[str] = []
    annotation: Any = root
    for part in location:
        if _is_union_tag(annotation, part):
            annotation = _member(annotation, part)
            continue
        parts.append(str(part))
        annotation = _child(annotation, part)
    return ".".join(parts)


def _keys_at(location: Iterable[Any], root: type[BaseModel]) -> list[str]:
    annotation: Any = root
    for part in location:
        annotation = _member(annotation, part) if _is_union_tag(annotation, part) else _child(annotation, part)
    return sorted(annotation.model_fields) if _is_model(annotation) else []


def _sections_with(key: str, root: type[BaseModel]) -> list[str]:
    """Where a key belongs that was written without its section, or in another one."""
    return [f"{section}.{key}" for section in root.model_fields if key in _keys_at([section], root)]


def _tags(location: Iterable[Any], root: type[BaseModel]) -> str:
    annotation: Any = root
    for part in location:
        annotation = _child(annotation, part)
    return ", ".join(repr(member.model_fields["type"].default) for member in union_members(annotation))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def union_members(annotation: Any) -> list[type[BaseModel]]:
    """The models of a union (through Annotated), or nothing for another annotation."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [member for member in typing.get_args(annotation) if _is_model(member)]
    return []


def _is_union_tag(annotation: Any, part: Any) -> bool:
    members = union_members(annotation)
    return len(members) > 1 and any(member.model_fields["type"].default == part for member in members)


def _member(annotation: Any, tag: Any) -> type[BaseModel]:
    return next(member for member in union_members(annotation) if member.model_fields["type"].default == tag)


def _child(annotation: Any, part: Any) -> Any:
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return field.annotation if field is not None else None
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)[0]
    if typing.get_origin(annotation) is dict:
        return typing.get_args(annotation)[1]
    return None

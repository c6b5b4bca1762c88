"""Python files that the configuration names: each is imported once a run, and may import its neighbors."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from laser.core.errors import RewardModelError
from laser.rewards.undisturbed import said, undisturbed

_FILES: dict[Path, ModuleType] = {}
"""The module of each file of this run."""

_NEIGHBORS: dict[Path, dict[str, ModuleType]] = {}
"""By folder: the modules that its files have imported from it. Two folders may each have a ``helpers.py``."""


def forget_files() -> None:
    """Begin a run: every file is imported afresh, so that no state of an earlier run is left in it."""
    for module in _FILES.values():
        sys.modules.pop(module.__name__, None)
    for neighbors in _NEIGHBORS.values():
        _hide(neighbors)
    _FILES.clear()
    _NEIGHBORS.clear()


def load_function(spec: str) -> Callable[..., Any]:
    """Return the function, or the class, that ``path.py:name`` means; functions of one file share its module.

    Raises:
        RewardModelError: The file or function is missing, fails to import, or is not callable.
    """
    path, name = _parts(spec)
    if path not in _FILES:
        _FILES[path] = _imported(path)
    function = getattr(_FILES[path], name, None)
    if function is None:
        raise RewardModelError(f"{path} has no function {name!r}; check the name after the colon")
    if not callable(function):
        raise RewardModelError(f"{name!r} in {path} is not a function but a {type(function).__name__}")
    return function


def folder_of(spec: str) -> Path:
    """Return the folder of the file in ``path.py:name``. Raises RewardModelError if there is no such file."""
    return _parts(spec)[0].parent


def function_fingerprint(spec: str) -> str:
    """Identity of a function: its name and the SHA-256 of its file and of the neighbors that the file imports."""
    path, name = _parts(spec)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in _sources(path)]
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return f"function:{name}:{whole}"


@contextmanager
def neighbors_of(folder: Path | None) -> Iterator[None]:
    """Put a folder first on ``sys.path``, as ``python FILE`` does, and bring back what was imported from it."""
    if folder is None:
        yield
        return
    mine = _NEIGHBORS.setdefault(folder, {})
    for other, neighbors in _NEIGHBORS.items():
        if other != folder:
            _hide(neighbors)
    sys.modules.update(mine)
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the code itself may have removed it
            sys.path.remove(str(folder))
        if len(sys.modules) != len(before):
            new = {name: sys.modules[name] for name in set(sys.modules) - before}
            mine |= {name: module for name, module in new.items() if _is_in(folder, module)}


def _imported(path: Path) -> ModuleType:
    name = f"laser_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise RewardModelError(f"{path} is not a Python file; write path.py:function")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # where dataclasses look up the names in their annotations
    try:
        with undisturbed(), neighbors_of(path.parent):
            module_spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise RewardModelError(f"{path} cannot be imported: {said(error)}; fix the file") from error
    return module


def _hide(modules: dict[str, ModuleType]) -> None:
    for name, module in modules.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]


def _is_in(folder: Path, module: ModuleType) -> bool:
    """Whether a module is a file or package of the folder itself, not of an environment inside it."""
    top = module.__name__.partition(".")[0]
    files = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    home = str(folder / top)
    return any(file in (home, f"{home}.py") or file.startswith(home + os.sep) for file in files if file)


def _sources(path: Path) -> list[Path]:
    """The file, then every file of its folder that it imports, directly or through another, in a fixed order."""
    found: list[Path] = []
    waiting = [path]
    while waiting:
        file = waiting.pop(0)
        if file in found:
            continue
        found.append(file)
        for top in sorted(_imports(file)):
            package = path.parent / top
            if package.with_suffix(".py").is_file():
                waiting.append(package.with_suffix(".py"))
            elif package.is_dir():
                waiting += sorted(package.rglob("*.py"))
    return found


def _imports(file: Path) -> set[str]:
    """Top-level names that a file imports anywhere; none where it is not valid Python, which importing reports."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError):
        return set()
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    whole |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in whole}


def _parts(spec: str) -> tuple[Path, str]:
    file, separator, name = spec.rpartition(":")
    if not separator or not file or not name:
        raise RewardModelError(f"{spec!r} is not of the form path.py:function")
    path = Path(file)
    if not path.is_file():
        raise RewardModelError(f"Python file {path} does not exist; check the path")
    return path.resolve(), name

"""The import directions of docs/design.md, and the sizes a reader can hold in the head."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "laser"
BASE = {"types", "errors", "addresses", "seeding", "statefiles", "ranks", "meeting", "memory", "tasks"}
ALLOWED = {
    **dict.fromkeys(BASE, BASE),
    "config": {*BASE, "config"},
    "bandits": {*BASE, "bandits"},
    "lm": {*BASE, "lm"},
    "data": {*BASE, "data"},
    "serving": {*BASE, "serving"},
    "rewards": {*BASE, "lm", "serving", "rewards"},
    "policy": {*BASE, "lm", "serving", "policy"},
    "evaluation": {*BASE, "evaluation"},
    "training": {*BASE, "bandits", "rewards", "policy", "evaluation", "training"},
    "analysis": {*BASE, "analysis"},
    "demo": {"types", "demo"},
}
LIGHT = (
    "types",
    "errors",
    "seeding",
    "statefiles",
    "tasks",
    "serving",
    "config",
    "bandits",
    "data",
    "evaluation",
    "analysis",
    "cli",
)
FILES = sorted(SOURCE.rglob("*.py"))


def package(path):
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(tree):
    """Every module imported anywhere in the file, under TYPE_CHECKING and inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module


def test_there_are_files_to_check():
    assert len(FILES) > 40


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_follow_the_directions(path):
    home = package(path)
    if home not in ALLOWED:
        return  # the composition root and what lies above it
    for name in imports(ast.parse(path.read_text())):
        if name.startswith("laser."):
            assert name.split(".")[1] in ALLOWED[home], f"{home} must not import {name}"
        elif name == "laser":
            raise AssertionError(f"{home} must not import the top of the package")


@pytest.mark.parametrize("home", LIGHT)
def test_light_packages_do_not_import_torch(home):
    for path in FILES:
        if package(path) == home:
            modules = {name.split(".")[0] for name in imports(ast.parse(path.read_text()))}
            assert not modules & {"torch", "transformers", "peft"}, path


def functions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(SOURCE)}:{node.name}", node.end_lineno - node.lineno + 1


def test_functions_and_files_stay_small():
    lengths = dict(functions())
    too_long = {name: length for name, length in lengths.items() if length > 80}
    assert too_long == {}
    assert sorted(lengths.values())[len(lengths) // 2] <= 13
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > 400] == []


def test_config_objects_do_not_enter_domain_classes():
    for path in FILES:
        if package(path) in ALLOWED and package(path) != "config":
            assert not any(
                "config" in name for name in imports(ast.parse(path.read_text())) if name.startswith("laser")
            )

"""The import directions of docs/design.md, and the sizes a reader can hold in the head."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "laser"
FILES = sorted(SOURCE.rglob("*.py"))


def test_imports_follow_the_contracts():
    """The contracts are in pyproject.toml; `exhaustive` there makes a package without a layer an error."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=SOURCE.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/design.md"])
def test_the_trees_in_the_pages_list_the_packages(page):
    (tree,) = re.findall(r"^src/laser/\n(.*?)^```", (SOURCE.parents[1] / page).read_text(), re.DOTALL | re.MULTILINE)
    listed = {line.split("/")[0].strip() for line in tree.splitlines() if "/" in line.split()[0]}
    assert listed == {path.parent.name for path in SOURCE.glob("*/__init__.py")}


def functions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(SOURCE)}:{node.name}", node.end_lineno - node.lineno + 1


@pytest.mark.slow
def test_functions_and_files_stay_small():
    lengths = dict(functions())
    too_long = {name: length for name, length in lengths.items() if length > 80}
    assert too_long == {}
    assert sorted(lengths.values())[len(lengths) // 2] <= 13
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > 400] == []


def test_the_table_of_what_we_write_ourselves_counts_its_lines():
    table = (SOURCE.parents[1] / "docs" / "design.md").read_text().partition("### What we write ourselves")[2]
    rows = re.findall(r"^\| [^|]*?\((`[^|]*`)\) \| ([\d,]+) \|", table.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) > 20
    for parts, stated in rows:
        folder, count = SOURCE, 0
        for part in re.findall(r"`([^`]+)`", parts):
            found = SOURCE / part if "/" in part else folder / part
            folder = found.parent
            count += sum(
                len(file.read_text().splitlines()) for file in ([found] if found.is_file() else found.rglob("*.py"))
            )
        assert count == pytest.approx(int(stated.replace(",", "")), rel=0.2), parts

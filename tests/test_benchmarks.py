"""Benchmarks start: their imports, options and shared configuration fit the library."""

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_explains_its_options(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert exit_.value.code == 0
    assert f"usage: {name}" in capsys.readouterr().out


def test_the_batch_of_benchmarks_is_a_valid_configuration():
    common = runpy.run_path(str(FOLDER / "common.py"))
    config = common["batch_config"](30, 16, 10, temperature=0.8)
    assert (config.generation.num_responses, config.training.pairs_per_prompt) == (30, 10)

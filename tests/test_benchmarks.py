"""Benchmarks start: their imports, options and shared configuration fit the library."""

import runpy
import sys
from pathlib import Path

import pytest

from tiny import save_model

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


@pytest.mark.parametrize(
    "command",
    [
        "batch_speed.py --prompts 1 --responses 6 --new-tokens 4 --prompt-tokens 8 --repeats 1",
        "online_step_speed.py --prompts 2 --new-tokens 4 --prompt-tokens 8 --repeats 1 --many 0",
        "policy_speed.py --repeats 1",
        "trl_speed.py --prompts 1 --responses 4 --pairs 2 --prompt-tokens 8 --response-tokens 4 --repeats 1",
    ],
)
def test_a_benchmark_of_the_loop_runs_with_a_tiny_model(command, tmp_path, monkeypatch, capsys):
    name, *options = command.split()
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [name, "--model", str(save_model(tmp_path / "tiny")), *options])
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert "times" in capsys.readouterr().out


def test_the_batch_of_benchmarks_is_a_valid_configuration():
    common = runpy.run_path(str(FOLDER / "common.py"))
    config = common["batch_config"](30, 16, 10, temperature=0.8)
    assert (config.generation.num_responses, config.training.pairs_per_prompt) == (30, 10)

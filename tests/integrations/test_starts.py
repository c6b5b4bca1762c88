"""The example of docs/integrations.md and the starting points of `laser init --for`, with a tiny model."""

import ast
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import laser
from laser.cli.main import app
from tiny import save_model

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_example_trains(tmp_path, monkeypatch, capsys):
    pytest.importorskip("trl", reason="trl is not installed; run make test")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    model = str(save_model(tmp_path / "base", scale=0.15))
    monkeypatch.setattr(sys, "argv", ["trl_grpo.py", model, str(tmp_path / "out"), "2"])
    made = runpy.run_path("examples/trl_grpo.py")
    scored = ast.literal_eval(capsys.readouterr().out.strip().splitlines()[-1])
    assert set(scored) == {"polite", "brief"}
    assert sum(scored.values()) >= 2 * 8
    assert any("bandit/chosen/polite" in record for record in made["trainer"].state.log_history)


def start(folder):
    result = CliRunner().invoke(app, ["init", str(folder), "--for", "trl"])
    assert result.exit_code == 0, result.output
    return folder


def test_a_starting_point_scores_its_own_prompts(tmp_path):
    folder = start(tmp_path / "mine")
    assert {path.name for path in folder.iterdir()} == {"prompts.jsonl", "rewards.py", "run.toml", "train.py"}
    router = laser.Router(folder / "run.toml")
    rows = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()[:8]]
    for step in range(3):
        prompts = [row["prompt"] for row in rows for _ in range(2)]
        responses = [said for row in rows for said in (f"it is {row['answer']}", "no idea at all")]
        golds = [row["answer"] for row in rows for _ in range(2)]
        router.score(prompts, responses, step, golds)
        router.learn(step)
    assert {choice.name for choice in router.choose(["another"], 9)} == {"correct"}


@pytest.mark.slow
def test_a_starting_point_trains_and_resumes(tmp_path, monkeypatch):
    pytest.importorskip("trl", reason="trl is not installed; run make test")
    folder = start(tmp_path / "mine")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    model = str(save_model(tmp_path / "base", scale=0.15))
    script = (folder / "train.py").read_text()
    assert "max_steps=100" in script
    for steps, flags in ((2, []), (3, ["--resume"])):
        small = script.replace("max_steps=100", f"max_steps={steps}").replace("save_steps=20", "save_steps=2")
        (folder / "train.py").write_text(small.replace("max_completion_length=64", "max_completion_length=4"))
        monkeypatch.setattr(sys, "argv", ["train.py", model, *flags])
        made = runpy.run_path("train.py")
    assert made["adaptive"].router._groups.learned_step == 2
    shutil.rmtree(folder)

"""What every command that loads models sets up first."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import laser.cli
from laser.cli import environment
from laser.cli.main import main
from runs import make_table
from suites import write_toml


def test_what_the_user_has_set_stays_and_libraries_are_quiet(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        environment.prepare()
        warnings.warn("of a library", FutureWarning, stacklevel=1)
        warnings.warn("of ours", UserWarning, stacklevel=1)
    assert [one.category for one in warned] == [UserWarning]
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"


def test_no_command_sets_up_only_a_part_of_it():
    files = {path.stem: path.read_text() for path in Path(laser.cli.__file__).parent.glob("*.py")}
    users = {name for name, text in files.items() if "    prepare()\n" in text}
    assert users == {
        "best_of_n",
        "chat",
        "compare",
        "eval",
        "label",
        "probe",
        "rewardbench",
        "serve_rewards",
        "sft",
        "task_tables",
        "train",
        "train_classifier",
    }
    assert [name for name, text in files.items() if "ENVIRONMENT.items()" in text] == ["environment"]


@pytest.mark.slow
def test_plain_lines_have_no_progress_bars_of_libraries(tmp_path):
    table = make_table(tmp_path, "vowels", training={"iterations": 1, "batches_per_iteration": 1}, split={"dev": 0})
    write_toml(tmp_path / "run.toml", table)
    unset = {
        name: value for name, value in os.environ.items() if not {"TQDM", "PROGRESS", "VERBOSITY"} & {*name.split("_")}
    }
    done = subprocess.run(
        [sys.executable, "-m", "laser", "train", "run.toml", "--out", "run"],
        cwd=tmp_path,
        env=unset,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    assert "iteration 1 batch 1" in said
    assert "\r" not in said
    assert "it/s" not in said
    assert "Loading weights" not in said


@pytest.mark.parametrize("command", ["label", "eval"])
def test_a_command_of_one_process_refuses_a_launcher_of_several(monkeypatch, capsys, command):
    """Each would do the whole work, in the same folder. Other systems set WORLD_SIZE, too."""
    monkeypatch.setattr("sys.argv", ["laser", command, "nowhere.toml"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    for launcher, said in (
        ("TORCHELASTIC_RUN_ID", f"laser {command} runs in one process, but"),
        ("OTHER", "nowhere.toml"),
    ):
        monkeypatch.setenv(launcher, "1")
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
        monkeypatch.delenv(launcher)

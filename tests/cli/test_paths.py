"""Paths that cannot be used: one sentence and exit code 2 from every command, and before anything heavy is loaded."""

import errno
import os
import sys
from pathlib import Path

import pytest

from laser.cli import main as cli
from laser.commands import train as api
from laser.core.errors import RunDirectoryError
from laser.training.run_directory import RunDirectory, check_free
from runs import make_table

LONG = "x" * 300


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text("seed = 3\n")
    return tmp_path


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["laser", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code, capsys.readouterr().err


COMMANDS = {
    "train, --out too long": (["train", "--out", LONG], "choose another --out"),
    "train, --out under a file": (["train", "--out", "run.toml/x"], "is a file, so run.toml/x cannot be made"),
    "train, --resume too long": (["train", "--resume", LONG], "check the path given to --resume"),
    "train, configuration too long": (["train", f"{LONG}.toml"], LONG),
    "lab build, --folder a file": (["lab", "build", "--folder", "run.toml"], "cannot use run.toml"),
    "init, too long": (["init", LONG], LONG),
    "simulate, --out a file": (
        ["simulate", "--env", "linear", "--selector", "ucb1", "--seeds", "1", "--rounds", "10", "--out", "run.toml"],
        "run.toml",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_path_that_cannot_be_used_is_one_sentence(folder, monkeypatch, capsys, name):
    arguments, words = COMMANDS[name]
    code, err = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert err.startswith("laser: error: ")
    assert words in " ".join(err.split())
    assert "Traceback" not in err
    assert sorted(path.name for path in folder.iterdir()) == ["run.toml"]


def test_an_error_of_the_system_without_a_path_is_a_sentence(monkeypatch, capsys):
    def broken():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "laser: error: an operation of the system failed (Too many open files)\n"


def test_folders_that_may_not_be_entered_are_named(tmp_path, monkeypatch):
    """As a user who may not enter the folder meets it; root may enter every one."""

    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(os.path, "exists", lambda path: refuse(path))
    with pytest.raises(RunDirectoryError, match=r"run \(Permission denied\); choose another --out"):
        check_free(tmp_path / "closed" / "run")
    with pytest.raises(RunDirectoryError, match=r"run \(Permission denied\); check the path given to --resume"):
        RunDirectory.reopen(tmp_path / "closed" / "run")


def test_a_read_only_folder_is_reported_before_models_are_loaded(tmp_path, monkeypatch):
    table = make_table(tmp_path, "vowels")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    monkeypatch.setattr(api, "build", lambda *_, **__: pytest.fail("models are loaded"))
    with pytest.raises(RunDirectoryError, match=r"cannot write to .*deep/run \(no permission in .*\); choose another"):
        api.train(table, tmp_path / "deep" / "run")

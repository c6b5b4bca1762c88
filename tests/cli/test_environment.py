"""What every command that loads models sets up first."""

import os
import warnings
from pathlib import Path

import laser.cli
from laser.cli import environment


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
        "rewardbench",
        "task_tables",
        "train",
        "train_classifier",
    }
    assert [name for name, text in files.items() if "ENVIRONMENT.items()" in text] == ["environment"]

"""Outputs that cannot take what is printed: full, closed, or without the characters. One sentence, no traceback."""

import io
import json
import os
import re
import subprocess
import sys

import pytest

from laser.analysis.summary import summarize
from laser.cli import main
from laser.cli.progress import LiveProgress, PlainProgress
from laser.cli.result import print_fine_tuned
from laser.cli.terminal import SafeConsole
from laser.commands.train import RunResult
from laser.evaluation.unreadable import collect_unreadable


def laser(*arguments, **options):
    command = [sys.executable, "-m", "laser.cli.main", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, **options)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("tasks",), ("tasks", "show", "gsm8k")])
def test_a_full_standard_output(arguments):
    with open("/dev/full", "w") as full:
        done = laser(*arguments, stdout=full)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "laser: error: cannot write the output (No space left on device)" in done.stderr


@pytest.mark.slow
def test_a_closed_standard_output():
    done = laser("tasks", preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_reader_that_has_ended():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = laser("tasks", stdout=pipe)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_characters_that_the_encoding_lacks_are_shown_as_escapes(tmp_path):
    (tmp_path / "\u65e5.toml").write_text("[policy]\nmodel = 1\n")
    done = laser(
        "train",
        "\u65e5.toml",
        "--dry-run",
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert done.returncode == 2
    assert "\\u65e5.toml" in done.stderr


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: os.stat("\ud800"), "the locale's encoding utf-8 lacks characters of '\\ud800'; set LC_ALL=C.UTF-8"),
        (lambda: os.lseek(os.pipe()[0], 0, os.SEEK_SET), "an operation of the system failed (Illegal seek)"),
    ],
)
def test_errors_of_the_system_are_a_sentence(monkeypatch, capsys, work, words):
    monkeypatch.setattr(main, "app", work)
    assert main._run() == 2
    assert words in capsys.readouterr().err


def check_of(num_unread, batches):
    """The record of a dev check of ten answers, the first of which cannot be read."""
    problems = [(f"q{i}", "there is no number" if i < num_unread else "", f"about [b]{i}") for i in range(10)]
    counts = {"accuracy": 0.5, "by_category": {"all": 0.5}, "num_prompts": 10, "batches": batches}
    return {**counts, **collect_unreadable(problems).as_record()}


@pytest.mark.parametrize("display", [PlainProgress, LiveProgress])
def test_a_check_before_training_shows_three_unreadable_answers_and_what_to_set(display):
    console = SafeConsole(file=io.StringIO(), force_terminal=display is LiveProgress, width=400)
    progress = display(console)
    progress.evaluation(check_of(4, batches=0))
    if display is LiveProgress:
        progress.close()
    shown = re.sub(r"\x1b\[[\d;?]*\w", "", console.file.getvalue())  # without colors
    assert "4 of 10 answers cannot be read and count as wrong:" in shown
    assert [f"q{i}: there is no number; the response ends: 'about [b]{i}'" in shown for i in range(4)] == [
        *(True, True, True, False),
    ]
    assert "set evaluation.answer to where answers are" in shown
    assert "data.answer_type" in shown
    assert "evaluation.max_new_tokens" in shown


def test_the_end_of_training_shows_the_unreadable_answers_of_its_last_check(tmp_path):
    console = SafeConsole(file=io.StringIO(), force_terminal=False, width=400)
    (tmp_path / "config.json").write_text(json.dumps({"evaluation": {"temperature": 0}}))
    summary = summarize([], [check_of(4, batches=0), check_of(2, batches=3)], ())
    print_fine_tuned(RunResult(tmp_path, summary), console)
    shown = console.file.getvalue()
    assert "answers that could not be read, counted as wrong: 4 before, 2 after" in shown
    assert "2 of 10 answers cannot be read and count as wrong:" in shown
    assert shown.count("there is no number; the response ends: 'about [b]") == 2
    assert "set evaluation.answer" not in shown  # not more than a fifth

"""Outputs that cannot take what is printed: full, closed, or without the characters. One sentence, no traceback."""

import os
import subprocess
import sys

import pytest

from laser.cli import main


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

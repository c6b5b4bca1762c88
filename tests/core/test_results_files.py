"""`--out` loses nothing of the user's: what it names is found fit before any work, whatever command has it."""

import json
import os
import sys
from pathlib import Path

import pytest

from laser.cli import main as cli
from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.outputs import JUDGED, MEASURED, results_file, write_results

MEASURED_FILE = '{"metric": "accuracy", "split": "dev", "policies": {}}'
JUDGED_FILE = '{"baseline": "b", "judge": "j", "judged": {}}'
OTHERS = [
    "",
    "{",
    "[]",
    "3",
    "{}",
    '{"metric": 1}',
    '["metric", "policies"]',
    '{"baseline": 1, "policies": 2}',
    "[" * 10**5,
]


@pytest.mark.parametrize("content", OTHERS, ids=range(len(OTHERS)))
def test_a_file_that_is_not_of_the_commands_own_kind_is_refused(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"mine\.json holds something else than results of this command"):
        results_file(path, replaces=(MEASURED, JUDGED))
    with pytest.raises(ConfigError, match=r"mine\.json exists already; choose another --out"):
        results_file(path)
    assert path.read_text() == content


def test_earlier_results_are_replaced_where_the_command_says_so(tmp_path):
    path = tmp_path / "r.json"
    for content in (MEASURED_FILE, JUDGED_FILE):
        path.write_text(content)
        assert results_file(path, replaces=(MEASURED, JUDGED)) == path
        with pytest.raises(ConfigError, match="something else"):
            results_file(path, replaces=(frozenset({"seeds", "regret"}),))
        assert path.read_text() == content


def test_an_input_is_refused_under_any_of_its_names(tmp_path):
    given = tmp_path / "pairs.json"
    given.write_text(MEASURED_FILE)
    (tmp_path / "soft.json").symlink_to(given)
    os.link(given, tmp_path / "hard.json")
    (tmp_path / "sub").mkdir()
    for name in ("pairs.json", "soft.json", "hard.json", "sub/../pairs.json"):
        with pytest.raises(ConfigError, match="is one of the inputs; choose another --out"):
            results_file(tmp_path / name, inputs=[None, tmp_path / "other", given], replaces=(MEASURED,))


def test_only_json_files_are_written_and_their_folder_is_made(tmp_path):
    for name in ("scores.py", "run.toml", "results", ".json", "r.json.bak"):
        with pytest.raises(ConfigError, match=r"does not end in \.json"):
            results_file(tmp_path / name)
    assert results_file(None) is None
    with pytest.raises(ConfigError, match="is a folder"):
        results_file(tmp_path)
    path = results_file(tmp_path / "a" / "b" / "r.json")
    assert list(path.parent.iterdir()) == []
    write_results(path, {"value": float("nan"), "of": (1, 2)})
    assert json.loads(path.read_text()) == {"value": None, "of": [1, 2]}


def test_what_cannot_be_written_is_a_sentence_before_and_after(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (Path("/proc/r.json"), tmp_path / "file" / "r.json"):
        with pytest.raises(RunDirectoryError, match=r"cannot write to .*r\.json \(.*\); choose another --out"):
            results_file(path)
    with pytest.raises(RunDirectoryError, match="cannot write to"):
        write_results(tmp_path / "gone" / "r.json", {})


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["laser", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code, " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "out", "words"),
    [
        (["rewardbench", "p.jsonl", "--config", "run.toml"], "p.jsonl", "one of the inputs"),
        (["rewardbench", "p.jsonl", "--config", "run.toml"], "run.toml", "one of the inputs"),
        (["rewardbench", "p.jsonl"], "bench.json", "exists already"),
        (["rewardbench", "p.jsonl"], "p.jsonl/x.json", "cannot write to"),
        (["eval", "run.toml"], "run.toml", "one of the inputs"),
        (["eval", "run.toml"], "scores.py", "does not end in .json"),
        (["eval", "run.toml"], "bench.json", "something else"),
        (["eval", "r.json", "s.json", "--judge", "judge.toml"], "s.json", "one of the inputs"),
        (["eval", "r.json", "--judge", "judge.toml", "--difficulty", "d.json"], "d.json", "one of the inputs"),
        (["eval", "r.json", "s.json", "--judge", "judge.toml"], "judge.toml", "does not end in .json"),
        (["eval", "r.json", "s.json", "--judge", "judge.toml"], "bench.json", "something else"),
        (["simulate", "--env", "linear"], "p.jsonl", "--out"),
        (["simulate", "--env", "linear"], "sim", "choose another --out"),
        (["simulate", "--env", "linear"], "pictures", "choose another --out"),
    ],
)  # fmt: skip
def test_no_command_writes_over_what_is_the_users(tmp_path, monkeypatch, capsys, arguments, out, words):
    """Nothing else is there to work with, so that a refusal that comes too late is another message."""
    monkeypatch.chdir(tmp_path)
    for name in ("p.jsonl", "run.toml", "bench.json", "scores.py", "r.json", "s.json", "d.json", "sim/regret.json"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("mine")
    Path("judge.toml").write_text('url = "http://127.0.0.1:1"\nmodel = "j"\n')
    Path("pictures").mkdir()
    Path("pictures/regret.png").write_text("mine")
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    code, err = command(monkeypatch, capsys, *arguments, "--out", out)
    assert (code, err.count("laser: error: ")) == (2, 1)
    assert words in err
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before

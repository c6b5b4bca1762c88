"""`laser eval` as a user meets it: tables, what is written, and one sentence for every mistake."""

import json
import re
import sys

import pytest

import laser
from laser.cli import main as cli
from runs import make_table
from servers import rate, serving


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["laser", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    laser.train(make_table(folder, "vowels", training={"iterations": 1, "learning_rate": 0.05}), folder / "run")
    return folder / "run"


@pytest.mark.slow
def test_the_tables_of_accuracy(run, tmp_path, monkeypatch, capsys):
    code, out, _ = command(monkeypatch, capsys, "eval", run, "--base", "--out", tmp_path / "r.json")
    assert code == 0
    for words in ("4 dev prompts", "accuracy", "no answer", "cut", "arithmetic", "0.000 to 0.490"):
        assert words in out
    assert re.search(
        r"^run - base: \+0\.000 \(95% interval .*, paired\); 0 prompts better, 0 worse$", out, re.MULTILINE
    )
    assert "run: 4 of 4 answers cannot be read and count as wrong:" in out
    assert out.count("there is no 'Final answer:'; the response ends:") == 2 * 3
    assert "set evaluation.answer to where answers are" in out
    assert json.loads((tmp_path / "r.json").read_text())["policies"]["run"]["num_unparseable"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.base.jsonl", "r.json", "r.run.jsonl"]


@pytest.mark.slow
def test_the_tables_of_a_judge(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "ours.jsonl").write_text("".join(f'{{"prompt": "{i}", "response": "{i}"}}\n' for i in range(9)))
    (tmp_path / "theirs.jsonl").write_text("".join(f'{{"prompt": "{i}", "response": "no"}}\n' for i in range(9)))
    files = [tmp_path / "theirs.jsonl", tmp_path / "ours.jsonl"]
    with serving(lambda *_: rate("A")) as server:
        arguments = ["--judge", server.url, "--judge-set", "model=j", "--out", tmp_path / "r.json"]
        code, out, _ = command(monkeypatch, capsys, "eval", *files, *arguments)
        assert code == 0
        for words in ("Against theirs, by j", "at equal length", "0/9/0", "9 of 9", "9 contradictory"):
            assert words in " ".join(out.split())
        assert "what was shown first is preferred by 100.0%" in out
        assert "asked: 18 requests (0 more from the cache); tokens in 0, out 0, 18 replies without a count" in out
        assert "no win rate at equal length" in out
        code, out, _ = command(monkeypatch, capsys, "eval", *files, *arguments)
        assert "asked: 0 requests (18 more from the cache)" in out
    with serving(lambda path, payload, number: 402 if number > 2 else rate("Hm")) as server:
        code, _, err = command(monkeypatch, capsys, "eval", *files, "--judge", server.url, "--judge-set", "model=j")
        assert code == 2
        assert "gave no verdict on any of 9 prompts" in err


MISTAKES = [
    (["{t}/none"], "none holds no run"),
    (["{r}", "--judge-set", "model=j"], "add --judge"),
    (["{r}", "--difficulty", "x.jsonl"], "add --judge"),
    (["{r}", "--split", "test"], "there are no test prompts; set split.test"),
    (["{r}", "--set", "evaluation.metric=bleu"], "evaluation.metric: input should be 'accuracy'"),
    (["{r}", "--base", "--judge", "h:1"], "--judge h:1 is not a file; write http://h:1"),
    (["{r}", "--base", "--judge", "judge"], "configuration file judge does not exist"),
    (["{r}", "--base", "--judge", "http://h:1"], "'model' is missing"),
    (["{r}", "--judge", "http://h:1", "--judge-set", "model=j"], "compares two policies"),
    (["{r}", "--out", "{t}"], "is a folder; name a .json file in it"),
    (["{r}", "--out", "/proc/r.json"], "cannot write to /proc"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_every_mistake_gets_one_sentence(run, tmp_path, monkeypatch, capsys, arguments, words):
    filled = [argument.replace("{r}", str(run)).replace("{t}", str(tmp_path)) for argument in arguments]
    code, _, err = command(monkeypatch, capsys, "eval", *filled)
    assert code == 2
    assert err.startswith("laser: error: ")
    assert words in err


def test_python_has_the_same(run):
    assert laser.evaluate([run]).measured["run"].overall.num_prompts == 4
    assert laser.Chat(run).say("hello").candidates
    assert laser.load_judge("http://h:1", ["model=m"]).model == "m"
    assert callable(laser.win_rates)

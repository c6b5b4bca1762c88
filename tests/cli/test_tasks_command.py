"""laser tasks: list, show, export; and what is exported through laser rewardbench."""

import json
import sys

import pytest

from laser.cli import main as cli
from laser.data.tasks import TASKS
from runs import make_table
from task_files import lines


@pytest.fixture
def run(monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["laser", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "80")
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.mark.parametrize("command", [("tasks",), ("tasks", "list")])
def test_the_list_has_every_task_in_80_columns(run, command):
    code, out, _ = run(*command)
    assert code == 0
    for name, task in TASKS.items():
        row = next(line for line in out.splitlines() if line.split()[:1] in ([name], [f"{name}*"]))
        assert f"{task.sizes.dev}/{task.sizes.test}" in row
        assert ("*" in row) == (task.stands_in_for is not None)
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_show_says_all_there_is(run, name):
    task = TASKS[name]
    code, out, _ = run("tasks", "show", name)
    assert code == 0
    for words in (task.title, task.license, task.citation, task.columns, task.counts, task.template, task.notes):
        assert words in out
    assert task.hub is None or task.hub.name in out


def test_show_with_a_path_counts_and_gives_an_example(run, tmp_path):
    rows = [{"question": f"how [many] {i}?", "answer": f"#### {i}"} for i in range(10)]
    lines(tmp_path / "train.jsonl", rows)
    code, out, _ = run("tasks", "show", "gsm8k", "--path", tmp_path)
    assert code == 0
    assert "found: 10 train" in out
    assert "splits: 7 train / 0 dev / 1 test" in out
    assert "how [many] 0?" in out
    assert "<gold answer> 0" in out


def test_pairs_are_exported_and_measured(run, tmp_path):
    rows = [
        {"input": f"q{i}", "output_1": "aeiou" * (i + 1), "output_2": "xyz", "label": 1 + (i == 0)} for i in range(6)
    ]
    lines(tmp_path / "LLMBar" / "Natural" / "dataset.json", [{"examples": rows}])
    pairs = tmp_path / "pairs.jsonl"
    code, out, _ = run("tasks", "export", "llmbar", "--path", tmp_path, "--out", pairs)
    assert (code, out) == (0, f"6 pairs of llmbar in {pairs}; 0 rows without a pair\n")
    config = tmp_path / "run.json"
    table = make_table(tmp_path, "vowels", "short")
    config = tmp_path / "run.toml"
    models = "".join(
        f'[[rewards.models]]\ntype = "function"\nname = "{name}"\nfunction = "{tmp_path}/scores.py:{name}"\n'
        for name in ("vowels", "short")
    )
    config.write_text(f'data = {{type = "embedded"}}\npolicy = {{model = "{table["policy"]["model"]}"}}\n{models}')
    code, _, err = run("rewardbench", pairs, "--config", config, "--out", tmp_path / "bench.json")
    assert code == 0, err
    bench = json.loads((tmp_path / "bench.json").read_text())
    assert bench["accuracy"]["vowels"] == pytest.approx(5 / 6)
    assert bench["counts"] == {"Natural": 6}


def test_prompts_are_exported_once_each(run, tmp_path):
    rows = [{"instruction": f"i{i % 3}", "dataset": "koala", "output": "o", "generator": "g"} for i in range(6)]
    path = tmp_path / "model_outputs.json"
    path.write_text(json.dumps(rows))
    out = tmp_path / "prompts.jsonl"
    code, said, _ = run("tasks", "export", "alpaca_eval", "--path", path, "--out", out)
    assert (code, said) == (0, f"3 prompts of alpaca_eval in {out}\n")
    assert len(out.read_text().splitlines()) == 3
    code, _, err = run("tasks", "export", "alpaca_eval", "--path", path, "--out", out, "--pairs")
    assert (code, err.count("\n")) == (2, 1)
    assert "no labeled pairs in these files" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "gsm8"), "did you mean 'gsm8k'"),
        (("show", "gsm8k", "--path", "none"), "none does not exist; check data.path"),
        (("export", "gms8k", "--out", "x.jsonl"), "did you mean 'gsm8k'"),
        (("export", "bamboo", "--out", "x.jsonl"), "task bamboo is not on the hub"),
    ],
)
def test_mistakes_are_one_sentence(run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("tasks", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err

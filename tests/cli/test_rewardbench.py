"""`laser rewardbench` on the command line: its tables, and the files it writes."""

import json
import re
import sys
import warnings

import pytest

from laser.cli import main as cli
from tiny import save_model

SCORES = """
import warnings

def longer(prompts, responses):
    warnings.warn("of a library, about another", FutureWarning)
    return [len(text) for text in responses]

def silent(prompts, responses):
    return [None] * len(responses)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A pool with a model that never answers and one whose window is too short for one of four responses."""
    folder = tmp_path_factory.mktemp("bench")
    save_model(folder / "base", scale=0.15)
    (folder / "scores.py").write_text(SCORES)
    functions = "".join(
        f'[[rewards.models]]\ntype = "function"\nname = "{name}"\nfunction = "scores.py:{name}"\n'
        for name in ("longer", "silent")
    )
    likelihood = f'[[rewards.models]]\ntype = "loglik"\nname = "likelihood"\nmodel = "{folder}/base"\n'
    (folder / "run.toml").write_text(
        f'data = {{type = "embedded"}}\npolicy = {{model = "{folder}/base"}}\n{functions}{likelihood}'
    )
    pairs = [{"prompt": f"q{row}", "chosen": "aa", "rejected": "b" * 10 ** (3 * row)} for row in range(2)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return folder


def test_silent_models_and_responses_that_are_too_long_are_shown(project, tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "bench.json"
    arguments = ["rewardbench", project / "pairs.jsonl", "--config", project / "run.toml", "--out", out]
    monkeypatch.setattr(sys, "argv", ["laser", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert stopped.value.code == 0
    assert [one for one in warned if one.category is FutureWarning] == []
    said = capsys.readouterr().out
    rows = [" ".join(re.sub("[│┃]", " ", line).split()) for line in said.splitlines()]
    assert "reward model accuracy 95% interval default unscored too long" in rows
    assert "longer 0.500 0.095 to 0.905 0.50 0 0" in rows
    assert "silent - - - 4 0" in rows
    assert [row for row in rows if row.startswith("likelihood ") and row.endswith(" 1 1")]
    assert "longer 1.00 - 0.00" in rows  # agreement
    assert "silent - - -" in rows
    assert "silent gave no score" in rows
    assert "nan" not in said
    bench = json.loads(out.read_text())
    assert bench["too_long"] == {"longer": 0, "silent": 0, "likelihood": 1}
    assert bench["silent"] == ["silent"]
    assert bench["agreement"]["silent"]["longer"] is None


def run(monkeypatch, *arguments):
    """The exit code of `laser rewardbench`."""
    monkeypatch.setattr(sys, "argv", ["laser", "rewardbench", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_rewardbench_2_has_its_own_table_and_its_own_files(project, tmp_path, monkeypatch, capsys):
    rows = [
        {"id": "1", "prompt": "q1", "chosen": ["aaaa"], "rejected": ["a", "b", "c"], "subset": "Math"},
        {"id": "2", "prompt": "q2", "chosen": ["a"], "rejected": ["bbb", "b", "c"], "subset": "Focus"},
    ]
    (tmp_path / "rb2.json").write_text(json.dumps(rows))
    arguments = (tmp_path / "rb2.json", "--config", project / "run.toml", "--leaderboard", tmp_path / "results")
    assert run(monkeypatch, *arguments) == 0
    said = capsys.readouterr().out
    assert "Best of up to 4 responses to 2 prompts; random choice: 0.250" in said
    assert re.search(r"longer\W+0\.500\W+0\.500\W+0\.095 to 0\.905\W+0\.00\W+1\.00\W+0\W+0", said)
    assert json.loads((tmp_path / "results" / "longer.json").read_text()) == {
        "model": "longer",
        "model_type": "function",
        "chat_template": "tokenizer",
        "Math": 1.0,
        "Focus": 0.0,
    }
    assert run(monkeypatch, *arguments) == 2
    assert "longer.json exists already" in capsys.readouterr().err

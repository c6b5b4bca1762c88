"""`laser probe`: which reward model is right where, in a table or as JSON, without a trace on disk."""

import json
import re
import sys

import pytest

import laser
from laser.cli import main as cli
from laser.core.errors import LaserError
from laser.core.statistics import wilson_interval
from runs import make_table

PAIRS = [
    {"prompt": "?", "chosen": "aei", "rejected": "xx", "category": "a"},
    {"prompt": "?", "chosen": "u", "rejected": "xx", "category": "b"},
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    make_table(folder)
    rows = [{"prompt": f"question {row}", "category": "ab"[row % 2]} for row in range(16)]
    for name, content in (("train", rows), ("pairs", PAIRS)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    functions = "".join(
        f'[[rewards.models]]\ntype = "function"\nname = "{name}"\nfunction = "scores.py:{name}"\n'
        for name in ("vowels", "short", "silent", "constant")
    )
    (folder / "run.toml").write_text(
        'selector = {type = "ensemble"}\nsplit = {dev = 0}\ndata = {type = "file", train = "train.jsonl"}\n'
        f'policy = {{model = "base"}}\ngeneration = {{max_new_tokens = 6}}\n{functions}'
    )
    return folder


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["laser", "probe", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    output = capsys.readouterr()
    return stopped.value.code, output.out, output.err


def test_labeled_pairs_need_no_policy_and_leave_nothing_behind(project, monkeypatch, capsys):
    before = sorted(project.rglob("*"))
    code, out, err = run(monkeypatch, capsys, project / "run.toml", "--pairs", project / "pairs.jsonl")
    assert code == 0
    rows = [" ".join(re.sub("[│┃]", " ", line).split()) for line in out.splitlines()]
    first = rows.index("category reward model accuracy 95% interval pairs")
    low, high = wilson_interval(0.5, 1)
    assert [row for row in rows[first + 1 :] if re.search(r"\d to \d", row)] == [
        "a vowels 1.00 0.21 to 1.00 1",
        f"accuracy on labeled pairs constant 0.50 {low:.2f} to {high:.2f} 1",
        "short 0.00 0.00 to 0.79 1",
        "b vowels 1.00 0.21 to 1.00 1",
        "accuracy on labeled pairs short 1.00 0.21 to 1.00 1",
        f"constant 0.50 {low:.2f} to {high:.2f} 1",
    ]
    assert [row for row in rows if row.startswith("vowels 4 ")], "responses, seconds"
    assert "probe: silent scored both responses of no pair; fix or remove it" in err
    assert "probe: constant scored the responses of every pair alike; fix or remove it" in err
    assert sorted(project.rglob("*")) == before


def test_the_policy_answers_where_there_are_no_pairs(project, monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, project / "run.toml", "--json")
    assert code == 0
    record = json.loads(out)
    assert record["sources"] == {"a": "consensus", "b": "consensus"}
    found = record["accuracy"]["a"]["short"]
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert record["reward_models"]["short"]["responses"] > 4
    assert record["reward_models"]["short"]["seconds"] >= 0
    assert record["failed"] == {}
    assert record["accuracy"]["a"]["silent"] == {"accuracy": None, "low": None, "high": None, "pairs": 0}


def test_given_prices_are_shown(project, monkeypatch, capsys):
    names = ("vowels", "short", "silent", "constant")
    prices = [f"--set=rewards.models.{name}.cost={price}" for name, price in zip(names, (0.5, 2, 1, 0), strict=True)]
    arguments = (project / "run.toml", "--pairs", project / "pairs.jsonl", *prices)
    code, out, _ = run(monkeypatch, capsys, *arguments, "--json")
    assert code == 0
    found = json.loads(out)["reward_models"]
    costs = [found[name]["cost"] for name in names]
    assert costs == [2.0, 8.0, 4.0, 0.0], "four responses each; one that abstains is paid too"
    _, out, _ = run(monkeypatch, capsys, *arguments)
    rows = [re.sub("[│┃]", " ", line).split() for line in out.splitlines()]
    assert [(row[0], row[-1]) for row in rows if row and row[0] == "short"][-1] == ("short", "8")
    _, out, _ = run(monkeypatch, capsys, *arguments[:3], "--json")
    assert "cost" not in json.loads(out)["reward_models"]["short"]


def test_a_signal_of_the_configuration_is_used(project):
    signal = {"type": "probe", "labels": "pairs", "pairs": str(project / "pairs.jsonl")}
    table = laser.load_config(project / "run.toml").model_dump(mode="json")
    result = laser.probe(laser.parse_config({**table, "selector": {"type": "linucb"}, "signal": signal}))
    assert result.findings.as_record()["labels"] == "pairs"


def test_a_pool_that_cannot_score_is_an_error_with_the_reason(project):
    config = laser.load_config(project / "run.toml", [])
    silent = config.rewards.model_copy(update={"models": tuple(m for m in config.rewards.models if m.name == "silent")})
    with pytest.raises(LaserError, match=r"the probe measured nothing: no reward model distinguishes the responses"):
        laser.probe(config.model_copy(update={"rewards": silent}), pairs=project / "pairs.jsonl")

"""The commands that need no language model, or only small ones."""

import json

import pytest
from typer.testing import CliRunner

from laser.bandits.context import ContextPreparer
from laser.cli.main import app
from laser.cli.simulate import simulate
from laser.commands.simulate import MAKERS
from laser.config import parse_config, selection
from laser.core.errors import ConfigError, RunDirectoryError
from laser.wiring import build_selector
from runs import make_table


@pytest.mark.slow
def test_simulate_prints_regret_and_writes_json_and_a_picture(tmp_path, capsys):
    simulate(["linear", "digits"], ["linucb-1", "random"], 2, 60, tmp_path)
    assert "linucb-1" in capsys.readouterr().out
    regret = json.loads((tmp_path / "regret.json").read_text())["regret"]
    assert set(regret) == {"linear", "digits"}
    assert regret["linear"]["linucb-1"]["mean"] < regret["linear"]["random"]["mean"]
    assert (tmp_path / "regret.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("environments", "selectors", "words"),
    [(["mars"], [], "'mars' is not a known environment"), ([], ["best"], "'best' is not a known selector")],
)
def test_unknown_names_are_answered_with_the_known_ones(tmp_path, environments, selectors, words):
    with pytest.raises(ConfigError, match=f"{words}; choose among"):
        simulate(environments, selectors, 1, 20, tmp_path)


def settings_of(selector):
    return {name: value for name, value in vars(selector).items() if isinstance(value, int | float | str | dict)}


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("linucb-0.1", selection.LinUCBSelector()),
        ("thompson", selection.ThompsonSelector()),
        *[(rule, selection.ForgettingSelector(rule=rule)) for rule in ("discount", "window", "decay", "adaptive")],
        ("neural-ucb", selection.NeuralUCBSelector()),
        ("exp3", selection.Exp3Selector()),
        ("ucb1", selection.UCB1Selector()),
        ("epsilon-greedy", selection.EpsilonGreedySelector()),
        ("random", selection.RandomSelector()),
    ],
)
def test_plain_names_stand_for_the_defaults_of_the_configuration(tmp_path, name, section):
    config = parse_config(make_table(tmp_path, "vowels")).model_copy(update={"selector": section})
    built = build_selector(config, ContextPreparer(6))
    assert settings_of(MAKERS[name](2, 6, config.seed)) == settings_of(built)


def test_simulations_do_not_overwrite_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulate(["linear"], ["random"], 1, 20, None)
    (folder,) = (tmp_path / "runs").glob("simulate-2*")
    before = (folder / "regret.json").read_bytes()
    with pytest.raises(RunDirectoryError, match="is not empty; choose another --out"):
        simulate(["linear"], ["random"], 1, 30, folder)
    assert (folder / "regret.json").read_bytes() == before


def test_an_impossible_folder_is_reported_before_the_simulation(tmp_path, monkeypatch):
    monkeypatch.setattr("laser.commands.simulate.compare", lambda *_: pytest.fail("simulated first"))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="is a file; choose a folder"):
        simulate([], [], 1, 20, tmp_path / "file")


def step(arm, reward, contexts, **changed):
    selection = {"arms": [arm], "probabilities": [[0.5, 0.5]], "weights": [[1.0, 0.0]], "charged": ["a"]}
    record = {
        "iteration": 0,
        "step": 0,
        "category": "c",
        "selection": {**selection, "categories": [{"c": 1}], **contexts},
        "bandit_rewards": [reward],
        "loss": 0.5,
        "pairs": 1,
        **{name: {} for name in ("dropped", "scored", "tokens", "seconds")},
    }
    return json.dumps({**record, **changed}) + "\n"


CONTEXT = {"contexts": [[1.0, 0.5]]}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"rewards": {"models": [{"name": "a"}, {"name": "b"}]}}))
    lines = [step(k % 2, float(k % 2), CONTEXT) for k in range(40)]
    (folder / "steps.jsonl").write_text("".join([*lines, step(0, None, CONTEXT)]))
    return folder


def test_replay_reads_the_choices_of_a_run(run, tmp_path, capsys):
    simulate(run=run, selectors=["linucb-0.1", "random"], out=tmp_path / "out")
    out = capsys.readouterr().out
    assert "40 choices" in out
    assert "as logged" in out
    record = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert record["rows"] == 40
    low, high = record["as_it_was"]["interval"]
    assert low < record["as_it_was"]["mean"] == 0.5 < high
    one = record["selectors"]["random"]
    assert one["support"] == 1.0
    for name in ("ips", "snips", "doubly_robust", "matching"):
        assert one[name]["interval"][0] <= one[name]["estimate"] <= one[name]["interval"][1]
    with pytest.raises(RunDirectoryError, match="is not empty"):
        simulate(run=run, selectors=["random"], out=tmp_path / "out")


def test_a_replay_chooses_with_the_prices_of_the_run(run, tmp_path):
    """Reward model "b" earns 1 and "a" 0, but with a price of 2 for "b" every selector chooses "a"."""
    simulate(run=run, selectors=["linucb-0.1"], out=tmp_path / "free")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "selector": {"type": "linucb", "cost_weight": 2.0}}))
    priced = {"scored": {"a": 1, "b": 1}, "cost": {"a": 0.0, "b": 0.3}}
    (run / "steps.jsonl").write_text("".join(step(k % 2, float(k % 2), CONTEXT, **priced) for k in range(40)))
    simulate(run=run, selectors=["linucb-0.1"], out=tmp_path / "priced")
    free, priced = (
        json.loads((tmp_path / name / "replay.json").read_text())["selectors"]["linucb-0.1"]["snips"]["estimate"]
        for name in ("free", "priced")
    )
    assert (free, priced) == (pytest.approx(1.0, abs=0.1), pytest.approx(0.0, abs=0.1))


def test_selectors_are_told_apart_on_a_narrow_terminal(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = ["epsilon-greedy", "epsilon-greedy-0.05"]
    simulate(run=run, selectors=names)
    simulate(["linear", "stationary", "abrupt", "drift"], names, 1, 10, tmp_path / "out")
    shown = capsys.readouterr().out
    for name in names:
        assert shown.count(f"│ {name} ") == 2


def test_a_deterministic_log_says_no_support_instead_of_a_number(run, tmp_path, capsys):
    certain = (run / "steps.jsonl").read_text().replace("[[0.5, 0.5]]", "[[1.0, 0.0]]")
    (run / "steps.jsonl").write_text("".join(line for line in certain.splitlines(True) if '"arms": [0]' in line))
    simulate(run=run, selectors=["random"], out=tmp_path / "out")
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("no support") == 4
    assert "share of such rows: random (100%)" in shown
    one = json.loads((tmp_path / "out" / "replay.json").read_text())["selectors"]["random"]
    assert (one["support"], one["ips"]["estimate"]) == (0.0, None)
    assert one["matching"]["rows"] > 0


def test_damaged_lines_are_left_out_and_named(run, capsys):
    good = (run / "steps.jsonl").read_text()
    foreign = [step(7, 1.0, CONTEXT), step(0, 1.0, {"contexts": [[1.0]]}), step(0, 1.0, {"contexts": [["x", 0.5]]})]
    (run / "steps.jsonl").write_text(good + "{nonsense\n" + "[]\n" + "".join(foreign))
    simulate(run=run, selectors=["random"])
    out = " ".join(capsys.readouterr().out.split())
    assert "40 choices" in out
    assert "5 damaged lines of steps.jsonl were left out (the first: line 42, not JSON)" in out


@pytest.mark.parametrize("content", ["{nonsense\n", '{"a": 1}\n', "[]\n", step(7, 1.0, CONTEXT)])
def test_a_file_of_nothing_else_is_reported_as_damaged(run, content):
    (run / "steps.jsonl").write_text(content)
    with pytest.raises(RunDirectoryError, match=r"steps\.jsonl line 1 is damaged .*; restore the file"):
        simulate(run=run, selectors=["random"])


def test_a_run_without_contexts_or_choices_cannot_be_replayed(run, tmp_path):
    with pytest.raises(RunDirectoryError, match="holds no run"):
        simulate(run=tmp_path, selectors=[])
    (run / "steps.jsonl").write_text(step(0, 1.0, {}))
    with pytest.raises(ConfigError, match="log_contexts"):
        simulate(run=run, selectors=[])
    (run / "steps.jsonl").write_text(step(0, None, CONTEXT))
    with pytest.raises(ConfigError, match="nothing to replay"):
        simulate(run=run, selectors=[])


@pytest.mark.parametrize("option", [("--env", "drift"), ("--rounds", "50"), ("--seeds", "3")])
def test_options_that_mean_nothing_to_a_replay_are_refused(run, option):
    done = CliRunner().invoke(app, ["simulate", "--replay", str(run), "--selector", "random", *option])
    assert isinstance(done.exception, ConfigError)
    assert f"{option[0]} does not apply to --replay" in str(done.exception)

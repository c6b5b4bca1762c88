"""The commands that need no language model, or only small ones."""

import json

import pytest

from laser.cli.simulate import run_replay, run_simulation
from laser.errors import ConfigError


def test_simulate_prints_regret_and_writes_json_and_a_picture(tmp_path, capsys):
    run_simulation(["linear", "digits"], ["linucb-1", "random"], 2, 60, tmp_path)
    assert "linucb-1" in capsys.readouterr().out
    regret = json.loads((tmp_path / "regret.json").read_text())["regret"]
    assert set(regret) == {"linear", "digits"}
    assert regret["linear"]["linucb-1"]["mean"] < regret["linear"]["random"]["mean"]
    assert (tmp_path / "regret.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("environments", "selectors", "words"), [(["mars"], [], "mars"), ([], ["best"], "best")])
def test_unknown_names_are_answered_with_the_known_ones(tmp_path, environments, selectors, words):
    with pytest.raises(ConfigError, match=f"'{words}'; choose among"):
        run_simulation(environments, selectors, 1, 20, tmp_path)


def step(arm, reward, contexts):
    selection = {"arms": [arm], "probabilities": [[0.5, 0.5]]}
    return json.dumps({"selection": {**selection, **contexts}, "bandit_rewards": [reward]}) + "\n"


def test_replay_reads_the_choices_of_a_run(tmp_path, capsys):
    lines = [step(k % 2, float(k % 2), {"contexts": [[1.0, 0.5]]}) for k in range(40)]
    (tmp_path / "steps.jsonl").write_text("".join([*lines, step(0, None, {"contexts": [[1.0, 0.5]]})]))
    run_replay(tmp_path, ["linucb-0.1", "random"])
    out = capsys.readouterr().out
    assert "40 choices" in out
    assert "as it was" in out


def test_a_run_without_contexts_cannot_be_replayed(tmp_path):
    with pytest.raises(ConfigError, match="not a run directory"):
        run_replay(tmp_path, [])
    (tmp_path / "steps.jsonl").write_text(step(0, 1.0, {}))
    with pytest.raises(ConfigError, match="log_contexts"):
        run_replay(tmp_path, [])

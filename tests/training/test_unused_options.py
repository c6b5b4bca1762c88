"""Options that a run would accept and not use are refused or told, before anything is loaded."""

import io
import json

import pytest
from rich.console import Console

import laser
from laser.commands import train as api
from laser.commands.plan import print_plan
from laser.config import parse_config
from laser.core.errors import ConfigError, DataError
from laser.wiring.checks import check_used, nothing_to_choose
from runs import Notes, make_table


def test_accuracy_gap_without_gold_answers_is_refused_before_models_are_loaded(tmp_path, monkeypatch):
    rows = [json.dumps({"prompt": f"question {number}"}) for number in range(20)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    table = make_table(tmp_path, "vowels", split={"dev": 0}, signal={"type": "accuracy_gap"})
    table["data"] = {"type": "file", "train": str(tmp_path / "prompts.jsonl")}
    monkeypatch.setattr("laser.wiring.build_policy", lambda *_: pytest.fail("models are loaded"))
    with pytest.raises(DataError, match=r"no training prompt has one; set data\.answer_field or choose another signal"):
        laser.train(table, tmp_path / "run")


def test_agreement_of_a_single_reward_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="compares reward models and the pool has one; add one or drop"):
        parse_config(make_table(tmp_path, signal={"type": "agreement"}))
    parse_config(make_table(tmp_path, "vowels", signal={"type": "agreement"}))


@pytest.mark.parametrize(
    ("names", "selector", "told"),
    [
        ((), "linucb", True),
        ((), "online_ensemble", True),
        ((), "random", False),
        (("vowels",), "linucb", False),
    ],
)
def test_a_learning_selector_over_one_reward_model_is_reported(tmp_path, names, selector, told):
    note = nothing_to_choose(parse_config(make_table(tmp_path, *names, selector={"type": selector})))
    assert (note is not None) == told


@pytest.mark.slow
def test_a_run_and_its_plan_say_that_there_is_nothing_to_choose(tmp_path):
    training = {"iterations": 1, "batches_per_iteration": 1}
    table, notes, written = make_table(tmp_path, split={"dev": 0}, training=training), Notes(), io.StringIO()
    api.train(table, tmp_path / "run", progress=notes)
    assert any("there is nothing to choose; add one or set selector.type = 'fixed'" in note for note in notes.notes)
    print_plan(parse_config(table), Console(file=written, width=200))
    assert "there is nothing to choose" in written.getvalue()


@pytest.mark.parametrize(("selector", "combine"), [("linucb", "zscore"), ("random", "scaled"), ("exp3", "zscore")])
def test_combine_without_an_ensemble_is_refused_where_it_would_be_ignored(tmp_path, selector, combine):
    table = make_table(tmp_path, "vowels", selector={"type": selector})
    table["rewards"]["combine"] = combine
    for refusing in (lambda: laser.train(table, tmp_path / "run"), lambda: print_plan(parse_config(table), Console())):
        with pytest.raises(
            ConfigError, match=rf"rewards\.combine = '{combine}' .* drop rewards\.combine or set selector"
        ):
            refusing()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("selector", ["ensemble", "online_ensemble"])
def test_combine_of_an_ensemble_is_used(tmp_path, selector):
    table = make_table(tmp_path, "vowels", selector={"type": selector})
    table["rewards"]["combine"] = "zscore"
    check_used(parse_config(table))

"""What scoring costs: prices, measured seconds, and where a run shows and uses them."""

import json
import time

import numpy as np
import pytest

import laser
from laser.analysis.records import read_run
from laser.analysis.report.run import time as time_and_costs
from laser.config import parse_config
from laser.core.errors import ConfigError
from laser.core.state import load_state, save_state
from laser.rewards.base import NoWeights
from laser.rewards.costs import ScoringCosts
from laser.rewards.pool import Arm, RewardPool
from laser.wiring import build_contexts, build_selector
from runs import essence, make_table, steps
from tiny import make_prompt

PROMPTS = [make_prompt("?", id=str(index)) for index in range(3)]


def priced(table, *costs):
    models = [{**model, "cost": cost} for model, cost in zip(table["rewards"]["models"], costs, strict=True)]
    return {**table, "rewards": {**table["rewards"], "models": models}}


def test_prices_by_hand():
    costs = ScoringCosts(3, [0.1, 0.0, 0.4])
    assert costs.shares_K.tolist() == [0.25, 0.0, 1.0]
    costs.add(2, responses=5, seconds=9.0)
    costs.add(0, responses=2, seconds=9.0)
    np.testing.assert_allclose(costs.take_latest_K(), [0.2, 0.0, 2.0])
    assert costs.take_latest_K().tolist() == [0.0, 0.0, 0.0]
    assert ScoringCosts(2, [0.0, 0.0]).shares_K.tolist() == [0.0, 0.0]
    for wrong in ([1.0], [1.0, 2.0, -1.0]):
        with pytest.raises(ValueError, match="need 3 prices that are not negative"):
            ScoringCosts(3, wrong)


def test_measured_seconds_are_state_and_an_unmeasured_reward_model_costs_nothing_yet(tmp_path):
    costs, again = ScoringCosts(3), ScoringCosts(3)
    costs.add(0, responses=10, seconds=2.0)
    costs.add(0, responses=10, seconds=4.0)
    costs.add(1, responses=5, seconds=3.0)
    np.testing.assert_array_equal(costs.per_response_K, [0.3, 0.6, np.nan])
    assert costs.shares_K.tolist() == [0.5, 1.0, 0.0]
    save_state(tmp_path / "costs", costs.state_dict())
    again.load_state_dict(load_state(tmp_path / "costs"))
    assert again.shares_K.tolist() == costs.shares_K.tolist()
    with pytest.raises(ValueError, match="it is of 3 reward models, the pool has 2"):
        ScoringCosts(2).load_state_dict(costs.state_dict())


class Slow(NoWeights):
    def score(self, prompts, responses):
        time.sleep(0.02)
        return [np.zeros(len(row)) for row in responses]


class Quick(NoWeights):
    def score(self, prompts, responses):
        return [np.zeros(len(row)) for row in responses]


def test_the_pool_measures_scoring_without_loading_and_keeps_it_in_its_state():
    def build():
        time.sleep(0.2)
        return Slow()

    pool, again = (RewardPool([Arm("slow", build), Arm("quick", Quick)]) for _ in range(2))
    for arm in (0, 1):
        pool.score(arm, PROMPTS, [["a", "b"], ["c"], ["d"]])
    slow, quick = pool.costs.per_response_K
    assert 0.005 <= slow < 0.05
    assert quick < slow
    again.load_state_dict(pool.state_dict())
    assert again.costs.shares_K.tolist() == pool.costs.shares_K.tolist() == [1.0, quick / slow]


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ((1.0, None, 2.0), "'short' has a cost and 'vowels' has none; give all of them one, or none"),
        (
            (1.0, -0.5, 2.0),
            "the cost of 'vowels' is -0.5; give 0 or more, or no reward model a cost",
        ),
        ((1.0, float("inf"), 2.0), r"rewards\.models\.1\..*cost"),
    ],
)
def test_costs_that_are_negative_or_given_for_some_are_refused(tmp_path, costs, words):
    with pytest.raises(ConfigError, match=words):
        parse_config(priced(make_table(tmp_path, "vowels", "short"), *costs))


@pytest.mark.parametrize("selector", ["random", "ensemble", "sequential"])
def test_a_selector_that_learns_nothing_has_no_weight_for_costs(tmp_path, selector):
    table = make_table(tmp_path, "short", selector={"type": selector, "cost_weight": 0.1})
    with pytest.raises(ConfigError, match="cost_weight"):
        parse_config(table)


def test_a_command_that_does_not_train_needs_given_costs(tmp_path):
    table = make_table(tmp_path, "short", selector={"type": "linucb", "cost_weight": 0.1})
    config = parse_config(table)
    contexts = build_contexts(config, dim=4)
    with pytest.raises(ConfigError, match=r"give every reward model a cost \(rewards\.models\.\*\.cost\)"):
        build_selector(config, contexts)
    selector = build_selector(parse_config(priced(table, 4.0, 1.0)), contexts)
    np.testing.assert_allclose(selector.penalties_K, [0.1, 0.025])
    assert build_selector(parse_config(make_table(tmp_path, "short")), contexts).penalties_K.tolist() == [0.0, 0.0]


@pytest.mark.slow
def test_a_run_records_costs_and_a_weight_moves_choices_to_the_cheap(tmp_path):
    table = priced(make_table(tmp_path, "vowels", "short"), 8.0, 2.0, 0.5)
    free = laser.train(table, tmp_path / "free").summary
    dear = laser.train({**table, "selector": {"type": "linucb", "cost_weight": 100.0}}, tmp_path / "dear").summary
    prices = {"likelihood": 8.0, "vowels": 2.0, "short": 0.5}
    for summary in (free, dear):
        assert summary.cost == {name: price * summary.scored[name] for name, price in prices.items()}
    assert free.scored["likelihood"] + free.scored["vowels"] > 0
    assert [name for name, count in dear.scored.items() if count] == ["short"]
    stored = json.loads((tmp_path / "dear" / "summary.json").read_text())
    assert stored["cost"] == dear.cost
    (block,) = (
        one for one in time_and_costs(read_run(tmp_path / "dear")) if getattr(one, "caption", "").startswith("Cost")
    )
    assert block.caption == "Cost of scoring, in the unit of rewards.models.*.cost"
    assert block.rows[-1] == ("short", dear.scored["short"], "0.5", f"{dear.cost['short']:.4g}", "100.0%")


@pytest.mark.slow
def test_a_frozen_selector_keeps_the_prices_that_its_run_measured(tmp_path, monkeypatch):
    """The seconds of the checkpoint: the likelihood is the dearest by far, and with this weight out of the question."""
    table = make_table(tmp_path, "vowels", "short", selector={"type": "linucb", "cost_weight": 1000.0})
    add = ScoringCosts.add
    monkeypatch.setattr(
        ScoringCosts,
        "add",
        lambda self, arm, *, responses, seconds: add(self, arm, responses=responses, seconds=responses * 4.0**-arm),
    )
    laser.train(table, tmp_path / "first")
    monkeypatch.undo()
    frozen = {**table, "selector": {"type": "frozen", "run": str(tmp_path / "first")}}
    chosen = laser.train(frozen, tmp_path / "second").summary.utilization
    assert {name for counts in chosen.values() for name, count in counts.items() if count} == {"short"}


@pytest.mark.slow
def test_without_a_weight_costs_change_no_choice_and_seconds_are_recorded(tmp_path):
    table = make_table(tmp_path, "vowels", "short")
    measured = laser.train(table, tmp_path / "measured").summary
    laser.train(priced(table, 8.0, 2.0, 0.5), tmp_path / "given")
    assert essence(tmp_path / "measured") == essence(tmp_path / "given")
    assert 0 < sum(measured.cost.values()) <= measured.seconds["score"]
    assert set(steps(tmp_path / "measured")[0]["cost"]) == {"likelihood", "vowels", "short"}

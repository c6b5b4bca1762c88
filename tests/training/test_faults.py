"""A whole tiny run whose reward models fail by a seeded schedule: it ends, or stops resumable; nothing is made up."""

import json
import math

import numpy as np
import pytest

import laser
from laser.core.errors import TrainingError
from laser.core.state import load_state
from laser.training.checkpoint import newest_checkpoint
from runs import make_table, steps

FAULTY = """
import random, time
calls = {{}}

def misbehave(name, prompts, responses):
    calls[name] = calls.get(name, 0) + 1
    draw = random.Random(f"{seed}:{{name}}:{{calls[name]}}").random()
    scores = [float(len(text)) + 0.01 * i for i, text in enumerate(responses)]
    if draw < {rate}:
        kind = int(draw / {rate} * 7)
        if kind == 0: raise RuntimeError("down")
        if kind == 1: return scores[:-1]
        if kind == 2: return ["good"] * len(scores)
        if kind == 3: return [float("nan")] * len(scores)
        if kind == 4: return [float("inf")] * len(scores)
        if kind == 5: return None
        time.sleep(0.6)
    return scores

def first(prompts, responses): return misbehave("first", prompts, responses)
def second(prompts, responses): return misbehave("second", prompts, responses)
def healthy(prompts, responses): return [-float(len(text)) - 0.01 * i for i, text in enumerate(responses)]
"""
SELECTORS = ("linucb", "exp3", "random", "ensemble", "sequential")


def faulty_table(tmp_path, seed, *names, rate):
    table = make_table(tmp_path, split={"train": 12, "dev": 0}, checkpoint={"every": 1})
    (tmp_path / "faulty.py").write_text(FAULTY.format(seed=seed, rate=rate))
    models = [
        {"type": "function", "name": name, "function": f"{tmp_path}/faulty.py:{name}", "timeout": 0.3} for name in names
    ]
    rewards = {"models": models, "max_failures": 2, "recovery_batches": 2}
    return {**table, "seed": seed, "rewards": rewards, "selector": {"type": SELECTORS[seed % len(SELECTORS)]}}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_with_one_healthy_reward_model_every_schedule_ends(tmp_path, seed):
    table = faulty_table(tmp_path, seed, "first", "second", "healthy", rate=0.7)
    result = laser.train(table, tmp_path / "run")
    records = steps(tmp_path / "run")
    assert result.summary.num_batches == len(records) == 6
    usage = json.loads((tmp_path / "run" / "summary.json").read_text())["reward_models"]
    assert usage["healthy"]["failures"] == 0
    for record in records:
        assert record["loss"] is None or math.isfinite(record["loss"])
        weights = zip(usage, zip(*record["selection"]["weights"], strict=True), strict=True)
        chosen = {name for name, column in weights if any(column)}
        assert record["quarantined"].keys() <= {"first", "second"}
        assert record["pairs"] == 0 or chosen <= usage.keys()


@pytest.mark.slow
def test_with_none_left_the_run_stops_and_resumes_once_it_is_fixed(tmp_path):
    table = faulty_table(tmp_path, 0, "first", "second", rate=1.1)
    flag = tmp_path / "fixed"
    check = f"    import os\n    if os.path.exists({str(flag)!r}): return list(range(len(responses)))\n    draw ="
    code = (tmp_path / "faulty.py").read_text().replace("    draw =", check)
    (tmp_path / "faulty.py").write_text(code)
    with pytest.raises(TrainingError, match=r"no reward model is left.*first.*second"):
        laser.train(table, tmp_path / "run")
    flag.touch()
    laser.resume(tmp_path / "run")
    assert [record["step"] for record in steps(tmp_path / "run")] == [0, 1, 2, 0, 1, 2]


def only_finite_weights(path):
    newest = newest_checkpoint(path / "checkpoints", ("policy",))
    return newest is not None and all(np.isfinite(value).all() for value in load_state(newest / "policy").values())


def test_a_diverged_policy_stops_the_run_before_its_weights_are_saved(tmp_path):
    table = make_table(tmp_path, "vowels", training={"learning_rate": 1e30}, checkpoint={"every": 1})
    with pytest.raises(TrainingError, match=r"weights are not finite.*start a new run with a lower training.learning_"):
        laser.train(table, tmp_path / "run")
    assert steps_written(tmp_path / "run") == 0
    assert only_finite_weights(tmp_path / "run")
    with pytest.raises(TrainingError, match="weights are not finite"):  # the same sentence again, not another
        laser.resume(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1e12, 1e18])
@pytest.mark.parametrize("sampling", ["per_batch", "per_iteration"])
def test_a_policy_that_diverges_later_is_distinguished_too(tmp_path, rate, sampling):
    """Weights of this size are finite; what a forward or backward pass makes of them is not."""
    table = make_table(tmp_path, "vowels", training={"learning_rate": rate, "sampling": sampling})
    with pytest.raises(TrainingError, match=r"start a new run with a lower training\.learning_rate"):
        laser.train(table, tmp_path / "run")


def test_hidden_states_that_are_not_finite_name_the_policy_and_a_cure(tmp_path, monkeypatch):
    from laser.policy.policy import Policy

    embed = Policy.embed
    monkeypatch.setattr(Policy, "embed", lambda self, prompts: np.nan * embed(self, prompts))
    with pytest.raises(TrainingError, match=r"hidden states are not finite; start a new run with a lower training"):
        laser.train(make_table(tmp_path, "vowels", split={"dev": 0}), tmp_path / "run")


def test_a_fixed_reward_model_in_quarantine_is_named_while_others_are_left(tmp_path):
    table = faulty_table(tmp_path, 0, "first", "healthy", rate=1.1)
    table["selector"] = {"type": "fixed", "arm": "first"}
    with pytest.raises(TrainingError, match=r"are left: the fixed arm is not available \(.*first.*fix them"):
        laser.train(table, tmp_path / "run")


def steps_written(path):
    return len(steps(path)) if (path / "steps.jsonl").exists() else 0

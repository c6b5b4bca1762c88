"""Every example of docs/extend.md runs unchanged, with tiny models, and does what the page says."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import laser
import laser.extend
from laser.config import parse_config
from laser.core.errors import ConfigError, LaserError, TrainingError
from laser.core.state import load_state, save_state
from laser.rewards.user_files import load_function
from laser.training.learner import Learner
from laser.wiring import build
from laser.wiring.custom import custom_feedback, custom_generator, custom_selector, custom_signal
from runs import essence, make_table, same_adapter, steps

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extend.md").read_text()
FILES = sorted((ROOT / "examples").glob("*.py"))
FRAGMENTS = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)]
NAMES = ("function", "reward model", "selector", "feedback", "signal", "generator")


def test_the_pages_show_every_example_as_it_is():
    text = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    shown = dict(re.findall(r"```python title=\"examples/(\w+\.py)\"\n(.*?)```", text, re.DOTALL))
    assert shown == {path.name: path.read_text() for path in FILES}
    assert len(FRAGMENTS) == len(NAMES)


def test_records_are_found_where_custom_parts_of_0_1_import_them_from(monkeypatch):
    monkeypatch.delitem(sys.modules, "laser.types", raising=False)
    with pytest.warns(DeprecationWarning, match=r"import its names from laser\.extend"):
        types = importlib.import_module("laser.types")
    names = set(laser.extend.__all__) & set(vars(laser.core.types))
    assert {"Message", "Pair", "Prompt", "Response", "Responses", "Selection", "StateDict"} < names
    assert all(getattr(types, name) is getattr(laser.extend, name) for name in names)


def with_fragment(table, *fragments):
    """The table with fragments of the page laid over it; reward models are added to the pool."""
    for fragment in fragments:
        for section, values in fragment.items():
            if section == "rewards":
                models = [*table["rewards"]["models"], *values["models"]]
                table = {**table, "rewards": {**table["rewards"], "models": models}}
            else:
                table = {**table, section: {**table.get(section, {}), **values}}
    return parse_config(table, base_dir=ROOT / "examples")


@pytest.fixture
def table(tmp_path):
    training = {"iterations": 1, "batches_per_iteration": 4}
    generation = {"max_new_tokens": 24}  # long enough that some responses end before
    return make_table(tmp_path, "vowels", training=training, generation=generation, split={"train": 12, "dev": 2})


def run(config, path):
    laser.train(config, path)
    return steps(path)


def fragment(name):
    return FRAGMENTS[NAMES.index(name)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["function", "reward model"])
def test_reward_models_score(table, tmp_path, name):
    (model,) = fragment(name)["rewards"]["models"]
    config = with_fragment(table, fragment(name), {"selector": {"type": "fixed", "arm": model["name"]}})
    records = run(config, tmp_path / "run")
    assert sum(record["pairs"] for record in records) > 0
    assert sum(record["dropped"]["unscored"] for record in records) == 0


@pytest.mark.slow
def test_the_selector_draws_by_its_means(table, tmp_path):
    records = run(with_fragment(table, fragment("selector")), tmp_path / "run")
    earned = [[], []]
    for record in records:
        means = np.array([sum(row) / max(len(row), 1) for row in earned])
        weights = np.exp(means / 0.2)
        assert np.allclose(record["selection"]["probabilities"][0], weights / weights.sum())
        earned[record["selection"]["arms"][0]].append(record["bandit_rewards"][0])


@pytest.mark.slow
def test_the_feedback_ranks_losses(table, tmp_path):
    records = run(with_fragment(table, fragment("feedback")), tmp_path / "run")
    seen = []
    for record in records:
        (loss,) = record["bandit_losses"]
        assert record["bandit_rewards"] == [np.mean([loss < earlier for earlier in seen]) if seen else 0.5]
        seen.append(loss)
    assert len({record["bandit_rewards"][0] for record in records}) > 2


@pytest.mark.slow
def test_the_signal_is_mixed_in(table, tmp_path):
    length = {"rewards": {"models": [{"name": "s", "type": "function", "function": f"{tmp_path}/scores.py:short"}]}}
    short = with_fragment(table, fragment("signal"), length, {"selector": {"type": "fixed", "arm": "s"}})
    assert {record["bandit_signals"][0] for record in run(short, tmp_path / "short") if record["pairs"]} == {0.0}
    longer = with_fragment(table, fragment("signal"), {"training": {"batches_per_iteration": 12}})
    other = [record for record in run(longer, tmp_path / "run") if record["pairs"]]
    assert any(record["bandit_signals"][0] > 0 for record in other)
    assert all(record["bandit_rewards"][0] >= 0.5 * record["bandit_signals"][0] for record in other)


@pytest.mark.slow
def test_the_generator_finds_distinct_responses(table, tmp_path):
    table = {**table, "generation": {**table["generation"], "temperature": 0.05}}  # where repeats are many
    plain, distinct = (
        sum(record["dropped"]["duplicate_responses"] for record in run(with_fragment(table, *added), tmp_path / name))
        for name, added in (("plain", ()), ("distinct", (fragment("generator"),)))
    )
    assert distinct < plain


@pytest.mark.slow
def test_all_of_them_together_resume_to_the_same_result(table, tmp_path, monkeypatch):
    config = with_fragment(table, *FRAGMENTS)
    laser.train(config, tmp_path / "whole")
    calls, learn = [], Learner.learn

    def interrupted(self, *given):
        calls.append(given)
        if len(calls) == 4:
            raise TrainingError("interrupted")
        return learn(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", interrupted)
        with pytest.raises(TrainingError, match="interrupted"):
            laser.train(config, tmp_path / "cut")
    laser.resume(tmp_path / "cut")
    assert essence(tmp_path / "cut") == essence(tmp_path / "whole")
    assert same_adapter(tmp_path / "cut", tmp_path / "whole")
    assert f"{ROOT}/examples/softmax_selector.py:make" in (tmp_path / "cut" / "config.json").read_text()


def test_states_survive_the_disk(tmp_path):
    make = load_function(f"{ROOT}/examples/softmax_selector.py:make")
    first, second = make(3, 4, 1), make(3, 4, 1)
    for round_ in range(20):
        first.update(first.select(np.zeros((1, 4))).id, np.array([round_ % 3 / 2]))
    save_state(tmp_path / "selector", first.state_dict())
    second.load_state_dict(load_state(tmp_path / "selector"))
    drawn = [[one.select(np.zeros((2, 4))).arms_M.tolist() for _ in range(20)] for one in (first, second)]
    assert drawn[0] == drawn[1]


WRONG = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Half:
    num_arms: int

def half(num_arms, dim, seed): return Half(num_arms)
def broken(num_arms, dim, seed): raise KeyError("prior")
def nothing(*given): pass
def fewer(num_arms, dim, seed):
    from laser.bandits.baselines import UniformRandom
    return UniformRandom(num_arms - 1, seed=seed)

class Raises:
    def score(self, prompts, responses): raise ZeroDivisionError("no words")
    def release(self): pass
    park = unpark = release

def raises(): return Raises()

import asyncio, sys

class Ends:
    num_arms = 2
    def select(self, contexts): sys.exit(0)
    def measure(self, *given): raise asyncio.CancelledError
    generate = scale = select
    def update(self, *given): raise ValueError("bug")
    expire = prepare = state_dict = load_state_dict = update

def ends(*given): return Ends()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "name", "words"),
    [
        ("selector", "half", "made a Half without select, update, expire, state_dict, load_state_dict"),
        ("selector", "broken", "raised KeyError: 'prior'"),
        ("selector", "fewer", "of 1 arms for 2 reward models"),
        ("selector", "absent", "has no function 'absent'"),
        ("feedback", "nothing", "made a NoneType without scale"),
        ("signal", "nothing", "made a NoneType without prepare, measure"),
        ("generation", "nothing", "made a NoneType without generate"),
    ],
)
def test_a_factory_that_makes_something_else_is_a_sentence(table, tmp_path, section, name, words):
    (tmp_path / "wrong.py").write_text(WRONG)
    kind = {"engine": "python"} if section == "generation" else {"type": "python"}
    config = with_fragment(table, {section: {**kind, "factory": f"{tmp_path}/wrong.py:{name}"}})
    with pytest.raises(ConfigError, match=words) as caught:
        build(config)
    assert f"{section}.factory" in str(caught.value)


def test_a_custom_part_cannot_end_the_program(tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG)
    factory = f"{tmp_path}/wrong.py:ends"
    selector = custom_selector(factory, 2, 4, 0)
    calls = {
        "selector": lambda: selector.select(np.zeros((1, 4))),
        "feedback": lambda: custom_feedback(factory).scale(1.0),
        "signal": lambda: custom_signal(factory, None).measure(),
        "generation": lambda: custom_generator(factory, None).generate([]),
    }
    for section, call in calls.items():
        with pytest.raises(
            ConfigError, match=rf"^{section}\.factory \S+ raised (SystemExit: 0|CancelledError)\S* in \w+\(\)"
        ):
            call()
    with pytest.raises(ValueError, match="bug"):  # its traceback is of use to its author
        selector.update(0, np.zeros(1))
    assert (selector.num_arms, hasattr(selector, "other")) == (2, False)


@pytest.mark.slow
def test_a_reward_model_that_raises_is_put_in_quarantine(table, tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG)
    models = [*table["rewards"]["models"], {"name": "bad", "type": "python", "factory": f"{tmp_path}/wrong.py:raises"}]
    config = parse_config({**table, "rewards": {"models": models}, "selector": {"type": "random"}})
    reasons = [record["quarantined"] for record in run(config, tmp_path / "run") if record["quarantined"]]
    assert "raised ZeroDivisionError: no words" in reasons[0]["bad"]


def test_engine_and_factory_go_together(table):
    for section in ({"engine": "python"}, {"factory": "x.py:make"}):
        with pytest.raises(ConfigError, match="go together"):
            with_fragment(table, {"generation": section})


@pytest.mark.slow
def test_a_selector_of_another_runs_code_is_not_run(table, tmp_path):
    laser.train(with_fragment(table, fragment("selector")), tmp_path / "theirs")
    with pytest.raises(LaserError, match="Python code of that run"):
        build(with_fragment(table, {"selector": {"type": "frozen", "run": str(tmp_path / "theirs")}}))

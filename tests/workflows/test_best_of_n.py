"""Reranking without training, on tiny real models."""

import json

import numpy as np
import pytest

from laser.best_of_n import ONE_SAMPLE, ORACLE, best_of_n, standard_methods
from laser.config import parse_config
from laser.errors import ConfigError, DataError
from laser.evaluation.metrics import gold_answers, make_metric, rouge_l, token_f1
from runs import make_table
from tiny import make_prompt

KNOWING = """
def knowing(prompts, responses):
    return [float("e" in text) for text in responses]

def ignorant(prompts, responses):
    return [-float("e" in text) for text in responses]
"""


def write_prompts(path, count=24):
    """Gold answers that a response has some words of by chance: single letters, which F1 counts as words."""
    rows = [{"id": str(i), "prompt": f"say {i}", "answer": "e", "category": "ab"[i % 2]} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def table(tmp_path):
    table = make_table(tmp_path, generation={"num_responses": 6, "max_new_tokens": 12})
    (tmp_path / "judges.py").write_text(KNOWING)
    table["rewards"] = {
        "models": [
            {"type": "function", "name": name, "function": f"{tmp_path}/judges.py:{name}"}
            for name in ("knowing", "ignorant")
        ]
    }
    table["data"] = {"type": "file", "train": str(write_prompts(tmp_path / "prompts.jsonl"))}
    table["split"] = {"train": 12, "dev": 0, "test": 12}
    table["evaluation"] = {"metric": "f1", "answer": "whole"}
    table["best_of_n"] = {"epochs": 3, "reward": "metric"}
    return table


def test_every_method_of_table_2(table, tmp_path):
    config = parse_config(table)
    results = best_of_n(config, tmp_path / "out", standard_methods(config))
    assert results[ORACLE].value >= max(result.value for result in results.values())
    assert results["fixed: knowing"].value >= results["fixed: ignorant"].value
    assert results["random"].scored == 36 * 6 + 12 * 6
    assert results["score ensemble"].scored == 2 * results["random"].scored
    for name, result in results.items():
        if name not in (ORACLE, ONE_SAMPLE):
            assert np.isclose(sum(result.chosen.values()), 1)
        assert result.interval[0] <= result.value <= result.interval[1]
    assert json.loads((tmp_path / "out" / "results.json").read_text()).keys() == results.keys()


def test_responses_and_scores_are_shared_and_kept(table, tmp_path):
    config = parse_config(table)
    first = best_of_n(config, tmp_path / "out", {"random": standard_methods(config)["random"]})
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("responses*")}
    again = best_of_n(config, tmp_path / "out", {"random": standard_methods(config)["random"]})
    assert first == again
    assert stamps == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("responses*")}
    with pytest.raises(ConfigError, match=r"another configuration"):
        best_of_n(config.model_copy(update={"seed": 5}), tmp_path / "out", {})


@pytest.mark.parametrize("reward", ["nll", "gold_nll", "metric"])
@pytest.mark.parametrize("granularity", ["per_batch", "per_prompt"])
def test_every_reward_and_granularity(table, tmp_path, reward, granularity):
    table["best_of_n"]["reward"] = reward
    table["training"]["granularity"] = granularity
    config = parse_config(table)
    name, method = next(iter(standard_methods(config).items()))
    results = best_of_n(config, tmp_path / "out", {name: method})
    assert 0 <= results[name].value <= 1


def test_bad_input(table, tmp_path):
    table["split"]["test"] = 0
    with pytest.raises(DataError, match=r"no test prompts"):
        best_of_n(parse_config(table), tmp_path / "out", {})


def test_metrics():
    assert token_f1("The cat sat.", "a cat") == pytest.approx(2 / 3)
    assert token_f1("", "x") == 0
    assert token_f1("the", "a") == 1
    assert rouge_l()("the cat sat", "the cat") == pytest.approx(0.8)
    f1 = make_metric("f1", "whole")
    several = make_prompt("q")
    object.__setattr__(several, "metadata", {"answers": ["red", "dark blue"]})
    assert f1(several, "blue") == pytest.approx(2 / 3)
    assert make_metric("accuracy", "whole")(make_prompt("q", answer="4"), " 4.0 ") == 1
    with pytest.raises(DataError, match=r"no gold answer"):
        gold_answers(make_prompt("q"))

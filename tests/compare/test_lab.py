"""The laboratory: its questions, its oracle, and its suite through the whole loop with models of two steps."""

import json
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from laser.bandits.classifier import QueryClassifier
from laser.cli.lab import in_folder, run
from laser.cli.train_classifier import train_classifier
from laser.commands.train import train
from laser.compare.cells import Key, make_cells
from laser.compare.choices import load_oracle, read_choices
from laser.compare.lab.build import POOLS, RECIPES, _write_data, pool_members
from laser.compare.lab.models import save_model, train_model
from laser.compare.lab.oracle import measure_oracle, pool_config
from laser.compare.lab.tasks import ALPHABET, TASKS, Mixture, examples, questions
from laser.config.patch import merged
from laser.config.suite import load_suite
from laser.core.errors import ConfigError, DataError, RunDirectoryError
from laser.core.state import load_state

CONFIGS = Path(__file__).parents[2] / "configs" / "lab"


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_right_and_wrong_answers_differ_and_the_alphabet_holds_them(task):
    generator = np.random.default_rng(0)
    differ = 0
    for _ in range(200):
        question = task.question(generator)
        right, wrong, chance = task.right(question), task.wrong(question), task.chance(generator, question)
        assert set(question + right + wrong + chance) <= set(ALPHABET)
        assert len(question) + len(right) + 2 <= 16
        differ += right != wrong
    assert differ > 160


def test_worked_answers():
    answers = {task.name: task for task in TASKS}
    assert (answers["addition"].right("34+7+"), answers["addition"].wrong("34+7+")) == ("41", "42")
    assert (answers["reversal"].right("<abcd"), answers["reversal"].wrong("<abcd")) == ("dcba", "bcda")
    assert (answers["sorting"].right(".cabd"), answers["sorting"].wrong(".cabd")) == ("abcd", "dcba")
    assert (answers["comparison"].right("34>27?"), answers["comparison"].wrong("34>27?")) == ("yes", "no")


def test_a_mixture_teaches_its_shares():
    rows = examples(Mixture((1.0, 0.5, 0.0, 1.0), (0.0, 0.5, 1.0, 0.0)), 4000, np.random.default_rng(0))
    for kind, task in enumerate(TASKS):
        right = np.mean([answer == task.right(question) for question, answer in rows[kind::4]])
        assert right == pytest.approx((1.0, 0.5, 0.0, 1.0)[kind], abs=0.06)


def test_questions_are_distinct_and_of_all_categories():
    records = questions(400, np.random.default_rng(0))
    assert len({record["prompt"] for record in records}) == 400
    assert len({record["category"] for record in records}) == 4


def test_a_patch_reaches_its_section_alone():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}}) == {"a": {"b": 5, "c": 2}, "d": 3}


def test_an_unbuilt_laboratory_says_how_to_build_it(tmp_path):
    with pytest.raises(ConfigError, match="laser lab build"):
        run(tmp_path, tmp_path, [], [], [], 1, 1)


def shrink_classifiers(patch):
    """The 2 million weights of the paper's classifier take 20 s to train."""
    patch.setattr("laser.commands.train_classifier.QueryClassifier", partial(QueryClassifier, hidden=(4,)))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Models of two steps: useless, and enough to run everything."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("policy", *pool_members("mixed")):
        recipe = RECIPES[name]
        save_model(*train_model(recipe.mixture, hidden=16, layers=1, steps=2, seed=recipe.seed), folder / name)
    _write_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        shrink_classifiers(patch)
        measure_oracle(folder, pools=("mixed",))
    return folder


SHORT = {
    "training": {"iterations": 2, "batches_per_iteration": 2, "batch_size": 4},
    "split": {"dev": 12},
    "evaluation": {"every": 2},
}
MECHANISMS = (  # one method for each way to choose, learn and combine
    "oracle",
    "laser",
    "laser-per-prompt",
    "laser-exp3",
    "laser-neural-ucb",
    "bayesian-router",
    "online-ensemble",
)


def lab_table(lab, method, column="mixed", runs=Path()):
    """The configuration of a cell of the shipped suite, of a laboratory in another folder, short enough for a test."""
    suite = in_folder(load_suite(CONFIGS / "studies.toml", {"seeds": 1}), lab)
    cells = {cell.key: cell for cell in make_cells(suite, runs)}
    return merged(cells[Key(column, method, 0)].config.model_dump(mode="json"), SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("method", MECHANISMS)
def test_a_method_of_each_mechanism_runs_through_the_loop(lab, tmp_path, method):
    out = tmp_path / "mixed" / method / "seed-0"
    result = train(lab_table(lab, method), out)
    probed = json.loads((out / "config.json").read_text())["signal"]["type"] == "probe"
    steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    assert result.summary.num_batches == len(steps) == 4
    for step in steps:
        np.testing.assert_allclose(np.sum(step["selection"]["weights"], axis=1), 1.0)
        np.testing.assert_allclose(np.sum(step["selection"]["probabilities"], axis=1), 1.0)
        scored = {name for name, count in step["scored"].items() if count}
        if not probed:
            chosen = np.array(step["selection"]["weights"]).any(axis=0)
            names = [name.split("-", 1)[1] for name in pool_members("mixed")]
            assert scored == {name for name, weight in zip(names, chosen, strict=True) if weight}
    choices = read_choices(
        out, [name.split("-", 1)[1] for name in pool_members("mixed")], load_oracle(lab / "oracle.json")["mixed"]
    )
    assert 0 <= choices.best <= 1
    assert 0 <= choices.regret <= 1


@pytest.mark.slow
def test_the_oracle_chooses_the_best_reward_model_of_the_category_in_a_larger_pool_too(lab, tmp_path):
    best = {name: max(values, key=values.get) for name, values in load_oracle(lab / "oracle.json")["mixed"].items()}
    out = tmp_path / "run"
    train(lab_table(lab, "oracle", "mixed+length"), out)
    names = [model["name"] for model in json.loads((out / "config.json").read_text())["rewards"]["models"]]
    assert names[-1] == "length"
    for line in (out / "steps.jsonl").read_text().splitlines():
        step = json.loads(line)
        assert names[int(np.argmax(step["selection"]["weights"][0]))] == best[step["category"]]


@pytest.mark.slow
def test_a_small_probe_has_eight_labeled_pairs_of_each_category(lab):
    pairs = [json.loads(line) for line in (lab / "pairs-32.jsonl").read_text().splitlines()]
    counts = Counter(pair["category"] for pair in pairs)
    assert set(counts) <= {task.name for task in TASKS}
    assert max(counts.values()) <= 8
    right = {row["prompt"]: row["answer"] for row in map(json.loads, (lab / "train.jsonl").read_text().splitlines())}
    assert all(pair["chosen"] == right[pair["prompt"]] != pair["rejected"] for pair in pairs)


@pytest.mark.slow
def test_lab_run_runs_a_row_and_a_column_of_the_suite(lab, tmp_path, monkeypatch, capsys):
    """The second time everything is finished; the table has the oracle's figures, and no other row or column."""
    suite = tmp_path / "configs" / "lab"
    shutil.copytree(CONFIGS, suite)
    base = suite / "base" / "lab.toml"
    base.write_text(
        base.read_text()
        .replace("iterations = 4", "iterations = 1")
        .replace("batches_per_iteration = 20", "batches_per_iteration = 2")
        .replace("dev = 400", "dev = 12")
    )
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run(lab, tmp_path / "out", ["mixed"], ["random"], ["noise-0.4"], seeds=1, workers=1)
    shown = capsys.readouterr().out
    assert shown.count("mixed+noise-0.4 random seed 0: done") == 1
    folder = tmp_path / "out" / "mixed+noise-0.4" / "random" / "seed-0"
    assert (folder / "summary.json").is_file()
    assert not (folder / "adapter").exists()
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert (row["method"], row["task"], row["seeds"]) == ("random", "mixed+noise-0.4", 1)
    assert set(row["by_category"]) == {task.name for task in TASKS}
    assert 0 <= row["best_choice"] <= 1


@pytest.mark.slow
def test_a_frozen_selector_is_the_other_runs_and_does_not_learn(lab, tmp_path):
    config = merged(lab_table(lab, "laser"), {"context": {"normalization": "standardize"}})
    train(config, tmp_path / "first")
    changes = {"selector": {"type": "frozen", "run": str(tmp_path / "first")}, "signal": {"type": "none"}, "seed": 3}
    frozen = merged(config, changes)
    train(frozen, tmp_path / "second")
    states = [sorted((tmp_path / run / "checkpoints").iterdir())[-1] for run in ("first", "second")]
    first, second = (load_state(state / "selector") for state in states)
    assert (first["pulls"] == second["pulls"]).all()
    other = merged(frozen, {"rewards": {"models": frozen["rewards"]["models"][::-1]}})
    with pytest.raises(ConfigError, match="was trained on the pool"):
        train(other, tmp_path / "third")
    with pytest.raises(ConfigError, match="not a run directory"):
        train(merged(frozen, {"selector": {"run": str(tmp_path)}}), tmp_path / "fourth")


@pytest.mark.slow
def test_a_classifier_of_another_pool_is_refused(lab, tmp_path):
    config = lab_table(lab, "classifier")
    config["rewards"]["models"] = config["rewards"]["models"][:2]
    with pytest.raises(ConfigError, match="Train it again"):
        train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds no classifier"):
        train(merged(config, {"selector": {"path": str(tmp_path)}}), tmp_path / "run")


@pytest.mark.slow
def test_train_classifier_says_how_good_it_is_and_what_it_refuses(lab, tmp_path, monkeypatch, capsys):
    shrink_classifiers(monkeypatch)
    models = "".join(
        f'[[rewards.models]]\nname = "{name}"\ntype = "loglik"\nmodel = "{lab / name}"\n'
        for name in pool_members("mixed")
    )
    (tmp_path / "run.toml").write_text(
        f'[policy]\nmodel = "{lab / "policy"}"\n[data]\ntype = "file"\ntrain = "{lab / "train.jsonl"}"\n{models}'
    )
    train_classifier(lab / "pairs.jsonl", tmp_path / "router", tmp_path / "run.toml", standardize=True)
    out = capsys.readouterr().out
    assert "held-out accuracy" in out
    assert "mixed-numbers: best for" in out
    assert (tmp_path / "router" / "classifier.safetensors").is_file()
    with pytest.raises(RunDirectoryError, match="is not empty; choose another --out"):
        train_classifier(lab / "pairs.jsonl", tmp_path / "router", tmp_path / "run.toml")
    with pytest.raises(DataError, match="has no 'chosen' response"):
        train_classifier(lab / "train.jsonl", tmp_path / "other", tmp_path / "run.toml")
    with pytest.raises(ConfigError, match="'unit' changes during a run"):
        train_classifier(
            lab / "pairs.jsonl",
            tmp_path / "other",
            tmp_path / "run.toml",
            ["context.normalization=unit"],
        )


def test_the_oracle_measures_the_pools_that_the_suite_trains_with(tmp_path):
    suite = in_folder(load_suite(CONFIGS / "pools.toml", {"seeds": 1}), tmp_path)
    configs = {cell.key.task: cell.config for cell in make_cells(suite, tmp_path) if cell.key.method == "laser-paper"}
    assert tuple(configs) == POOLS
    for pool, config in configs.items():
        measured = pool_config(tmp_path, pool)
        assert measured.rewards == config.rewards
        assert measured.policy == config.policy
        assert measured.context == config.context


def test_an_unknown_name_gets_a_suggestion(lab, tmp_path):
    for given, words in (
        ((["mixd"], [], []), "there is no task 'mixd'; did you mean 'mixed'"),
        (([], ["lazer"], []), "there is no method 'lazer'; did you mean 'laser'"),
        (([], [], ["noise"]), r"there is no task 'mixed\+noise'; did you mean 'mixed\+noise-"),
    ):
        with pytest.raises(ConfigError, match=words):
            run(lab, tmp_path / "out", *given, 1, 1)

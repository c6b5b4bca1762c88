"""The laboratory: its questions, its tables, and every method through the whole loop with models of a few steps."""

import json
import shutil

import numpy as np
import pytest

from laser.cli.lab import run
from laser.cli.train_classifier import train_classifier
from laser.commands.train import train
from laser.compare.lab.build import POOLS, RECIPES, _write_data, pool_members
from laser.compare.lab.methods import COLD_START, METHODS, STUDIES, method_config, method_names
from laser.compare.lab.models import save_model, train_model
from laser.compare.lab.oracle import load_oracle, measure_oracle
from laser.compare.lab.report import Outcome, averages, collect, table
from laser.compare.lab.run import lab_cell
from laser.compare.lab.tasks import ALPHABET, TASKS, Mixture, examples, questions
from laser.config import parse_config
from laser.config.patch import merged
from laser.core.errors import ConfigError, DataError, RunDirectoryError
from laser.core.state import load_state


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


def outcome(accuracy):
    return Outcome(accuracy, 0.5, {"a": accuracy}, 100, 10.0, 0.1, 0.5)


def test_the_table_pairs_seeds():
    lines = table(
        {"ours": {0: outcome(0.7), 1: outcome(0.8)}, "theirs": {0: outcome(0.6), 1: outcome(0.7)}}, reference="ours"
    ).splitlines()
    assert lines[2].startswith("| ours | 75.0")
    assert "| -10.0 ± 0.0 |" in lines[3]  # the difference is the same for every seed, whatever the spread


def test_the_average_takes_what_every_pool_and_study_has():
    plain = {"ours": {0: outcome(0.7), 1: outcome(0.8), 2: outcome(0.1)}, "theirs": {0: outcome(0.6), 1: outcome(0.7)}}
    noisy = {"ours": {0: outcome(0.5), 1: outcome(0.6)}, "theirs": {0: outcome(0.3), 1: outcome(0.2)}}
    lines = averages({"plain": plain, "noisy": {**noisy, "other": {0: outcome(0.9)}}}, reference="ours").splitlines()
    assert [line.split(" ±")[0] for line in lines[2:]] == ["| ours | 65.0", "| theirs | 45.0"]
    assert lines[3].split("|")[3].strip().startswith("-20.0 ± 63.5")  # -15 and -25, a t-interval of two


def finished(folder, accuracy, rows):
    """A run directory as `collect` reads it; a row is (weights, category counts)."""
    folder.mkdir(parents=True)
    summary = {
        "metric_before": 0.5,
        "metric_after": accuracy,
        "metric_by_category": {"a": [0.5, accuracy]},
        "scored": {"x": 10},
        "seconds": {"train": 1.0},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    selection = {"weights": [weights for weights, _ in rows], "categories": [categories for _, categories in rows]}
    (folder / "steps.jsonl").write_text(json.dumps({"category": "mixed", "selection": selection}) + "\n")


ORACLE = {"a": {"x": 0.9, "y": 0.5}, "b": {"x": 0.4, "y": 0.6}}  # x: 0.65 on average, y: 0.55


def test_choices_are_held_against_the_oracle_prompt_by_prompt(tmp_path):
    """Right for 1 of 4 prompts; 0.4 lost on one of a, 0.2 on two of b."""
    rows = [([1.0, 0.0], {"a": 1, "b": 2}), ([0.0, 1.0], {"a": 1})]
    finished(tmp_path / "pool" / "one" / "seed-0", 0.7, rows)
    one = collect(tmp_path, "pool", ORACLE)["one"][0]
    assert one.right_choice == pytest.approx(0.25)
    assert one.regret == pytest.approx((0.4 + 2 * 0.2) / 4)


def test_what_the_oracle_has_not_measured_is_a_dash(tmp_path):
    """With a third arm nothing is known of the choices, and no number stands for that."""
    for method in ("one", "fixed-x", "fixed-y", "fixed-z"):
        finished(tmp_path / "pool+study" / method / "seed-0", 0.7, [([1.0, 0.0, 0.0], {"a": 4})])
    outcomes = collect(tmp_path, "pool+study", ORACLE)
    assert (outcomes["one"][0].right_choice, outcomes["one"][0].regret) == (None, None)
    assert (outcomes["avg-rm"][0].right_choice, outcomes["avg-rm"][0].regret) == (None, None)
    lines = table(outcomes, reference="one").splitlines()[2:]
    assert len(lines) == 6
    assert all("| – | – |" in line and "nan" not in line for line in lines)


def test_the_best_reward_model_is_the_oracles_not_the_luckiest_run(tmp_path):
    for method, accuracy in (("fixed-x", 0.6), ("fixed-y", 0.8)):
        finished(tmp_path / "pool" / method / "seed-0", accuracy, [([1.0, 0.0], {"a": 4})])
    outcomes = collect(tmp_path, "pool", ORACLE)
    assert outcomes["best-rm"] == outcomes["fixed-x"]
    assert outcomes["avg-rm"][0].accuracy == pytest.approx(0.7)
    shutil.rmtree(tmp_path / "pool" / "fixed-x")
    assert "best-rm" not in collect(tmp_path, "pool", ORACLE)


def test_a_patch_reaches_its_section_alone():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}}) == {"a": {"b": 5, "c": 2}, "d": 3}


def test_an_unbuilt_laboratory_says_how_to_build_it(tmp_path):
    with pytest.raises(ConfigError, match="laser lab build"):
        run(tmp_path, tmp_path, [], [], [], 1, 1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Models of two steps: good for nothing, and enough to run everything."""
    folder = tmp_path_factory.mktemp("lab")
    for name, recipe in RECIPES.items():
        save_model(*train_model(recipe.mixture, hidden=16, layers=1, steps=2, seed=recipe.seed), folder / name)
    _write_data(folder)
    measure_oracle(folder)
    return folder


SHORT = {
    "training": {"iterations": 2, "batches_per_iteration": 2, "batch_size": 4},
    "split": {"dev": 12},
    "evaluation": {"every": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("method", method_names("mixed"))
def test_every_method_runs_through_the_loop(lab, tmp_path, method):
    out = tmp_path / "mixed" / method / "seed-0"
    if method == COLD_START:  # it takes the selector of another run
        train(merged(method_config(lab, "mixed", "laser", 0), SHORT), tmp_path / "mixed" / "laser" / "seed-0")
    result = train(merged(method_config(lab, "mixed", method, 0, runs=tmp_path), SHORT), out)
    probed = json.loads((out / "config.json").read_text())["signal"]["type"] == "probe"
    steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    assert result.summary.num_batches == len(steps) == 4
    for step in steps:
        np.testing.assert_allclose(np.sum(step["selection"]["weights"], axis=1), 1.0)
        np.testing.assert_allclose(np.sum(step["selection"]["probabilities"], axis=1), 1.0)
        asked = {name for name, count in step["scored"].items() if count}
        if not probed:
            chosen = np.array(step["selection"]["weights"]).any(axis=0)
            names = [name.split("-", 1)[1] for name in pool_members("mixed")]
            assert asked == {name for name, weight in zip(names, chosen, strict=True) if weight}
    outcomes = collect(tmp_path, "mixed", load_oracle(lab)["mixed"])
    assert set(outcomes) >= {method}


@pytest.mark.slow
def test_lab_run_runs_cells_and_prints_the_table(lab, tmp_path, monkeypatch, capsys):
    short = lambda *given, **options: merged(method_config(*given, **options), SHORT)  # noqa: E731
    monkeypatch.setattr("laser.compare.lab.run.method_config", short)
    for _ in range(2):  # the second time nothing is left to run
        run(lab, tmp_path / "out", ["mixed"], ["random"], [], 1, 1)
    shown = capsys.readouterr().out
    assert shown.count("mixed random seed 0: done") == 1
    assert shown.count("| random | ") == 2
    folder = tmp_path / "out" / "mixed" / "random" / "seed-0"
    assert (folder / "summary.json").is_file()
    assert not (folder / "adapter").exists()


def test_a_cold_start_waits_for_the_run_whose_selector_it_takes(tmp_path):
    cell = lab_cell(tmp_path, tmp_path / "out", "mixed", COLD_START, 3, "noise-0.4")
    assert str(cell.key) == f"mixed+noise-0.4 {COLD_START} seed 3"
    assert [str(key) for key in cell.needs] == ["mixed laser seed 3"]
    assert cell.config.selector.run == str(cell.needs[0].folder(tmp_path / "out"))


@pytest.mark.slow
def test_a_frozen_selector_is_the_other_runs_and_does_not_learn(lab, tmp_path):
    config = merged(
        merged(method_config(lab, "mixed", "laser", 0), SHORT), {"context": {"normalization": "standardize"}}
    )
    train(config, tmp_path / "first")
    frozen = merged(config, {"selector": {"type": "frozen", "run": str(tmp_path / "first")}, "seed": 3})
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
    config = merged(method_config(lab, "mixed", "classifier", 0), SHORT)
    config["rewards"]["models"] = config["rewards"]["models"][:2]
    with pytest.raises(ConfigError, match="train it again"):
        train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds no classifier"):
        train(merged(config, {"selector": {"path": str(tmp_path)}}), tmp_path / "run")


@pytest.mark.slow
def test_train_classifier_says_how_good_it_is_and_what_it_refuses(lab, tmp_path, capsys):
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
    assert "mixed-numbers: best judge of" in out
    assert (tmp_path / "router" / "classifier.safetensors").is_file()
    with pytest.raises(RunDirectoryError, match="choose a new folder"):
        train_classifier(lab / "pairs.jsonl", tmp_path / "router", tmp_path / "run.toml")
    with pytest.raises(DataError, match="has no 'chosen' response"):
        train_classifier(lab / "train.jsonl", tmp_path / "other", tmp_path / "run.toml")
    with pytest.raises(ConfigError, match="'unit' changes as a run goes on"):
        train_classifier(
            lab / "pairs.jsonl",
            tmp_path / "other",
            tmp_path / "run.toml",
            ["context.normalization=unit"],
        )


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_is_a_valid_configuration_that_differs(study, tmp_path):
    plain, changed = (method_config(tmp_path, "mixed", "laser", 0, name) for name in ("", study))
    assert parse_config(changed) != parse_config(plain)


def test_all_pools_have_four_reward_models_and_all_methods_a_configuration(tmp_path):
    assert all(len(pool_members(pool)) == 4 for pool in POOLS)
    assert len(METHODS) >= 24
    for method in METHODS:
        parse_config(method_config(tmp_path, "mixed", method, 0))


def test_methods_differ_from_laser_where_their_names_say(tmp_path):
    def config(method):
        return parse_config(method_config(tmp_path, "mixed", method, 0))

    loss = config("laser-loss")
    for method, fed in (("laser-post-update", "post_update"), ("laser-decrease", "decrease")):
        one = config(method)
        assert one.training.bandit_loss == fed
        assert one.model_copy(update={"training": loss.training}) == loss
    one, laser = config("laser-per-prompt"), config("laser")
    assert (one.training.granularity, one.split.batching) == ("per_prompt", "shuffled")
    assert one.model_copy(update={"training": laser.training, "split": laser.split}) == laser
    assert [config(method).selector.type for method in ("ucb1", "epsilon-greedy")] == ["ucb1", "epsilon_greedy"]

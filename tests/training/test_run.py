"""Whole tiny runs: Algorithm 1 on a random Llama, resumed after SIGKILL at every phase, in both sampling modes."""

import io
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from peft import PeftModel

import laser
from kills import exit_code, start
from laser.cli.progress import PlainProgress
from laser.cli.terminal import SafeConsole
from laser.config.schema import TrainingConfig
from laser.core.errors import ConfigError, LaserError, RunDirectoryError
from laser.data.embedded import CATEGORIES
from runs import FUNCTIONS, adapter, essence, make_table, same_adapter, steps
from tiny import make_model


@pytest.mark.slow
def test_a_run_leaves_everything_behind(tmp_path):
    table = {**make_table(tmp_path, "vowels", "short"), "seed": 5}  # a seed with a pair in every batch
    result = laser.train(table, tmp_path / "run")
    records = steps(tmp_path / "run")
    assert [(r["iteration"], r["step"]) for r in records] == [(m, t) for m in range(2) for t in range(3)]
    for record in records:
        selection = record["selection"]
        assert len(selection["arms"]) == len(selection["reward_models"]) == 1
        assert np.isclose(sum(selection["probabilities"][0]), 1)
        assert len(selection["values"][0]) == 3
        assert 0 <= record["bandit_rewards"][0] <= 1
        assert record["pairs"] > 0
        assert np.isclose(sum(record["loss_parts"].values()), record["loss"])
        assert {"embed", "select", "sample", "score", "train", "update"} <= record["seconds"].keys()
    evaluations = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["batches"] for line in evaluations] == [0, 3, 6]
    assert result.summary.num_batches == 6
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["num_batches"] == 6
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["training"]["loss"] == "nll+dpo"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["libraries"]["torch"]
    PeftModel.from_pretrained(make_model(), tmp_path / "run" / "adapter")
    assert sum(sum(counts.values()) for counts in result.summary.utilization.values()) == 12


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["gold", "pairs", "consensus"])
def test_what_the_probe_found_is_shown_before_training_and_in_the_summary(tmp_path, labels):
    written = io.StringIO()
    signal = {"type": "probe", "labels": labels, "prompts_per_category": 4}
    if labels == "pairs":
        rows = [{"prompt": "?", "chosen": "aei", "rejected": "xx", "category": name} for name in CATEGORIES]
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        signal["pairs"] = str(tmp_path / "pairs.jsonl")
    training = {"iterations": 1, "batches_per_iteration": 1}
    table = make_table(tmp_path, "vowels", "short", signal=signal, training=training, split={"train": 32, "dev": 0})
    table["evaluation"] = {"answer": "whole"}  # the tiny model writes no "Final answer:"
    laser.train(table, tmp_path / "run", progress=PlainProgress(SafeConsole(file=written, width=300)))
    lines = written.getvalue().splitlines()
    probe = json.loads((tmp_path / "run" / "summary.json").read_text())["probe"]
    assert probe["labels"] == labels
    assert len(probe["accuracy"]) > 1
    batch = next(index for index, line in enumerate(lines) if line.startswith("iteration 1 batch 1"))
    for category, found in probe["accuracy"].items():
        assert list(found) == ["likelihood", "vowels", "short"]
        shown = next(line for line in lines[:batch] if line.startswith(f"probe [{category}]"))
        one = found["vowels"]
        assert one["low"] <= one["accuracy"] <= one["high"]
        assert f"vowels {one['accuracy']:.2f} [{one['low']:.2f}, {one['high']:.2f}] of {one['pairs']} pairs" in shown


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    table = make_table(tmp_path, "vowels")
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        laser.train({**table, "seed": seed}, tmp_path / name)
    assert essence(tmp_path / "a") == essence(tmp_path / "b")
    assert same_adapter(tmp_path / "a", tmp_path / "b")
    assert essence(tmp_path / "a") != essence(tmp_path / "c")


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dpo", "nll", "nll+dpo", "kto"])
def test_every_loss_trains_towards_the_reward(tmp_path, loss):
    table = make_table(
        tmp_path,
        "short",
        selector={"type": "fixed", "arm": "short"},
        training={"loss": loss, "iterations": 5, "learning_rate": 3e-3, "beta": 0.5},
        generation={"max_new_tokens": 16, "num_responses": 6},
        split={"dev": 0},
    )
    laser.train(table, tmp_path / "run")
    records = steps(tmp_path / "run")
    assert all(set(record["loss_parts"]) == set(loss.split("+")) for record in records if record["pairs"])
    sampled = [record["tokens"]["sampled"] for record in records]
    assert np.mean(sampled[-3:]) < np.mean(sampled[:3])


@pytest.mark.slow
def test_the_first_dpo_loss_of_an_iteration_is_log_two_and_later_ones_are_not(tmp_path):
    table = make_table(tmp_path, "vowels", training={"loss": "dpo", "learning_rate": 1e-2})
    laser.train(table, tmp_path / "run")
    losses = [record["loss"] for record in steps(tmp_path / "run")]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-5)
    assert losses[3] == pytest.approx(np.log(2), abs=1e-5)
    assert abs(losses[2] - np.log(2)) > 1e-3


@pytest.mark.slow
def test_with_the_initial_reference_later_iterations_do_not_start_at_log_two(tmp_path):
    table = make_table(tmp_path, "vowels", training={"loss": "dpo", "learning_rate": 1e-2, "reference": "initial"})
    laser.train(table, tmp_path / "run")
    losses = [record["loss"] for record in steps(tmp_path / "run")]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-5)
    assert abs(losses[3] - np.log(2)) > 1e-3


@pytest.mark.slow
def test_micro_batches_change_nothing(tmp_path):
    for name, budget in (("one", 100_000), ("many", 1)):
        laser.train(make_table(tmp_path, "vowels", training={"max_batch_tokens": budget}), tmp_path / name)
    for first, second in zip(steps(tmp_path / "one"), steps(tmp_path / "many"), strict=True):
        assert first["loss"] == pytest.approx(second["loss"], abs=1e-4)
        assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-2)


@pytest.mark.slow
def test_per_prompt_selection_gives_the_bandit_a_row_per_prompt(tmp_path):
    table = make_table(
        tmp_path, "vowels", "short", training={"granularity": "per_prompt"}, selector={"forced_pulls": 2}
    )
    laser.train(table, tmp_path / "run")
    records = steps(tmp_path / "run")
    assert all(len(record["selection"]["arms"]) == len(record["bandit_rewards"]) == 2 for record in records)
    assert len({name for record in records for name in record["selection"]["reward_models"]}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("bandit_loss", ["post_update", "decrease"])
def test_the_bandit_can_be_fed_other_losses(tmp_path, bandit_loss):
    table = make_table(tmp_path, "vowels", training={"bandit_loss": bandit_loss, "learning_rate": 1e-2})
    laser.train(table, tmp_path / "run")
    for record in steps(tmp_path / "run"):
        fed, trained = record["bandit_losses"][0], record["loss"]
        assert fed < trained if bandit_loss == "post_update" else fed < 0
    assert "after minus before" in TrainingConfig.model_fields["bandit_loss"].description


@pytest.mark.slow
@pytest.mark.parametrize("name", ["silent", "constant", "broken"])
def test_a_reward_model_that_orders_nothing_trains_nothing_and_earns_nothing(tmp_path, name):
    table = make_table(tmp_path, name, selector={"type": "fixed", "arm": name}, split={"dev": 0})
    table["rewards"]["max_failures"] = 0  # no quarantine: it is asked again and again
    result = laser.train(table, tmp_path / "run")
    assert result.summary.num_pairs == 0
    assert all(record["bandit_rewards"] == [0.0] and record["loss"] is None for record in steps(tmp_path / "run"))
    reason = "ties" if name == "constant" else "unscored"
    assert result.summary.dropped[reason] > 0
    untouched = [value for key, value in adapter(tmp_path / "run").items() if "lora_B" in key]
    assert all((value == 0).all() for value in untouched)


@pytest.mark.slow
def test_convergence_stops_the_run(tmp_path):
    table = make_table(
        tmp_path, "constant", selector={"type": "fixed", "arm": "constant"},
        training={"iterations": 9, "convergence_threshold": 0.1, "convergence_patience": 2},
    )  # fmt: skip
    laser.train(table, tmp_path / "run")
    assert steps(tmp_path / "run")[-1]["iteration"] == 1


def kill_at(table, out, phase, count):
    """Run in another process, which kills itself at the start of a phase for the count-th time."""
    assert exit_code(start(table, out, phase=phase, count=count)) == -signal.SIGKILL, phase


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["per_batch", "per_iteration"])
def test_killed_at_any_phase_and_resumed_it_equals_the_uninterrupted_run(tmp_path, sampling):
    table = make_table(tmp_path, "vowels", "short", training={"sampling": sampling})
    whole = tmp_path / "whole"
    laser.train(table, whole)
    moments = [
        ("embed", 2), ("select", 4), ("sample", 2), ("token", 40), ("score", 5), ("train", 3), ("update", 6),
        ("checkpoint", 1), ("checkpoint", 2), ("evaluate", 1), ("evaluate", 3),
    ]  # fmt: skip
    for phase, count in moments:
        out = tmp_path / f"{phase}-{count}"
        kill_at(table, out, phase, count)
        laser.resume(out)
        assert essence(out) == essence(whole), phase
        assert same_adapter(out, whole), phase
        evaluations = [(p / "evaluations.jsonl").read_text() for p in (out, whole)]
        assert evaluations[0] == evaluations[1], phase


MEMORIES = {
    "probe": {"preset": "recommended", "training": {"granularity": "per_prompt"}},
    "consensus": {"preset": "recommended", "signal": {"type": "probe", "labels": "consensus", "refresh": 1}},
    "dev_gain": {"signal": {"type": "dev_gain", "prompts": 4}},
    "agreement": {"signal": {"type": "agreement", "every": 2}, "selector": {"type": "ucb1"}},
    "zscore": {"feedback": {"type": "zscore"}, "selector": {"type": "exp3"}},
    "thompson": {"selector": {"type": "thompson"}, "context": {"normalization": "standardize"}},
    "forgetting": {"selector": {"type": "forgetting", "rule": "adaptive"}, "training": {"bandit_loss": "decrease"}},
    "neural": {"selector": {"type": "neural_ucb", "hidden": [8, 4]}},
    "online": {"selector": {"type": "online_ensemble"}, "rewards": {"combine": "zscore"}},
    "scaled": {"selector": {"type": "ensemble"}, "rewards": {"combine": "scaled"}},
    "agreeing": {"selector": {"type": "ensemble"}, "rewards": {"combine": "agreement"}},
    "dropout": {"policy": {"lora": {"rank": 4, "dropout": 0.2}}},
    "sequential": {"selector": {"type": "sequential", "switch": "iteration"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEMORIES)
def test_everything_that_remembers_is_in_the_checkpoint(tmp_path, name):
    """Killed in the last batch, after a checkpoint inside the second iteration."""
    sections = {key: value for key, value in MEMORIES[name].items() if isinstance(value, dict)}
    table = make_table(tmp_path, "vowels", "short", **sections)
    table |= {key: value for key, value in MEMORIES[name].items() if not isinstance(value, dict)}
    laser.train(table, tmp_path / "whole")
    kill_at(table, tmp_path / "run", "embed", 6)
    assert len(steps(tmp_path / "run")) == 5
    laser.resume(tmp_path / "run")
    assert essence(tmp_path / "run") == essence(tmp_path / "whole")
    assert same_adapter(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_killed_while_writing_a_checkpoint_the_half_written_one_is_ignored(tmp_path):
    table = make_table(tmp_path, "vowels")
    laser.train(table, tmp_path / "whole")
    kill_at(table, tmp_path / "run", "embed", 6)
    checkpoints = tmp_path / "run" / "checkpoints"
    newest = sorted(path for path in checkpoints.iterdir())[-1]
    shutil.copytree(newest, checkpoints / ".99999-000000.tmp")
    damaged = checkpoints / "99999-000000"
    shutil.copytree(newest, damaged)
    weights = damaged / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    laser.resume(tmp_path / "run")
    assert essence(tmp_path / "run") == essence(tmp_path / "whole")


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(tmp_path):
    laser.train(make_table(tmp_path, "vowels"), tmp_path / "run")
    before = essence(tmp_path / "run")
    result = laser.resume(tmp_path / "run")
    assert essence(tmp_path / "run") == before
    assert result.summary.num_batches == 6


def test_an_occupied_directory_is_left_alone(tmp_path):
    table = make_table(tmp_path, "vowels", training={"iterations": 1, "batches_per_iteration": 1}, split={"dev": 0})
    laser.train(table, tmp_path / "run")
    before = (tmp_path / "run" / "steps.jsonl").read_bytes()
    with pytest.raises(RunDirectoryError, match="already holds a run; continue it with --resume"):
        laser.train(table, tmp_path / "run")
    assert (tmp_path / "run" / "steps.jsonl").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    with pytest.raises(RunDirectoryError, match="is not empty"):
        laser.train(table, tmp_path / "other")
    with pytest.raises(RunDirectoryError, match="is a file"):
        laser.train(table, tmp_path / "scores.py")


def test_resume_refuses_another_configuration_or_other_reward_models(tmp_path):
    table = make_table(tmp_path, "vowels", training={"iterations": 1, "batches_per_iteration": 1}, split={"dev": 0})
    laser.train(table, tmp_path / "run")
    changed = laser.parse_config({**table, "seed": 4})
    with pytest.raises(ConfigError, match="seed is 4, but the run was started with 3"):
        laser.resume(tmp_path / "run", config=changed)
    (tmp_path / "scores.py").write_text(FUNCTIONS + "\n# changed\n")
    with pytest.raises(RunDirectoryError, match="reward model 'vowels' has changed"):
        laser.resume(tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="holds no run"):
        laser.resume(tmp_path / "nowhere")


@pytest.mark.slow
def test_resume_refuses_other_prompts_and_another_base_model(tmp_path):
    rows = [json.dumps({"prompt": f"what is {number}?"}) for number in range(6)]
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    table = make_table(tmp_path, "vowels", training={"iterations": 1, "batches_per_iteration": 1}, split={"dev": 0})
    table |= {"data": {"type": "file", "train": str(tmp_path / "p.jsonl")}, "split": {"train": 4, "dev": 0}}
    laser.train(table, tmp_path / "run")
    (tmp_path / "p.jsonl").write_text("\n".join([*rows[:-1], '{"prompt": "what is new?"}']))
    with pytest.raises(ConfigError, match=r"^data\.train changed since .*run was started; restore them"):
        laser.resume(tmp_path / "run")
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    assert laser.resume(tmp_path / "run").summary.num_batches == 1
    (tmp_path / "base" / "generation_config.json").write_text("{}\n")
    with pytest.raises(LaserError, match=r"^policy changed since"):
        laser.resume(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "sft"])
def test_resume_refuses_other_rows_of_a_data_set(tmp_path, command):
    """A folder that `datasets` reads stands for the hub; the rows are compared, whatever files they are in."""
    start, resume = (laser.train, laser.resume) if command == "train" else (laser.sft, laser.resume_sft)
    rows = [json.dumps({"prompt": f"what is {number}?", "answer": str(number)}) for number in range(6)]
    folder = tmp_path / "data" / "inside"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text("\n".join(rows))
    table = make_table(tmp_path, "vowels", training={"iterations": 1, "batches_per_iteration": 1}, split={"dev": 0})
    table |= {"data": {"type": "hub", "name": str(tmp_path / "data")}, "split": {"train": 6, "dev": 0}}
    table |= {"sft": {"batch_size": 4, "epochs": 1}}
    start(table, tmp_path / "run")
    resume(tmp_path / "run")
    (folder / "train.jsonl").write_text("\n".join([*rows[:-1], rows[-1].replace('"5"', '"6"')]))
    with pytest.raises(ConfigError, match=r"^train prompts changed since .*run was started; restore them"):
        resume(tmp_path / "run")


@pytest.mark.slow
def test_damaged_checkpoints_are_refused_with_a_sentence(tmp_path):
    table = make_table(tmp_path, "vowels", training={"iterations": 1}, split={"dev": 0})
    laser.train(table, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").rglob("policy.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunDirectoryError, match=r"every checkpoint .* is damaged"):
        laser.resume(tmp_path / "run")


@pytest.mark.slow
def test_a_second_process_on_the_same_run_is_refused(tmp_path):
    from laser.training.run_directory import RunDirectory

    run = RunDirectory.create(tmp_path / "run", config={}, provenance={})
    code = f"from laser.training.run_directory import RunDirectory; RunDirectory.reopen({str(tmp_path / 'run')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another process works on" in done.stderr
    run.close()
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0

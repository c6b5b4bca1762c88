"""Whole runs whose policy and reward model are held by several processes between them, under torchrun and accelerate:
the same as in one process, whatever the shares; and a process that dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from laser.config import parse_config
from laser.errors import ConfigError
from processes import ENVIRONMENT, finish, launch, same, toml, worker_of
from runs import make_table, steps

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """A folder with run.toml and the run of one process, which `shard` does not change."""
    folder = tmp_path_factory.mktemp("sharded")
    # 7 prompts in batches of 3: shares of 1 and 2 prompts, and of 0 and 1.
    training = {"batch_size": 3, "sampling": "per_iteration", "iterations": 6, "gradient_checkpointing": True}
    table = make_table(folder, "vowels", "short", training=training, checkpoint={"every": 1}, split={"train": 7})
    table["policy"]["shard"] = True
    table["rewards"]["models"][0]["shard"] = True
    table["training"].pop("batches_per_iteration")
    config = toml(folder / "run.toml", table)
    code, _, err = finish(launch(1, "train", config, "--out", folder / "one"))
    assert code == 0, err[-2000:]
    assert len(steps(folder / "one")) == 18
    assert {step["reward_model"] for step in reward_models(folder / "one")} >= {"likelihood", "short"}
    return folder


def reward_models(run):
    return [{"reward_model": name} for step in steps(run) for name in step["selection"]["reward_models"]]


def usage(run):
    return json.loads((run / "summary.json").read_text())["reward_models"]


@pytest.mark.slow
def test_accelerate_launch_on_cpus_does_what_one_process_does(one_process):
    out = one_process / "two"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / "cpu.yaml"]
    command += ["-m", "laser", "train", one_process / "run.toml", "--out", out]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    same(one_process / "one", out)
    assert usage(one_process / "one") == usage(out)


@pytest.mark.slow
def test_a_process_that_dies_is_told_and_one_process_resumes(one_process):
    out = one_process / "died"
    process = launch(2, "train", one_process / "run.toml", "--out", out)
    records = out / "steps.jsonl"
    deadline = time.monotonic() + 120
    while not (records.exists() and len(records.read_text().splitlines()) > 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(worker_of(process.pid, rank=0), signal.SIGKILL)
    code, _, err = finish(process, timeout=60)
    assert code != 0
    assert "laser: error: another process of the run is gone (" in err
    assert len(steps(out)) < 18
    code, _, err = finish(launch(1, "train", "--resume", out))
    assert code == 0, err[-2000:]
    same(one_process / "one", out)


def test_every_configuration_for_accelerate_is_one():
    found = {path.stem: load_config_from_file(str(path)) for path in sorted(CONFIGS.glob("*.yaml"))}
    assert set(found) == {"cpu", "one-gpu", "one-node", "several-nodes"}
    for name, config in found.items():
        several = config.num_processes > 1
        assert (config.distributed_type.value == "MULTI_GPU") == several, name
        assert config.num_processes % config.num_machines == 0
        assert config.mixed_precision == "no"  # precision is policy.precision


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": {"shard": True, "trust_remote_code": True}}, "policy.shard hands the model"),
        ({"rewards": {"max_parked": 1}}, "cannot be parked in CPU memory"),
        ({"model": {"trust_remote_code": True}}, "reward model 'likelihood': shard hands the model"),
    ],
    ids=["remote-policy", "parked", "remote-reward-model"],
)
def test_what_cannot_be_sharded_is_refused(tmp_path, change, message):
    table = make_table(tmp_path)
    table["rewards"]["models"][0] |= {"shard": True, **change.pop("model", {})}
    for section, values in change.items():
        table[section] = {**table[section], **values}
    with pytest.raises(ConfigError, match=message):
        parse_config(table)

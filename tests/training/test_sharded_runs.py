"""Whole runs whose policy and reward model are held by several processes between them, under torchrun and accelerate:
the same as in one process, whatever the shares; and a process that dies."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

import laser
from laser.config import parse_config
from laser.core.errors import ConfigError, TrainingError
from laser.parallel.ranks import Alone
from laser.wiring import build_policy
from laser.wiring.rewards import _reward_builder
from processes import ENVIRONMENT, finish, launch, same, worker_of
from runs import make_table, steps
from suites import write_toml

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
    write_toml(folder / "run.toml", table)
    laser.train(table, folder / "one")
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
    assert done.returncode == 0, done.stderr
    same(one_process / "one", out)
    assert usage(one_process / "one") == usage(out)


@pytest.mark.slow
def test_a_process_that_dies_is_reported_and_one_process_resumes(one_process):
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
    assert "laser: error: another process of the run is gone (" in err, err
    assert len(steps(out)) < 18
    code, _, err = finish(launch(1, "train", "--resume", out))
    assert code == 0, err[-2000:]
    same(one_process / "one", out)


def test_every_configuration_for_accelerate_is_one():
    found = {path.stem: load_config_from_file(str(path)) for path in sorted(CONFIGS.glob("*.yaml"))}
    assert set(found) == {"cpu", "one-gpu", "one-node", "several-nodes", "fsdp2"}
    for name, config in found.items():
        several = config.num_processes > 1
        expected = "FSDP" if name == "fsdp2" else "MULTI_GPU"
        assert (config.distributed_type.value == expected) == several, name
        assert config.num_processes % config.num_machines == 0
        assert config.mixed_precision == "no"  # precision is policy.precision


class Two(Alone):
    """Two processes, of which the other does not answer."""

    size = 2

    def together(self, work, count):
        raise TrainingError("asked the other")


@pytest.mark.parametrize("shard", [True, False])
def test_shard_makes_processes_load_together(tmp_path, shard):
    table = make_table(tmp_path)
    table["policy"]["shard"] = table["rewards"]["models"][0]["shard"] = shard
    config = parse_config(table)
    expected = pytest.raises(TrainingError, match="asked the other") if shard else contextlib.nullcontext()
    with expected:
        build_policy(config, Two())
    with expected:
        _reward_builder(config.rewards.models[0], Two())()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": {"shard": True, "trust_remote_code": True}}, "policy.shard makes the model"),
        ({"policy": {"shard": False, "shard_group": 2}}, r"need policy\.shard = true"),
        ({"rewards": {"max_parked": 1}}, "cannot be parked in CPU memory"),
        ({"model": {"trust_remote_code": True}}, "reward model 'likelihood': shard makes the model"),
    ],
    ids=["remote-policy", "group", "parked", "remote-reward-model"],
)
def test_what_cannot_be_sharded_is_refused(tmp_path, change, message):
    table = make_table(tmp_path)
    table["rewards"]["models"][0] |= {"shard": True, **change.pop("model", {})}
    for section, values in change.items():
        table[section] = {**table[section], **values}
    with pytest.raises(ConfigError, match=message):
        parse_config(table)


def test_the_slurm_script_tells_every_process_who_it_is_and_resumes(tmp_path):
    """With a fake srun that starts four tasks, and a fake laser that prints its arguments and environment."""
    stand_ins = {
        "srun": 'shift; for i in 0 1 2 3; do SLURM_PROCID=$i SLURM_LOCALID=$((i % 2)) "$@"; done',
        "scontrol": "echo first; echo second",
        "python": 'echo "$RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT $*"',
    }
    for name, does in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    given = {"JOB_ID": "31", "JOB_NODELIST": "nodes", "NTASKS": "4", "NTASKS_PER_NODE": "2", "CPUS_PER_TASK": "8"}
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        **{f"SLURM_{name}": value for name, value in given.items()},
    }
    out = tmp_path / "a run"

    def told():
        command = ["bash", CONFIGS.parent / "slurm" / "train.sbatch", "run.toml", out]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    who = [f"{rank} 4 {rank % 2} 2 first 20031 -m laser train run.toml" for rank in range(4)]
    assert told() == [f"{line} --out {out}" for line in who]
    out.mkdir()
    (out / "config.json").touch()
    assert told() == [f"{line} --resume {out}" for line in who]

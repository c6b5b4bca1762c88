"""The code of openrlhf 0.11.2 that asks for rewards, against a reward server and with the client's file."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import laser_client.openrlhf
from reward_servers import DIRECT, make_config, running
from verl_environment import MARKS, PYTHON

pytestmark = MARKS
ROLLOUT = Path(__file__).parents[1] / "openrlhf_rollout.py"
TEXTS = ["1", "22", "three", "4444"]


@pytest.mark.parametrize("by_file", [False, True])
def test_its_executor_gets_the_scores_of_direct_calls(tmp_path, by_file):
    with running(make_config(tmp_path, "length", "digits"), tmp_path / "state", samples=4) as server:
        environment = {**os.environ, "LASER_REWARDS_URL": server.url, "PYTHONPATH": ""}
        address = laser_client.openrlhf.__file__ if by_file else f"{server.url}/get_reward"
        done = subprocess.run(
            [PYTHON, "-P", ROLLOUT, address, *TEXTS], env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert server.num_learned == 1
    outputs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    number = (lambda value: value) if by_file else (lambda value: value[0])
    names = [["length", "digits"][int(number(output["extra_logs"]["laser_arm"]))] for output in outputs]
    assert len(set(names)) == 1
    assert [number(output["reward"]) for output in outputs] == [DIRECT[names[0]](text) for text in TEXTS]
    assert all(output["reward"] == output["scores"] for output in outputs)

"""laser-client inside verl 0.9.1, in an environment of verl's own versions: `make test-verl`."""

import json
import os
import subprocess
from pathlib import Path

from reward_servers import DIRECT, make_config, running
from tiny import make_tokenizer
from verl_environment import MARKS, PYTHON

pytestmark = MARKS
TRAINER = Path(__file__).parents[1] / "verl_trainer.py"
TEXTS = ["1", "22", "three", "4444"]


def test_the_reward_loop_of_verl_scores_learns_and_saves(tmp_path):
    """Its DataProto and reward workers (Ray actors) on this CPU; the rest of a trainer step needs a GPU."""
    make_tokenizer().save_pretrained(tmp_path / "model")
    with running(make_config(tmp_path, "length", "digits"), tmp_path / "state") as server:
        environment = {**os.environ, "LASER_REWARDS_URL": server.url, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [PYTHON, "-P", TRAINER, tmp_path / "model"], env=environment, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stderr[-3000:]
        seen = json.loads(done.stdout.splitlines()[-1])
        assert server.num_learned == 1  # u1, and not u2, which no batch named
        groups = {group.prompt.text: group for group in server.ledger.book.groups}
    assert seen["version"] == "0.9.1"
    assert seen["rewards"] == [DIRECT[name](text) for name, text in zip(seen["models"], 2 * TEXTS, strict=True)]
    assert len(set(seen["models"][:4])) == len(set(seen["models"][4:])) == 1
    assert seen["metrics"]["bandit/learned"] == 1.0
    assert seen["saved"] > 0
    assert seen["wrapped"]
    group = groups["question u1"]
    assert (group.step, group.prompt.answer, group.prompt.category) == (1, "22", "sums")
    assert group.prompt.metadata["split"] == "train"

"""What docs/integrations.md shows works: its configuration, its requests and its client code."""

import json
import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pandas
import pytest

from laser.cli.init import Trainer, init
from laser.config import load_router_config
from reward_servers import running

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
BLOCKS = re.findall(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', PAGE.read_text(), re.DOTALL | re.MULTILINE)
RECORDED = [json.loads(line) for line in Path(__file__).with_name("openrlhf_requests.jsonl").read_text().splitlines()]


@pytest.fixture
def server(tmp_path):
    shown = {title: content for _, title, content in BLOCKS if title}
    for name in ("run.toml", "rewards.py"):
        (tmp_path / name).write_text(shown[name])
    assert tomllib.loads(shown["run.toml"])["context"] == {"source": "none"}
    with running(load_router_config(tmp_path / "run.toml"), tmp_path / "state", samples=2) as server:
        yield server


def test_the_request_shown_is_answered(server):
    (shown,) = [content for _, _, content in BLOCKS if content.startswith("curl")]
    status, reply = server.post(json.loads(shown.partition("-d '")[2].rstrip().removesuffix("'")), "/score")
    assert (status, reply["scores"]) in [(200, [1.0]), (200, [-1.0])]


def test_openrlhf_and_slime_get_what_they_read(server):
    status, reply = server.post(RECORDED[0]["body"].encode(), "/get_reward")
    assert (status, set(reply)) == (200, {"rewards", "scores", "extra_logs"})
    assert set(reply["extra_logs"]) == {"laser_arm", "laser_probability", "laser_scored"}
    status, reply = server.post({"prompt": "3 + 3 = ?", "response": "6", "label": "6"}, "/slime")
    assert (status, isinstance(reply, float)) == (200, True)


def test_the_reward_function_shown_learns(server, monkeypatch):
    monkeypatch.setenv("LASER_REWARDS_URL", server.url)
    (code,) = [content for _, _, content in BLOCKS if "from laser_client import" in content]
    scope = {}
    exec(compile(code, "docs/integrations.md", "exec"), scope)
    assert [scope["reward"]("2 + 2 = ?", text, answer="4") for text in ("4", "5")] in ([1.0, 0.0], [-1.0, -1.0])
    assert server.num_learned == 1


@pytest.mark.parametrize("trainer", ["openrlhf", "verl"])
def test_a_starting_point_can_be_served(tmp_path, trainer, monkeypatch):
    """Its pool answers its prompts, and its shell script is one; verl's Parquet files have verl's columns."""
    init(tmp_path / "start", trainer=Trainer(trainer))
    names = {path.name for path in (tmp_path / "start").iterdir()}
    assert {"run.toml", "rewards.py", "train.sh", "prompts.jsonl"} <= names
    subprocess.run(["sh", "-n", tmp_path / "start" / "train.sh"], check=True)
    row = json.loads((tmp_path / "start" / "prompts.jsonl").read_text().splitlines()[0])
    config = load_router_config(tmp_path / "start" / "run.toml")
    with running(config, tmp_path / "state", samples=2) as server:
        for text in (f"It is {row['answer']}", "I do not know"):
            assert server.score(row["prompt"], text, labels=row["answer"])["scores"] is not None
        assert server.num_learned == 1
    if trainer == "verl":
        monkeypatch.chdir(tmp_path / "start")
        runpy.run_path("prepare.py")
        table = pandas.read_parquet("train.parquet")
        assert set(table) == {"data_source", "prompt", "reward_model", "extra_info"}
        assert len(table) + len(pandas.read_parquet("val.parquet")) == 288

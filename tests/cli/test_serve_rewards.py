"""`laser serve-rewards`: what it refuses before it listens, and how it stops."""

import os
import signal
import sys
import threading
import time

import pytest

from laser.cli import main as cli
from laser.integrations.server.command import Limits, serve_rewards
from laser_client import Client, RewardServerError
from processes import FORKS
from reward_server_kills import free_port

SLOW = """
import time

def slow(prompts, responses):
    time.sleep(1.0)
    return [float(len(text)) for text in responses]
"""
RUN = """
context = {{ source = "none" }}
rewards.models = [{{ type = "function", name = "slow", function = "{folder}/scores.py:slow" }}]
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "scores.py").write_text(SLOW)
    (tmp_path / "run.toml").write_text(RUN.format(folder=tmp_path))
    return tmp_path / "run.toml"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "other machines reach 0.0.0.0; give a token"),
        (["--host", "nowhere.invalid", "--token-env", "REWARDS_TOKEN"], "cannot listen on nowhere.invalid"),
        (["--token-env", "UNSET"], "the environment variable UNSET holds no token"),
        (["--set", "context.source=policy"], "a router has none"),
        (["--set", "rewards.max_failures=0"], "a server must not"),
        (["--set", "selector.type=ensemble"], "a router chooses one"),
        (["--state", "{folder}"], "holds other files"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(config, tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.setenv("REWARDS_TOKEN", "a-token-of-24-characters")
    state = [] if "--state" in options else ["--state", str(tmp_path / "state")]
    words = [word.format(folder=tmp_path) for word in options]
    monkeypatch.setattr(sys, "argv", ["laser", "serve-rewards", str(config), *state, *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    error = " ".join(capsys.readouterr().err.split())
    assert (stopped.value.code, said in error) == (2, True), error
    assert "a-token-of-24-characters" not in error


def test_a_port_in_use_is_a_sentence(config, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Exception, match="choose another --port"):
        serve_rewards(config, port=taken.getsockname()[1], state=tmp_path / "state")


@pytest.mark.slow
def test_a_terminated_server_answers_what_is_under_way_and_saves_its_state(config, tmp_path):
    port = free_port()
    process = FORKS.Process(target=_serve, args=(config, port, tmp_path / "state"))
    process.start()
    client = Client(f"http://127.0.0.1:{port}", retry_seconds=60)
    scored = client.score(["a"], ["1"], labels=["1"])
    thread = threading.Thread(target=lambda: scored.extend(client.score(["a"], ["22"], labels=["1"])))
    thread.start()
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    thread.join()
    process.join()
    assert process.exitcode == 0
    assert [one.score for one in scored] == [1.0, 2.0]
    assert (tmp_path / "state" / "snapshot-000001" / "groups.json").is_file()
    with pytest.raises(RewardServerError, match="cannot be reached"):
        Client(f"http://127.0.0.1:{port}", retry_seconds=0).score(["a"], ["1"])


def _serve(config, port, state):
    serve_rewards(config, port=port, state=state, limits=Limits(samples=4))

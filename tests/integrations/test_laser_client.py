"""The client for trainers with separate environments, against real servers."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from laser_client import Client, RewardServerError, openrlhf, slime, swift
from reward_servers import DIRECT, make_config, running
from servers import serving

SOURCE = Path(__file__).parents[2] / "clients" / "laser-client" / "src"
RECORDED = [json.loads(line) for line in Path(__file__).with_name("openrlhf_requests.jsonl").read_text().splitlines()]


@pytest.fixture
def server(tmp_path, monkeypatch):
    with running(make_config(tmp_path, "length", "digits"), tmp_path / "state", samples=2) as server:
        monkeypatch.setenv("LASER_REWARDS_URL", server.url)
        openrlhf._client.cache_clear()
        slime._client.cache_clear()
        yield server


def test_it_needs_the_standard_library_alone():
    modules = "laser_client, laser_client.openrlhf, laser_client.slime, laser_client.swift"
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import {modules}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_another_version_of_verl_is_a_sentence(tmp_path):
    """The check comes before verl's modules are imported, so its metadata alone stand for another version here."""
    (tmp_path / "verl-0.8.0.dist-info").mkdir()
    (tmp_path / "verl-0.8.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: verl\nVersion: 0.8.0\n")
    code = f"import sys; sys.path[:0] = {[str(SOURCE), str(tmp_path)]!r}; import laser_client.verl"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    sentence = "laser-client was tested with verl 0.9, and this is 0.8.0; install verl==0.9.*, or set LASER_UNTESTED"
    assert f"UserWarning: {sentence}" in done.stderr
    assert f"ImportError: {sentence}" in done.stderr


def test_scores_learning_and_feedback(server):
    client = Client()
    scored = client.score(["a", "a"], ["1", "22"], labels=["22", "22"], step=4, groups=["u1", "u1"], learn="later")
    assert [one.score for one in scored] == [DIRECT[scored[0].reward_model](text) for text in ("1", "22")]
    assert [one.probability for one in scored] == [0.5, 0.5]
    assert client.learn(groups=["u1"])["bandit/learned"] == 1.0
    client.score(["b"], ["1"], step=5)
    client.feedback(0.5, prompt="b", step=5)
    assert client.score([], []) == []


def test_the_state_comes_back(server):
    client = Client()
    client.score(["a", "a"], ["1", "22"], labels=["22", "22"])
    state, before = client.read_state(), server.state()
    client.score(["b", "b"], ["1", "22"], labels=["22", "22"])
    client.write_state(state)
    assert json.dumps(server.state()["book"]) == json.dumps(before["book"])


def test_a_request_without_an_answer_is_sent_again_as_the_same_sample():
    def answer(path, payload, number):
        if number == 0:
            return "hang up"
        if number == 1:
            return 503
        return {"scores": [1.0], "filled": [1.0], "arms": ["a"], "probabilities": [1.0]}

    with serving(answer) as fake:
        (scored,) = Client(fake.url).score(["a"], ["1"])
    assert scored.filled == 1.0
    assert len({json.dumps(payload) for _, payload in fake.asked}) == 1
    assert len(fake.asked) == 3


def test_a_sample_survives_a_restart_of_the_server(tmp_path):
    config = make_config(tmp_path, "length", "digits")
    with running(config, tmp_path / "state", samples=2) as server:
        client = Client(server.url)
        client.score(["a"], ["1"], labels=["22"])
    late = []
    thread = threading.Thread(target=lambda: late.extend(client.score(["a"], ["22"], labels=["22"])))
    thread.start()
    time.sleep(0.3)
    with running(config, tmp_path / "state", samples=2, port=int(server.url.rpartition(":")[2])) as server:
        thread.join()
        assert late[0].score == DIRECT[late[0].reward_model]("22")
        assert server.num_learned == 1


def test_a_refusal_is_the_sentence_of_the_server(server):
    with pytest.raises(RewardServerError, match=r"status 400: prompts\[0\] is empty"):
        Client().score([""], ["1"])
    with pytest.raises(RewardServerError, match="cannot be reached"):
        Client("http://127.0.0.1:1", retry_seconds=0.1).score(["a"], ["1"])
    with pytest.raises(RewardServerError, match="is not an address"):
        Client("127.0.0.1:8100")


def test_the_token_travels_with_each_request(tmp_path, monkeypatch):
    token = "a-token-of-24-characters"
    with running(make_config(tmp_path, "length"), tmp_path / "state", token=token) as server:
        monkeypatch.setenv("LASER_REWARDS_TOKEN", token)
        assert Client(server.url).score(["a"], ["123"])[0].score == 3.0
        monkeypatch.delenv("LASER_REWARDS_TOKEN")
        with pytest.raises(RewardServerError, match="status 401"):
            Client(server.url).score(["a"], ["123"])


def test_openrlhf_gets_numbers_from_the_file_that_it_imports(server):
    import importlib.util

    command = [sys.executable, "-m", "laser_client.openrlhf"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    spec = importlib.util.spec_from_file_location("reward_func", done.stdout.strip())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for recorded in (RECORDED[0], RECORDED[2]):
        body = json.loads(recorded["body"])
        reply = module.reward_func(body["query"], body["prompts"], body["labels"])
        name = ["length", "digits"][reply["extra_logs"]["laser_arm"]]
        assert reply["rewards"] == reply["scores"] == DIRECT[name](recorded["read"][1])
        assert all(isinstance(value, int | float) for value in reply["extra_logs"].values())


def test_slime_gets_a_reward_a_sample_or_a_list(server):
    def sample(number, group, text):
        return SimpleNamespace(
            prompt=f"prompt {group}",
            response=text,
            label="22",
            metadata={},
            group_index=group,
            session_id=f"{group}-{number}",
        )

    group = [sample(number, 0, text) for number, text in enumerate(("1", "22"))]
    assert asyncio.run(slime.reward(None, group)) in ([1.0, 2.0], [1.0, 2.0])
    assert server.num_learned == 1
    assert asyncio.run(slime.reward(None, sample(0, None, "four"))) in (4.0, 0.0)  # an evaluation
    assert server.num_learned == 1
    assert asyncio.run(slime.reward(None, sample(0, 1, "four"))) in (4.0, 0.0)


def test_swift_gets_a_list_from_its_columns(server):
    messages = [
        [{"role": "user", "content": "2 + 2 = ?"}, {"role": "assistant", "content": text}] for text in ("22", "no")
    ]
    rewards = swift.LaserORM()(
        ["22", "no"],
        messages=messages,
        solution=["22", "22"],
        trainer_state=SimpleNamespace(global_step=3),
        images=[object(), object()],
    )
    assert rewards in ([2.0, 2.0], [2.0, 0.0])
    (group,) = server.ledger.book.groups
    assert (group.prompt.text, group.prompt.answer, group.step) == ("2 + 2 = ?", "22", 3)

"""Several servers as one: who gets a request, and what happens to those that die, hang or refuse."""

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from laser.core.errors import ServerError
from laser.rewards.http import HttpRM
from laser.serving.cache import CachedEndpoint
from laser.serving.endpoint import Endpoint, RefusedError
from laser.serving.pace import Pace
from servers import serving
from tiny import make_prompt

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*the other servers take its requests")]
PAYLOADS = [{"q": number} for number in range(24)]
RIGHT = [{"q": number, "squared": number**2} for number in range(24)]


def squared(path, payload, number):
    time.sleep(0.01)
    return {**payload, "squared": payload["q"] ** 2}


def test_requests_go_to_the_least_loaded_server_and_every_limit_is_one_servers():
    def slow(path, payload, number):
        time.sleep(0.2)
        return squared(path, payload, number)

    with serving(squared) as quick, serving(slow) as sluggish:
        assert Endpoint(quick.url, sluggish.url, concurrency=3).post_all("/x", PAYLOADS) == RIGHT
        assert 0 < len(sluggish.asked) < len(quick.asked)
        assert 1 < quick.most_busy <= 3
        assert 1 < sluggish.most_busy <= 3
    with serving(squared) as one, serving(squared) as other:
        endpoint = Endpoint(one.url, other.url, pace=lambda: Pace(requests_per_minute=120))
        begun = time.monotonic()
        endpoint.post_all("/x", PAYLOADS[:4])
        assert 0.5 <= time.monotonic() - begun < 1.5  # 1.5 s is what a single server takes at least
        assert len(one.asked) > 0 < len(other.asked)


def started(port=0):
    """The example's reward server in another process, which can be killed."""
    script = Path(__file__).parents[2] / "examples" / "reward_server.py"
    process = subprocess.Popen([sys.executable, script, str(port)], stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().split()[-1]


def test_a_process_killed_in_the_middle_of_a_batch_loses_nothing_and_its_successor_takes_part():
    prompt = [{"role": "user", "content": "?"}]
    payloads = [{"prompts": [prompt], "responses": ["word " * number]} for number in range(1, 200)]
    right = [{"scores": [-abs(number - 20)]} for number in range(1, 200)]
    (victim, url), (other, other_url) = started(), started()
    killed = threading.Event()

    def kill(index, reply):
        if index == 40:
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            killed.set()

    endpoint = Endpoint(url, other_url, concurrency=2, retries=0)
    try:
        outcomes = endpoint.post_each("", payloads, max_failures=1, on_reply=kill)
        assert killed.is_set()
        assert [outcome.reply for outcome in outcomes] == right
        victim, _ = started(int(url.rpartition(":")[2]))
        deadline = time.monotonic() + 10
        first = endpoint.each()[0]
        while not first.is_in and time.monotonic() < deadline:
            time.sleep(0.05)
        assert endpoint.post_all("", payloads) == right
        other.kill()
        other.wait()
        assert endpoint.post_all("", payloads) == right  # by the successor alone
    finally:
        victim.kill()
        other.kill()
        victim.wait()
        other.wait()


def test_a_server_that_hangs_costs_one_timeout_and_not_one_a_request():
    release = threading.Event()
    with serving(lambda *_: release.wait(20) and {}) as hung, serving(squared) as other:
        endpoint = Endpoint(hung.url, other.url, timeout=1.0, retries=0, concurrency=2)
        begun = time.monotonic()
        for _ in range(4):
            assert endpoint.post_all("/x", PAYLOADS) == RIGHT
        assert time.monotonic() - begun < 8  # it is left out for ten
        assert len(hung.asked) <= 2
        release.set()


@pytest.mark.parametrize("failure", ["hang up", 401, 403, 404, 429, 503, b"<html>", (302, {}, {"Location": "/y"})])
def test_a_server_that_fails_is_left_out_and_tried_again(failure):
    healed = threading.Event()

    def answer(path, payload, number):
        return squared(path, payload, number) if healed.is_set() else failure

    with serving(answer) as failing, serving(squared) as other:
        endpoint = Endpoint(failing.url, other.url, retries=0, concurrency=2)
        assert endpoint.post_all("/x", PAYLOADS) == RIGHT
        assert 1 <= len(failing.asked) < 8
        healed.set()
        while not endpoint.is_in:
            time.sleep(0.05)
        before = Counter(payload["q"] for _, payload in failing.asked)
        assert endpoint.post_all("/x", PAYLOADS) == RIGHT
        assert len(failing.asked) > before.total() + 3


def test_the_user_hears_once_of_a_server_that_is_left_out():
    with serving(lambda *_: "hang up") as failing, serving(squared) as other:
        endpoint = Endpoint(failing.url, other.url, retries=0)
        with pytest.warns(RuntimeWarning, match="the other servers take its requests") as caught:
            assert endpoint.post_all("/x", PAYLOADS) == RIGHT
        (said,) = [str(one.message) for one in caught]
        assert said.startswith(f"{failing.url}/x cannot be reached, tried once")


def test_without_any_server_there_is_a_sentence_that_names_them_all():
    with serving(squared) as one, serving(squared) as other:
        endpoint = Endpoint(one.url, other.url, retries=1)
    with pytest.raises(ServerError, match=r"none of the 2 servers answers: .*; start them") as caught:
        endpoint.post("/x", {"q": 1})
    assert f"{one.url}/x cannot be reached" in str(caught.value)
    assert f"{other.url}/x cannot be reached" in str(caught.value)


def test_a_request_that_every_server_would_refuse_is_sent_once():
    with serving(lambda *_: 400) as one, serving(lambda *_: 400) as other:
        endpoint = Endpoint(one.url, other.url)
        with pytest.raises(RefusedError, match="status 400"):
            endpoint.post("/x", {})
        assert len(one.asked) + len(other.asked) == 1
        assert endpoint.is_in


def test_a_refused_key_ends_a_judges_round_only_if_all_refuse_it():
    with serving(lambda *_: 401) as one, serving(lambda *_: 401) as other:
        (outcome,) = Endpoint(one.url, other.url).post_each("/x", [{}], max_failures=9)
        assert outcome.ends
        assert len(one.asked) == len(other.asked) == 1


def test_the_key_goes_to_the_named_servers_alone(monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-secret")
    with serving(lambda *_: {}) as thief:
        away = (302, {}, {"Location": f"{thief.url}/steal"})
        with serving(lambda *_: away) as one, serving(lambda *_: (403, b"no: sk-secret", {})) as other:
            with pytest.raises(ServerError) as caught:
                Endpoint(one.url, other.url, api_key_env="A_KEY").post("/x", {})
            assert {server.headers[0]["Authorization"] for server in (one, other)} == {"Bearer sk-secret"}
        assert thief.asked == []
    assert "sk-secret" not in str(caught.value)


def test_a_kept_reply_is_found_whichever_server_gave_it(tmp_path):
    file = tmp_path / "replies.sqlite"

    def replies(*urls):
        cached = CachedEndpoint(Endpoint(*urls), file)
        return [outcome.reply for outcome in cached.post_each("/x", PAYLOADS, max_failures=1)]

    with serving(squared) as one, serving(squared) as other:
        assert replies(one.url, other.url) == RIGHT
        assert len(one.asked) > 0 < len(other.asked)
        assert len(one.asked) + len(other.asked) == 24
        assert replies(one.url, other.url) == replies(one.url) == RIGHT
        assert len(one.asked) + len(other.asked) == 24


def test_scores_of_a_fleet_are_those_of_a_server(tmp_path):
    prompts = [make_prompt(f"{number}?", id=str(number)) for number in range(8)]
    responses = [[f"{'a' * (number + more)}" for more in range(5)] for number in range(8)]
    dead = threading.Event()

    def length(path, payload, number):
        time.sleep(0.01)
        return {"scores": [len(text) for text in payload["responses"]]}

    def dies(path, payload, number):
        if number >= 4:
            dead.set()
        return "hang up" if dead.is_set() else length(path, payload, number)

    with serving(dies) as victim, serving(length) as other:
        alone = HttpRM(Endpoint(other.url), max_batch=1).score(prompts, responses)
        fleet = HttpRM(Endpoint(victim.url, other.url, concurrency=2), max_batch=1).score(prompts, responses)
    assert dead.is_set()
    assert [row.tolist() for row in fleet] == [row.tolist() for row in alone]


def test_a_reply_that_breaks_the_contract_names_the_servers():
    with serving(lambda *_: {"scores": []}) as one, serving(lambda *_: {"scores": []}) as other:
        rm = HttpRM(Endpoint(one.url, other.url))
        with pytest.raises(Exception, match=f"one of {one.url}, {other.url} gave 0 scores for 1 responses"):
            rm.score([make_prompt("?")], [["a"]])

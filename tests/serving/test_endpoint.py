"""The HTTP client against a real server that misbehaves: retries, bounds, secrets, and the cache of replies."""

import socket
import time

import pytest

from laser.core.errors import ServerError
from laser.serving.cache import CachedEndpoint
from laser.serving.endpoint import Endpoint
from servers import serving


def test_replies_come_in_order_and_a_bounded_number_at_a_time():
    def answer(path, payload, number):
        time.sleep(0.01 * (payload["index"] % 3))
        return {"index": payload["index"]}

    with serving(answer) as server:
        replies = Endpoint(server.url, concurrency=3).post_all("/x", [{"index": index} for index in range(20)])
        assert [reply["index"] for reply in replies] == list(range(20))
        assert 1 < server.most_busy <= 3


@pytest.mark.parametrize("failure", [429, 500, 502, 503, 504, "hang up"])
def test_a_passing_failure_is_tried_again(failure):
    with serving(lambda path, payload, number: failure if number < 2 else {"fine": True}) as server:
        assert Endpoint(server.url, retries=3).post("/x", {}) == {"fine": True}
        assert len(server.asked) == 3


def test_retry_after_is_obeyed():
    first = (429, {}, {"Retry-After": "1"})
    with serving(lambda path, payload, number: first if number == 0 else {}) as server:
        begun = time.monotonic()
        Endpoint(server.url).post("/x", {})
        assert time.monotonic() - begun >= 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (500, "refused with status 500: status 500"),
        (400, "refused with status 400: status 400"),
        (b"<html>", "not JSON: '<html>'"),
        (b"", "not JSON"),
        ("hang up", "cannot be reached after 2 tries"),
    ],
)
def test_a_lasting_failure_is_a_sentence(given, words):
    with serving(lambda path, payload, number: given) as server, pytest.raises(ServerError, match=words):
        Endpoint(server.url, retries=1).post("/x", {})


def test_a_slow_server_and_no_server():
    with (
        serving(lambda path, payload, number: time.sleep(1)) as server,
        pytest.raises(ServerError, match=r"2 t(imes|ries)"),
    ):
        Endpoint(server.url, timeout=0.1, retries=1).post("/x", {})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ServerError, match="is the server running"):
        Endpoint(url, retries=0).post("/x", {})
    with pytest.raises(ServerError, match="no address"):
        Endpoint("localhost:8000")


def test_the_first_failure_ends_a_round():
    with serving(lambda path, payload, number: 400) as server:
        with pytest.raises(ServerError):
            Endpoint(server.url, concurrency=1).post_all("/x", [{}] * 50)
        assert len(server.asked) < 50


def test_the_key_travels_and_is_never_told(monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-secret")
    with serving(lambda path, payload, number: (403, b"no: sk-secret", {})) as server:
        with pytest.raises(ServerError) as caught:
            Endpoint(server.url, api_key_env="A_KEY").post("/x", {})
        assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(caught.value)
    assert "***" in str(caught.value)
    monkeypatch.delenv("A_KEY")
    with pytest.raises(ServerError, match="A_KEY is not set"):
        Endpoint("http://127.0.0.1:1", api_key_env="A_KEY")


@pytest.mark.parametrize("key", [None, "sk-right"])
def test_credentials_of_other_programs_are_not_sent(monkeypatch, tmp_path, key):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login bob password hunter2\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("A_KEY", key or "")
    with serving(lambda path, payload, number: {}) as server:
        Endpoint(server.url, api_key_env="A_KEY" if key else None).post("/x", {})
        assert server.headers[0].get("Authorization") == (f"Bearer {key}" if key else None)


def test_a_cache_whose_disk_is_full_is_gone_on_without(tmp_path):
    with serving(lambda path, payload, number: {"long": "x" * 5000}) as server:
        cached = CachedEndpoint(Endpoint(server.url), tmp_path / "replies.sqlite")
        cached._database.execute("PRAGMA max_page_count = 4")
        with pytest.warns(RuntimeWarning, match="database or disk is full.*going on without it"):
            found = replies(cached, [{"q": number} for number in range(9)])
        assert found == [{"long": "x" * 5000}] * 9
        assert replies(cached, [{"q": 0}]) == found[:1]


def replies(cached, payloads):
    return [outcome.reply for outcome in cached.post_each("/x", payloads, patience=1)]


def test_the_cache_asks_nothing_twice_and_outlives_the_process(tmp_path):
    with serving(lambda path, payload, number: {"number": number}) as server:
        payloads = [{"q": "a"}, {"q": "b"}, {"q": "a"}]
        file = tmp_path / "c" / "replies.sqlite"
        first, again = (replies(CachedEndpoint(Endpoint(server.url), file), payloads) for _ in range(2))
        assert first == again
        assert first[0] == first[2] != first[1]
        assert len(server.asked) == 2
        replies(CachedEndpoint(Endpoint(server.url), None), payloads)
        assert len(server.asked) == 4

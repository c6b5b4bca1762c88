"""The HTTP client against a real server that misbehaves: retries, bounds, secrets, limits, and proxies."""

import socket
import time

import pytest

from laser.core.errors import ServerError
from laser.serving.endpoint import Endpoint
from laser.serving.pace import Pace
from laser.serving.transport import proxy_of
from servers import serving


@pytest.mark.slow
def test_replies_come_in_order_and_a_bounded_number_at_a_time():
    def answer(path, payload, number):
        time.sleep(0.01 * (payload["index"] % 3))
        return {"index": payload["index"]}

    with serving(answer) as server:
        replies = Endpoint(server.url, concurrency=3).post_all("/x", [{"index": index} for index in range(20)])
        assert [reply["index"] for reply in replies] == list(range(20))
        assert 1 < server.most_busy <= 3


@pytest.mark.slow
@pytest.mark.parametrize("failure", [429, 500, 502, 503, 504, "hang up"])
def test_a_passing_failure_is_tried_again(failure):
    with serving(lambda path, payload, number: failure if number < 2 else {"fine": True}) as server:
        assert Endpoint(server.url, retries=3).post("/x", {}) == {"fine": True}
        assert len(server.asked) == 3


@pytest.mark.slow
def test_retry_after_is_obeyed():
    first = (429, {}, {"Retry-After": "1"})
    with serving(lambda path, payload, number: first if number == 0 else {}) as server:
        begun = time.monotonic()
        Endpoint(server.url).post("/x", {})
        assert time.monotonic() - begun >= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (500, "refused with status 500: status 500"),
        (400, "refused with status 400: status 400"),
        (b"<html>", "not JSON: '<html>'"),
        (b"", "not JSON"),
        ("hang up", "cannot be reached, tried 2 times"),
    ],
)
def test_a_lasting_failure_is_a_sentence(given, words):
    with serving(lambda path, payload, number: given) as server, pytest.raises(ServerError, match=words):
        Endpoint(server.url, retries=1).post("/x", {})


@pytest.mark.slow
def test_a_slow_server_and_no_server():
    with (
        serving(lambda path, payload, number: time.sleep(1)) as server,
        pytest.raises(ServerError, match="2 times"),
    ):
        Endpoint(server.url, timeout=0.1, retries=1).post("/x", {})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ServerError, match="check that the server runs"):
        Endpoint(url, retries=0).post("/x", {})
    with pytest.raises(ServerError, match="not the address"):
        Endpoint("localhost:8000")


@pytest.mark.slow
def test_the_first_failure_ends_a_round():
    with serving(lambda path, payload, number: 400) as server:
        with pytest.raises(ServerError):
            Endpoint(server.url, concurrency=1).post_all("/x", [{}] * 50)
        assert len(server.asked) < 50


@pytest.mark.slow
def test_the_key_is_sent_and_never_shown(monkeypatch):
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


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "sk-right"])
def test_credentials_of_other_programs_are_not_sent(monkeypatch, tmp_path, key):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login bob password hunter2\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("A_KEY", key or "")
    with serving(lambda path, payload, number: {}) as server:
        Endpoint(server.url, api_key_env="A_KEY" if key else None).post("/x", {})
        assert server.headers[0].get("Authorization") == (f"Bearer {key}" if key else None)


@pytest.mark.slow
def test_a_limit_of_requests_per_minute_spaces_them_and_tokens_add_to_it():
    with serving(lambda path, payload, number: {"usage": {"total_tokens": 30}}) as server:
        endpoint = Endpoint(server.url, pace=lambda: Pace(requests_per_minute=600))
        begun = time.monotonic()
        endpoint.post_all("/x", [{}] * 6)
        assert time.monotonic() - begun >= 0.5
        endpoint = Endpoint(server.url, pace=lambda: Pace(tokens_per_minute=6000))
        begun = time.monotonic()
        for _ in range(3):
            endpoint.post("/x", {})
        assert 0.6 <= time.monotonic() - begun < 5


@pytest.fixture
def proxy(monkeypatch):
    """A proxy in the environment that refuses all that comes."""
    with serving(lambda path, payload, number: 418) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, server.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_this_machine_is_reached_without_a_proxy(proxy, host):
    with serving(lambda path, payload, number: {"fine": True}) as server:
        assert Endpoint(server.url.replace("127.0.0.1", host)).post("/x", {}) == {"fine": True}
    assert proxy.asked == []


@pytest.mark.slow
def test_other_machines_are_reached_through_the_proxy_unless_it_is_excepted(proxy, monkeypatch):
    with pytest.raises(ServerError, match="status 418"):
        Endpoint("http://judge.example:8000", retries=0).post("/x", {})
    assert proxy.asked[0][0] == "http://judge.example:8000/x"
    assert proxy_of("http://10.1.2.3:8000") is not None
    for url in (
        "http://[::1]:8000",
        "http://[::ffff:127.0.0.1]",
        "http://localhost.:80",
        "http://127.8.9.1",
        "http://0.0.0.0:1",
    ):
        assert proxy_of(url) is None
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,.example, fd00::/8")
    for url in ("http://10.1.2.3:8000", "http://judge.example", "http://[fd00::1]"):
        assert proxy_of(url) is None
    assert proxy_of("http://11.1.2.3") is not None

"""Replies of servers that are broken, endless, late, or made to steal: a sentence, bounded memory and time, no key."""

import gzip
import json
import math
import tempfile
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counted import count, times
from laser.config import parse_config
from laser.core.errors import LaserError, RewardModelError, ServerError
from laser.policy.policy import Policy
from laser.policy.vllm_generation import VllmGenerator
from laser.rewards.http import HttpRM
from laser.rewards.judge import JudgeRM
from laser.rewards.loglik import ResponseEncoder
from laser.rewards.served_loglik import ServedLogLikelihoodRM
from laser.serving import transport
from laser.serving.cache import CachedEndpoint
from laser.serving.endpoint import Endpoint
from laser.serving.secrets import Secret
from laser.wiring import build_generator
from runs import make_table
from servers import serving
from tiny import make_model, make_prompt, make_tokenizer

PROMPTS, RESPONSES = [make_prompt("2+2=")], [["4", "five"]]
LEAVES = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.just(10**400) | st.floats() | st.text(max_size=5)
    | st.sampled_from(["4", "sum", "\ud800", "-1e999", "²"])
)  # fmt: skip
KEYS = st.sampled_from(
    "choices message content logprobs top_logprobs token logprob usage total_tokens data probs scores rewards index "
    "token_ids token_logprobs finish_reason prompt_logprobs id".split()
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
CHOICE = st.fixed_dictionaries({}, optional={"message": st.fixed_dictionaries({"content": JSON}), "logprobs": JSON})
NEARLY = st.one_of(
    JSON,
    st.fixed_dictionaries({"scores": st.lists(LEAVES, min_size=2, max_size=2)}),
    st.fixed_dictionaries({"data": st.lists(st.fixed_dictionaries({"probs": JSON, "data": JSON}), min_size=1)}),
    st.fixed_dictionaries({"choices": st.lists(CHOICE, min_size=1, max_size=2)}, optional={"usage": JSON}),
    st.fixed_dictionaries({"choices": st.lists(st.fixed_dictionaries({"prompt_logprobs": JSON}), min_size=1)}),
)


class Canned(Endpoint):
    """An endpoint whose server always answers the same; no socket, so that hundreds of replies fit into a test."""

    def __init__(self, reply):
        super().__init__("http://127.0.0.1:1")
        self.body = json.dumps(reply).encode()

    def _send(self, method, path, payload, read, stop=None, *, timeout=None):
        (replica,) = self._fleet.replicas
        return read(replica, f"{self.url}{path}", self.body)


def reward_models(reply):
    for format in ("scores", "openrlhf", "vllm_classify", "vllm_pooling"):
        yield HttpRM(Canned(reply), format=format)
    yield JudgeRM(CachedEndpoint(Canned(reply), None), model="judge")
    yield ServedLogLikelihoodRM(Canned(reply), ResponseEncoder(make_tokenizer(), context_length=100), model="m")


@pytest.mark.slow
@settings(max_examples=times(100), deadline=None)
@given(NEARLY)
def test_no_reply_of_a_reward_server_is_more_than_scores_or_a_sentence(reply):
    for rm in reward_models(reply):
        count("replies of reward servers")
        try:
            scores = rm.score(PROMPTS, RESPONSES)
        except LaserError:
            continue
        assert [row.shape for row in scores] == [(2,)]
        assert scores[0].dtype == np.float64


@pytest.fixture(scope="module")
def policy():
    return Policy(make_model(scale=0.15), make_tokenizer(), lora_rank=2)


@pytest.mark.slow
@settings(max_examples=times(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reply=NEARLY, token=LEAVES, logp=LEAVES)
def test_no_reply_of_a_sampling_server_is_more_than_responses_or_a_sentence(policy, reply, token, logp):
    generator = VllmGenerator(policy, Canned(None), model="m", adapter_folder=None)
    choice = {"index": 0, "token_ids": [token], "logprobs": {"token_logprobs": [logp]}, "finish_reason": "stop"}
    for given_reply in (reply, {"choices": [choice]}):
        count("replies of sampling servers")
        try:
            responses = generator._responses(json.loads(json.dumps(given_reply)), 1, generator._endpoint)
        except LaserError:
            continue
        assert all(0 <= token < policy.num_tokens for response in responses for token in response.token_ids)
        logps = [logp for response in responses for logp in response.sampling_logps]
        assert all(isinstance(logp, float) and math.isfinite(logp) and logp <= 1e-3 for logp in logps)


@pytest.mark.parametrize("logp", [math.nan, -math.inf, math.inf, 3.0, "-1e999", "-1", None, True])
def test_an_invalid_log_prob_is_refused(policy, logp):
    generator = VllmGenerator(policy, Canned(None), model="m", adapter_folder=None)
    logps = {"token_logprobs": [-0.5, logp]}
    choice = {"index": 0, "token_ids": [5, 6], "logprobs": logps, "finish_reason": "stop"}
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:1 gave .* as the log-prob of a token.*vLLM"):
        generator._responses({"choices": [choice]}, 1, generator._endpoint)
    logps["token_logprobs"] = [1e-4, -5]
    assert generator._responses({"choices": [choice]}, 1, generator._endpoint)[0].sampling_logps == (1e-4, -5.0)


@pytest.mark.slow
def test_the_first_swap_creates_the_adapter_folder_and_closing_removes_it(policy, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(policy, "save_adapter", lambda folder: folder.mkdir(parents=True))
    config = parse_config(make_table(tmp_path, generation={"engine": "vllm"})).generation
    with serving(lambda path, payload, number: {"data": [{"id": "policy"}]}) as server:
        section = config.model_copy(update={"server": config.server.model_copy(update={"url": server.url})})
        generator = build_generator(section, policy)
        assert list(tmp_path.glob("laser-adapters-*")) == []
        generator._swap(generator._adapter())
        (folder,) = tmp_path.glob("laser-adapters-*")
        assert [one.name for one in folder.iterdir()] == [f"laser-{policy.adapter_digest()}"]
        del generator
    assert not folder.exists()


@pytest.mark.slow
def test_runs_on_one_server_leave_each_others_adapters_and_serve_again_what_is_gone(policy, tmp_path):
    held = ["policy"]

    def answer(path, payload, number):
        if path == "/v1/load_lora_adapter":
            held.append(payload["lora_name"])
        elif path == "/v1/unload_lora_adapter":
            held.remove(payload["lora_name"])
        return {"data": [{"id": name} for name in held]}

    def swap(generator, change):
        with torch.no_grad():
            policy.trainable_parameters()[0].add_(change)
        adapter = generator._adapter()
        generator._swap(adapter)
        return adapter.name

    with serving(answer) as server:
        one, other = (
            VllmGenerator(policy, Endpoint(server.url), model="policy", adapter_folder=tmp_path / name)
            for name in ("one", "other")
        )
        first, second = swap(one, 1.0), swap(other, 1.0)
        assert held == ["policy", first, second]
        third = swap(one, 1.0)
        assert held == ["policy", second, third]
        held.remove(third)
        assert swap(one, 0.0) == third
        assert held == ["policy", second, third]


def test_a_model_that_the_server_lacks_is_reported_with_the_field(policy):
    generator = VllmGenerator(policy, Canned({"data": [{"id": "llama"}]}), model="policy", adapter_folder=None)
    with pytest.raises(ServerError, match=r"no model 'policy'; it has llama; set generation\.server\.model"):
        generator._swap(generator._adapter())


@pytest.mark.slow
def test_a_reply_that_drips_ends_at_the_deadline(monkeypatch):
    def slowly(handler, given):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    with serving(lambda path, payload, number: {}) as server:
        monkeypatch.setattr(server._http.RequestHandlerClass, "send", slowly)
        begun = time.monotonic()
        with pytest.raises(ServerError, match=r"did not answer within 0\.3 s"):
            Endpoint(server.url, timeout=0.3, retries=0).post("/x", {})
        assert time.monotonic() - begun < 5


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [False, True])
def test_an_endless_reply_is_cut_off(monkeypatch, zipped):
    monkeypatch.setattr(transport, "_LARGEST", 2**20)
    body = b'"' + b"x" * 2**23 + b'"'
    answer = (200, gzip.compress(body), {"Content-Encoding": "gzip"}) if zipped else (200, body, {})
    with serving(lambda path, payload, number: answer) as server, pytest.raises(ServerError, match="more than 1 MiB"):
        Endpoint(server.url, retries=0).post("/x", {})


@pytest.mark.slow
@pytest.mark.parametrize("body", [b"[" * 100_000, b"1" * 10_000, b'"\xff\xfe"', b"\x00", b'{"scores": [1'])
def test_bodies_that_break_parsers_are_a_sentence(body):
    with serving(lambda path, payload, number: body) as server, pytest.raises(ServerError, match="not JSON"):
        Endpoint(server.url, retries=0).post("/x", {})


@pytest.mark.slow
def test_redirects_are_not_followed(monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-secret")
    with serving(lambda path, payload, number: {}) as thief:
        away = (302, {}, {"Location": f"{thief.url}/steal"})
        with (
            serving(lambda path, payload, number: away) as server,
            pytest.raises(ServerError, match="redirects to another address"),
        ):
            Endpoint(server.url, api_key_env="A_KEY").post("/x", {})
        assert thief.asked == []


@pytest.mark.slow
def test_a_key_that_a_reply_repeats_goes_no_further(monkeypatch, tmp_path):
    monkeypatch.setenv("A_KEY", "sk-secret")
    reply = {"choices": [{"message": {"content": "you said Bearer sk-secret"}}], "sk-secret": ["sk-secret", 7]}
    with serving(lambda path, payload, number: reply) as server:
        asked = CachedEndpoint(Endpoint(server.url, api_key_env="A_KEY"), tmp_path / "cache.sqlite")
        given = [outcome.reply for outcome in asked.post_each("/x", [{}], max_failures=1)]
    assert "sk-secret" not in json.dumps(given)
    assert given[0]["***"] == ["***", 7]
    assert b"sk-secret" not in (tmp_path / "cache.sqlite").read_bytes()


def test_numbers_that_look_like_a_key_stay_numbers():
    assert Secret("12").removed_from({"a": [12, 1.12, "12"]}) == {"a": [12, 1.12, "***"]}


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret@127.0.0.1:8000",
        "https://secret@host",
        "https://host/v1?key=secret",
        "https://host/#secret",
        "ftp://host",
        "http://",
        "http://host:99999999",
        "http://ho st",
        "http://host\x1b[2J",
    ],
)
def test_addresses_with_a_place_for_a_secret_are_refused_without_repeating_it(url):
    with pytest.raises(ServerError) as caught:
        Endpoint(url)
    assert "secret" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_path_with_a_query_is_refused():
    with pytest.raises(RewardModelError, match="has no query") as caught:
        HttpRM(Endpoint("http://127.0.0.1:1"), path="/score?key=secret")
    assert "secret" not in str(caught.value)


def test_integers_beyond_floats_count_as_infinite():
    rm = HttpRM(Canned({"scores": [10**400, -(10**400)]}))
    assert rm.score(PROMPTS, RESPONSES)[0].tolist() == [math.inf, -math.inf]

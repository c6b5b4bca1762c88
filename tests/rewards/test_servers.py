"""Reward models behind a real HTTP server: contracts, ratings, and what nonsense gets."""

import contextlib
import math
import sqlite3

import numpy as np
import pytest

from laser.config import parse_config
from laser.core.errors import RewardModelError
from laser.rewards.chat import fill
from laser.rewards.http import HttpRM
from laser.rewards.judge import JudgeRM
from laser.rewards.loglik import ResponseEncoder
from laser.rewards.pool import Arm, QuarantinedError, RewardPool
from laser.rewards.quarantine import Quarantine
from laser.rewards.replies import expected_rating
from laser.rewards.served_loglik import ServedLogLikelihoodRM
from laser.serving.cache import CachedEndpoint
from laser.serving.endpoint import Endpoint
from laser.wiring import build_pool
from servers import rate, serving
from tiny import make_prompt, make_tokenizer, save_model

PROMPTS = [make_prompt("2+2=", id="a", answer="4"), make_prompt("colour?", id="b"), make_prompt("c", id="c")]
RESPONSES = [["4", "five"], ["blue"], []]


def length(path, payload, number):
    return {"scores": [len(text) for text in payload["responses"]]}


def openrlhf(path, payload, number):
    return {"rewards": [len(query) for query in payload["query"]]}


def classify(path, payload, number):
    assert path == "/classify"
    assert not payload["use_activation"]
    return {"data": [{"index": 0, "probs": [len(payload["messages"][-1]["content"])]}]}


def pooling(path, payload, number):
    return {"data": [{"data": [[0.0], [len(payload["messages"][-1]["content"])]]}]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "answer", "expected"),
    [
        ("scores", length, [[1, 4], [4], []]),
        ("openrlhf", openrlhf, [[5, 8], [11], []]),
        ("vllm_classify", classify, [[1, 4], [4], []]),
        ("vllm_pooling", pooling, [[1, 4], [4], []]),
    ],
)
@pytest.mark.parametrize("max_batch", [1, 2, 64])
def test_every_contract(format, answer, expected, max_batch):
    with serving(answer) as server:
        scores = HttpRM(Endpoint(server.url), format=format, max_batch=max_batch).score(PROMPTS, RESPONSES)
    assert [row.tolist() for row in scores] == expected


@pytest.mark.slow
def test_gold_answers_and_messages_are_sent():
    with serving(length) as server:
        HttpRM(Endpoint(server.url), path="/score", model="rm").score(PROMPTS, RESPONSES)
        (path, payload), *_ = server.asked
    assert path == "/score"
    assert payload["prompts"][0] == [{"role": "user", "content": "2+2="}]
    assert payload["model"] == "rm"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"scores": [1]}, "1 scores for 3"),
        ({"points": [1, 2, 3]}, "has no scores"),
        ([1, 2, 3], "has no scores"),
        ({"scores": None}, "has no scores"),
        ({"scores": ["good", 1, 2]}, "'good' as a score"),
        ({"scores": [True, 1, 2]}, "True as a score"),
    ],
)
def test_a_broken_contract_is_a_sentence(reply, words):
    with serving(lambda path, payload, number: reply) as server, pytest.raises(RewardModelError, match=words):
        HttpRM(Endpoint(server.url)).score(PROMPTS, RESPONSES)


@pytest.mark.slow
def test_null_is_no_opinion_and_nan_is_not_a_score():
    with serving(lambda path, payload, number: b'{"scores": [null, NaN, 3]}') as server:
        rm = HttpRM(Endpoint(server.url))
        first, second, _ = rm.score(PROMPTS, RESPONSES)
    assert np.isnan(first).all()
    assert second.tolist() == [3]
    assert (rm.counts.take().abstained, rm.counts.take().abstained) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "reply", "abstains"),
    [
        ("scores", b'{"scores": [null, null, null]}', True),
        ("openrlhf", b'{"rewards": [null, null, null]}', True),
        ("scores", b'{"scores": [null, null, NaN]}', False),
        ("scores", b'{"scores": [null, null, Infinity]}', False),
        ("scores", b'{"scores": [null, null, "null"]}', False),
        ("scores", b'{"scores": [null, null]}', False),
        ("vllm_classify", b'{"data": [{"probs": [null]}]}', False),
        ("vllm_pooling", b'{"data": [{"data": null}]}', False),
    ],
)
def test_a_server_without_an_opinion_abstains_and_everything_else_is_a_failure(format, reply, abstains):
    with serving(lambda path, payload, number: reply) as server:
        quarantine = Quarantine(1, max_failures=2)
        pool = RewardPool([Arm("http", lambda: HttpRM(Endpoint(server.url), format=format))], quarantine=quarantine)
        for _ in range(2):
            with contextlib.suppress(QuarantinedError):
                assert np.isnan(np.concatenate(pool.score(0, PROMPTS, RESPONSES))).all()
    assert bool(pool.available_K[0]) is abstains
    if abstains:
        used = pool.usage()["http"]
        assert (used["abstained"], used["unscored"], used["failures"]) == (6, 6, 0)
        assert "had no opinion on any of the 3 responses" in pool.take_warnings()[0]


def judge(server, **options):
    return JudgeRM(CachedEndpoint(Endpoint(server.url), None), model="judge", **options)


@pytest.mark.slow
def test_a_judge_is_read_by_its_probabilities_or_its_words():
    def answer(path, payload, number):
        text = payload["messages"][0]["content"]
        if "[Response]\n4\n" in text:
            top = [("4", 0.5), ("5", 0.3), ("x", 0.2)]
            content = [{"token": "4", "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in top]}]
            return {"choices": [{"message": {"content": "4"}, "logprobs": {"content": content}}]}
        return rate("Rating: 2.5 of 5") if "five" in text else rate("I refuse")

    with serving(answer) as server:
        rm = judge(server)
        scores = rm.score(PROMPTS, RESPONSES)
    assert np.allclose(scores[0], [(4 * 0.5 + 5 * 0.3) / 0.8, 2.5])
    assert np.isnan(scores[1]).all()
    assert (rm.counts.take().tokens, rm.counts.take().tokens) == (20, 0)


@pytest.mark.slow
@pytest.mark.parametrize("reply", [{}, {"choices": []}, {"choices": [{"text": "4"}]}, [], "4"])
def test_no_chat_completion_is_a_sentence(reply):
    with (
        serving(lambda path, payload, number: reply) as server,
        pytest.raises(RewardModelError, match="not a chat completion"),
    ):
        judge(server).score(PROMPTS, RESPONSES)


def sleepless(server, cache):
    return JudgeRM(CachedEndpoint(Endpoint(server.url, retries=0, concurrency=1), cache), model="judge")


@pytest.mark.slow
@pytest.mark.parametrize("failure", [500, "hang up", b"<html>", {"choices": []}])
def test_a_failed_request_has_no_score_and_is_sent_again_next_time(tmp_path, failure):
    texts = [f"response {row}" for row in range(9)]
    with serving(lambda path, payload, number: failure if number in (2, 5) else rate("4")) as server:
        pool = RewardPool([Arm("judge", lambda: sleepless(server, tmp_path / "c.sqlite"))])
        (scores,) = pool.score(0, PROMPTS[:1], [texts])
        assert np.flatnonzero(np.isnan(scores)).tolist() == [2, 5]
        assert (scores[[0, 1, 3, 4, 6, 7, 8]] == 4).all()
        used = pool.usage()["judge"]
        assert (used["responses"], used["unscored"], used["failures"], used["tokens"]) == (9, 2, 0, 70)
        (scores,) = pool.score(0, PROMPTS[:1], [texts])
        assert (scores == 4).all()
        assert len(server.asked) == 9 + 2
        assert pool.usage()["judge"]["tokens"] == 90  # what the cache knew is not billed again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (402, "10 of 50 requests to the judge failed: .* refused with status 402"),
        (401, "10 of 50 requests to the judge failed: .* refused with status 401"),
        (500, None),
    ],
)
def test_a_spent_quota_ends_it_and_a_rerun_asks_only_for_the_rest(tmp_path, failure, words):
    texts = [f"response {row}" for row in range(50)]
    limit = {"after": 40}
    with serving(lambda path, payload, number: failure if number >= limit["after"] else rate("4")) as server:
        first = sleepless(server, tmp_path / "c.sqlite")
        if words is None:  # each of so few failures may be one response's own
            assert np.isnan(first.score(PROMPTS[:1], [texts])[0]).sum() == 10
        else:
            with pytest.raises(RewardModelError, match=words):
                first.score(PROMPTS[:1], [texts])
        first.release()
        with sqlite3.connect(tmp_path / "c.sqlite") as database:
            assert database.execute("SELECT COUNT(*) FROM replies").fetchone() == (40,)
        limit["after"], before = 10**9, len(server.asked)
        (scores,) = sleepless(server, tmp_path / "c.sqlite").score(PROMPTS[:1], [texts])
        assert (scores == 4).all()
        assert len(server.asked) - before == 10


@pytest.mark.slow
def test_a_judge_that_keeps_failing_is_given_up():
    texts = [f"response {row}" for row in range(90)]
    with serving(lambda path, payload, number: 500 if number >= 40 else rate("4")) as server:
        with pytest.raises(RewardModelError, match=r"50 of 90 requests to the judge failed: .*status 500"):
            sleepless(server, None).score(PROMPTS[:1], [texts])
        assert 56 <= len(server.asked) < 90
    with (
        serving(lambda path, payload, number: 500) as server,
        pytest.raises(RewardModelError, match="2 of 2 requests to the judge failed"),
    ):
        sleepless(server, None).score(PROMPTS[:1], [["a", "b"]])


@pytest.mark.slow
def test_ratings_of_two_digits_are_read_from_the_text():
    """A tokenizer that splits digits gives "1" as the first token of "10"."""

    def answer(path, payload, number):
        content = [{"token": "1", "top_logprobs": [{"token": "1", "logprob": -0.01}]}]
        return {"choices": [{"message": {"content": "10"}, "logprobs": {"content": content}}]}

    with serving(answer) as server:
        assert judge(server, scale=(1, 10)).score(PROMPTS[:1], [["x"]])[0].tolist() == [10]
        assert "logprobs" not in server.asked[0][1]
        assert np.isnan(judge(server, scale=(0, 9)).score(PROMPTS[:1], [["x"]])[0]).all()  # 10 is off this scale
        assert server.asked[1][1]["logprobs"] is True


def test_expected_ratings_and_templates():
    assert math.isnan(expected_rating([{"token": "The", "logprob": -0.1}, {"token": "4", "logprob": -2}], (1, 5)))
    assert math.isnan(expected_rating([], (1, 5)))
    assert fill("{a}{b}", {"a": "{b}", "b": "x"}) == "{b}x"


@pytest.mark.slow
def test_a_rubric_and_scale_that_make_no_sense():
    with serving(length) as server:
        with pytest.raises(RewardModelError, match=r"no .response"):
            judge(server, rubric="Rate {prompt}")
        with pytest.raises(RewardModelError, match="scale"):
            judge(server, scale=(5, 1))


def served(server, **options):
    encoder = ResponseEncoder(make_tokenizer(), context_length=100)
    return ServedLogLikelihoodRM(Endpoint(server.url), encoder, model="m", **options)


@pytest.mark.slow
def test_served_log_likelihood_sums_the_response_tokens():
    def answer(path, payload, number):
        entries = [None, *({str(token): {"logprob": -float(token)}} for token in payload["prompt"][1:])]
        return {"choices": [{"prompt_logprobs": entries}]}

    encoder = ResponseEncoder(make_tokenizer(), context_length=100)
    _, ids = encoder.encode(PROMPTS, RESPONSES)
    with serving(answer) as server:
        total = served(server).score(PROMPTS, RESPONSES)
        mean = served(server, normalization="per_token").score(PROMPTS, RESPONSES)
    assert total[0].tolist() == [-sum(tokens) for tokens in ids[0]]
    assert np.allclose(mean[0], [-np.mean(tokens) for tokens in ids[0]])


@pytest.mark.slow
def test_a_text_that_fills_the_window_leaves_room_for_the_token_that_the_server_samples(tmp_path):
    window = 40

    def answer(path, payload, number):
        if len(payload["prompt"]) + payload["max_tokens"] > window:
            return 400
        return {"choices": [{"prompt_logprobs": [None, *({str(t): {"logprob": -1.0}} for t in payload["prompt"][1:])]}]}

    model = save_model(tmp_path / "m")
    with serving(answer) as server:
        section = {"type": "vllm_loglik", "name": "far", "model": "m", "tokenizer": str(model), "url": server.url}
        section |= {"max_context": window, "overflow": "cut_prompt"}
        table = {"policy": {"model": str(model)}, "data": {"type": "embedded"}, "rewards": {"models": [section]}}
        pool = build_pool(parse_config(table | {"selector": {"type": "fixed", "arm": "far"}}))
        for length in range(1, 40):
            (scores,) = pool.score(0, [make_prompt("a" * length)], [["yes"]])
            assert scores.tolist() == [-4.0], length  # three letters and the end of the turn


@pytest.mark.slow
def test_log_probs_of_other_tokens_are_refused():
    reply = {"choices": [{"prompt_logprobs": [None, {"1": {"logprob": -1}}, {"1": {"logprob": -1}}]}]}
    with (
        serving(lambda path, payload, number: reply) as server,
        pytest.raises(RewardModelError, match="same tokenizer"),
    ):
        served(server).score(PROMPTS, RESPONSES)

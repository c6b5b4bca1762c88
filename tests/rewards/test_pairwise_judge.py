"""The pairwise judge: verdicts out of replies, good and bad, of a real server."""

import math

import pytest

from laser.config.judge import load_judge
from laser.core.errors import RewardModelError
from laser.rewards.pairwise_judge import PairwiseJudge, Question, transcript
from laser.rewards.replies import expected_verdict, find_verdict
from laser.serving.cache import CachedEndpoint
from laser.serving.endpoint import Endpoint
from laser.wiring.judge import build_pairwise_judge
from servers import serving
from tiny import make_prompt


def token(text, **alternatives):
    return {"token": text, "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in alternatives.items()]}


def test_the_preference_is_read_off_the_token_of_the_verdict():
    """0.4 A, 0.2 B, 0.2 C and 0.2 of something else: (0.4 + 0.1) / 0.8."""
    said = find_verdict("A")
    assert expected_verdict([token("A", A=0.4, B=0.2, C=0.2, The=0.2)], said) == pytest.approx(0.5 / 0.8)
    assert math.isnan(expected_verdict([token("A", A=0.3, The=0.7)], said))
    assert math.isnan(expected_verdict([], said))
    thought = "A [[B]]"
    tokens = [token("A", A=1.0), token(" [["), token("B", A=0.25, B=0.75), token("]]")]
    assert expected_verdict(tokens, find_verdict(thought)) == pytest.approx(0.25)
    assert math.isnan(expected_verdict([token("A", A=1.0), token(" [[B]]x")], find_verdict(thought)))


def reply(text, tokens=None, **usage):
    choice = {"message": {"content": text}, **({"logprobs": {"content": tokens}} if tokens else {})}
    return {"choices": [choice], **({"usage": usage} if usage else {})}


def ask(answer, questions, path=None, **options):
    with serving(answer) as server:
        options = {"retries": 0, "concurrency": 2, **options}
        judge = PairwiseJudge(CachedEndpoint(Endpoint(server.url, **options), path), model="j")
        try:
            return judge.compare(questions), judge.bill, server.asked
        finally:
            judge.close()


def questions(num=1):
    return [Question(make_prompt(f"what is {i}?", id=str(i)), f"first {i}", f"second {i}") for i in range(num)]


def test_the_fields_of_the_requests_are_the_users(tmp_path):
    """`max_completion_tokens` replaces `max_tokens`, "none" sends no temperature, and extra fields arrive whole."""
    extra = "[extra_body]\nseed = 7\nchat_template_kwargs = {enable_thinking = false}\n"
    with serving(lambda *_: reply("B")) as server:
        for name, text in (
            ("plain", 'model = "j"\n'),
            (
                "own",
                f'model = "j"\nmax_completion_tokens = 99\ntemperature = "none"\nreasoning_effort = "low"\n{extra}',
            ),
        ):
            path = tmp_path / f"{name}.toml"
            path.write_text(f'url = "{server.url}"\n{text}')
            judge = build_pairwise_judge(load_judge(path), None)
            assert judge.compare(questions())[0].first == 0.0
            judge.close()
    (_, plain), (_, own) = server.asked
    assert (plain["temperature"], "max_tokens" in plain, "reasoning_effort" in plain) == (0, True, False)
    assert (own["max_completion_tokens"], own["reasoning_effort"], own["seed"]) == (99, "low", 7)
    assert own["chat_template_kwargs"] == {"enable_thinking": False}
    assert not {"max_tokens", "temperature"} & own.keys()


@pytest.mark.slow
def test_the_judge_sees_both_and_braces_stay():
    question = [Question(make_prompt("{first}"), "one {second}", "two")]
    verdicts, bill, asked = ask(lambda *_: reply("A", prompt_tokens=7, completion_tokens=1), question)
    assert (verdicts[0].first, verdicts[0].problem) == (1.0, None)
    path, payload = asked[0]
    assert path == "/v1/chat/completions"
    content = payload["messages"][0]["content"]
    assert "[Question]\n{first}\n" in content
    assert content.index("[Response A]\none {second}") < content.index("[Response B]\ntwo")
    assert payload["logprobs"] is True
    assert (bill.requests, bill.prompt_tokens, bill.completion_tokens, bill.unbilled) == (1, 7, 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (reply("no idea"), "nonsense"),
        (reply(None), "nonsense"),
        ({"choices": []}, "failed"),
        ({"choices": [{"message": "A"}]}, "failed"),
        ([1, 2], "failed"),
        (reply("A", [token("A"), 7]), "failed"),
        (reply("A", [{"token": "A", "top_logprobs": [{"token": "A", "logprob": "x"}]}]), "failed"),
        (b"<html>", "failed"),
        (402, "failed"),
        (429, "failed"),
        ("hang up", "failed"),
    ],
    ids=str,
)
def test_a_reply_without_a_verdict_has_no_number(answer, problem):
    verdicts, _, _ = ask(lambda *_: answer, questions())
    assert verdicts[0].problem == problem
    assert math.isnan(verdicts[0].first)


@pytest.mark.slow
def test_failures_spare_the_others_and_a_rerun_asks_only_for_them(tmp_path):
    def now_and_then(path, payload, number):
        return 500 if "what is 3" in str(payload) else reply("B")

    verdicts, _, _ = ask(now_and_then, questions(6), tmp_path / "replies.sqlite")
    assert [one.problem for one in verdicts] == [None] * 3 + ["failed"] + [None] * 2
    with serving(lambda *_: reply("B", prompt_tokens=5, completion_tokens=1)) as server:
        path = tmp_path / "again.sqlite"
        for expected in ((6, 0, 30), (6, 6, 0)):
            judge = PairwiseJudge(CachedEndpoint(Endpoint(server.url), path), model="j")
            assert [one.first for one in judge.compare(questions(6))] == [0.0] * 6
            assert (judge.bill.requests, judge.bill.cached, judge.bill.prompt_tokens) == expected
            judge.close()
        assert len(server.asked) == 6


@pytest.mark.slow
def test_an_invalid_completion_is_requested_again(tmp_path):
    with serving(lambda path, payload, number: {} if number == 0 else reply("A")) as server:
        for problem in ("failed", None):
            endpoint = CachedEndpoint(Endpoint(server.url), tmp_path / "replies.sqlite")
            judge = PairwiseJudge(endpoint, model="j")
            assert judge.compare(questions())[0].problem == problem
            judge.close()
        assert len(server.asked) == 2


@pytest.mark.slow
def test_requests_to_a_dead_server_end():
    verdicts, _, asked = ask(lambda *_: 402, questions(40))
    problems = [one.problem for one in verdicts]
    assert 16 <= len(asked) < 24
    assert problems.count("failed") == len(asked)
    assert problems.count("skipped") == 40 - len(asked)


@pytest.mark.slow
def test_the_same_question_twice_is_paid_once():
    verdicts, bill, asked = ask(lambda *_: reply("A", prompt_tokens=5, completion_tokens=1), questions() * 3)
    assert [one.first for one in verdicts] == [1.0] * 3
    assert len(asked) == 1
    assert (bill.requests, bill.cached, bill.prompt_tokens) == (3, 2, 5)


def test_a_template_needs_its_places():
    with pytest.raises(RewardModelError, match=r"no \{second\}"):
        PairwiseJudge(CachedEndpoint(Endpoint("http://x"), None), model="j", template="{prompt} {first}")


def test_several_messages_are_written_under_their_roles():
    assert transcript(({"role": "user", "content": "hi"},)) == "hi"
    turns = ({"role": "system", "content": "s"}, {"role": "user", "content": "hi"})
    assert transcript(turns) == "System: s\n\nUser: hi"
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "w"}}]}
    assert transcript((*turns, call)).endswith('Assistant: [{"function": {"name": "w"}}]')

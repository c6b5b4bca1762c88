"""Ratings and verdicts in what judges say: JSON, brackets, words, thoughts, and replies that cannot be read."""

import math
import re
import warnings

import numpy as np
import pytest

from laser.rewards.judge import JudgeRM
from laser.rewards.pairwise_judge import PairwiseJudge, Question
from laser.rewards.replies import find_rating, find_verdict, read_completion
from laser.serving.cache import CachedEndpoint
from laser.serving.endpoint import Endpoint
from servers import serving
from tiny import make_prompt

RATINGS = [  # on a scale from 1 to 5
    ("Rating: [[4]]. Example output: [[5]]", 4),
    ("Rating: 4\nExample output:\nRating: 5", 4),
    ("[[1]] if it is bad, [[5]] if it is good. Rating: [[4]]", 4),
    ('I rate it [[4]]. The format was "Rating: [[5]]".', 4),
    ("4", 4),
    ("Rating: **4**/5", 4),
    ("Rating (1-5): 4", 4),
    ("On a scale of 1 to 5: 4", 4),
    ("Score: 3.5/5", 3.5),
    ("17", None),
    ("", None),
    ("Rating: 2.5 of 5", 2.5),
    ("<think>I see 4 serious mistakes</think>\n1", 1),
    ("<think>maybe 3", None),
    ("thought 3</think>5", 5),
    ("<think>a<think>b</think>2</think>5", 5),
    ("<think>a</think>4<think>b</think>", None),
    ("<think>a</think>4<think>b", None),
    ("<thinking>3 things</thinking>Rating: 4", 4),
    ("<|channel|>analysis<|message|>3 flaws<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>", 4),
    ("<|channel|>analysis<|message|>3 flaws", None),
    ("analysisWe see 3 flaws.assistantfinal4", 4),
    ("[THINK]2[/THINK]4", 4),
    ("4 out of 5", 4),
    ("four", 4),
    ("Rating: four", 4),
    ("between 3 and 4", None),
    ("3-4", None),
    ("Rating: 3 -> 4", None),
    ("Rating: 3 → 4", None),
    ("3 or 4", None),
    ("Rating: 3-4", None),
    ("4/10", None),
    ("4 out of 10", None),
    ("Rating: 4 (out of 10)", None),
    ("Rating: 4 (out of 5)", 4),
    ("80%", None),
    ("[[4]]", 4),
    ("\\boxed{4}", 4),
    ("<rating>4</rating>", 4),
    ('{"rating": 4}', 4),
    ('```json\n{"reasoning": "3 flaws", "rating": "4/5"}\n```', 4),
    ('{"clarity": 3, "depth": 4}', None),
    ('{"clarity": 3, "overall_score": 4}', 4),
    ('{"politeness": 4}', 4),
    ('{"rating": null}', None),
    ('{"rating": true}', None),
    ("There are 3 reasons why it is good.", None),
    ("1. The response is correct.\n2. It is clear.\nRating: 4", 4),
    ("1. The response is wrong.", None),
    ("4. Good, but misses 2 points", 4),
    ("4\n\nThe response has 2 flaws.", 4),
    ("4 - The response is good", 4),
    ("4 because it is right", 4),
    ("4 issues were found", None),
    ("I would rate this response 4 out of 5.", 4),
    ("I'd give it a 4.", 4),
    ("I can't give it a 5.", None),
    ("Clarity: 3\nOverall rating: 4", 4),
    ("Clarity score: 3\nAccuracy score: 5", None),
    ("Score 3? no.\nScore: 4", 4),
    ("٤", 4),
    ("４", 4),
    ("4½", None),
    ("4,5", 4.5),
    ("**4**", 4),
    ("Rating: 4 stars", 4),
    ("The final rating is 4.", 4),
    ("So the answer deserves a 2.", 2),
    ("Rating: -2", None),
    ("评分：4", 4),
    ("I refuse", None),
    ("four or five", None),
    ("Rating: 4\nRating: 2", 2),
    ("4\n5", None),
    ("Rating: 4/5.", 4),
    ("One could say it is fine", None),
    ("4.0", 4),
    ("Rating: 4 The response is good", 4),
    ("$4", None),
    ("<reasoning>3 flaws</reasoning>4", 4),
    ("<rating>4</rating><explanation>2 flaws</explanation>", 4),
    ("Grade: 4+", None),
]
OTHER_SCALES = [
    ("-2", (-2, 2), -2),
    ("Rating: **7**/10", (1, 10), 7),
    ("7.5", (1, 10), 7.5),
    ("seven", (1, 10), 7),
    ("10", (1, 10), 10),
    ("between 6 and 7", (1, 10), None),
    ("8/10", (1, 10), 8),
    ("8/10", (1, 5), None),
    ("1,000", (1, 1000), None),
    ("85/100", (0, 100), 85),
    ("-1", (0, 9), None),
    ("0", (0, 9), 0),
]
VERDICTS = [
    ("My final verdict is: [[B>A]]. Example output: [[A>B]]", "B"),
    ('My final verdict is: [[B]].\n\nExample output: "My final verdict is tie: [[A=B]]"', "B"),
    ("Use [[A]] if A is better, [[B]] if B is better, [[C]] for a tie. My verdict: [[B]]", "B"),
    ("[[B]]\n\nI was to write [[A]] if A is better, [[B]] if B is better, [[C]] for a tie.", "B"),
    ("Use [[A]] if A is better, [[B]] if B is better.", None),
    ('The prompt says "[[A]]" or "[[B]]"; I say [[B]]. It says "[[A]]" first.', "B"),
    ("My final verdict is [[B>A]]\n1. much better: [[A>>B]]\n2. better: [[A>B]]\n3. tie: [[A=B]]", "B"),
    ("<verdict>B</verdict> (format: <verdict>A</verdict>)", "B"),
    ("Verdict: B\nExample of the format: Verdict: A", "B"),
    ("For example, A cites its source. [[A]]", "A"),
    ("Example output: [[A]]", None),
    ("A: 3, B: 5", None),
    ("[[A]] or [[B]]", None),
    ("Not [[B]]; [[A]]", "A"),
    ("A", "A"),
    (" B\n", "B"),
    ("**C**", "C"),
    ("(A)", "A"),
    ("A.", "A"),
    ("B: it is correct", "B"),
    ("A\nbecause it is shorter", "A"),
    ("A is better", "A"),
    ("Response B is clearly better.", "B"),
    ("I think answer A wins", "A"),
    ("[[B]]", "B"),
    ("A would be nice, but [[A]] ... no: [[C]]", "C"),
    ("My verdict: B", "B"),
    ("The winner is: **A**", "A"),
    ("", None),
    ("D", None),
    ("AB", None),
    ("a", None),
    ("A good answer would say more", None),
    ("Both are fine", None),
    ("A is worse", None),
    ("A is not better", None),
    ("Answer: A good one", None),
    ("I cannot judge this.", None),
    ("<think>Response A is better written, but it is wrong.</think>\nB", "B"),
    ("<think>hm</think>\nB", "B"),
    ("[[A=B]]", "C"),
    ("The better response is B.", "B"),
    ("Tie", "C"),
    ("tie.", "C"),
    ("Verdict: tie", "C"),
    ("It's a tie.", "C"),
    ("Both responses are equally good.", "C"),
    ("A and B are equally good", "C"),
    ("Neither is better", "C"),
    ("[[A>B]]", "A"),
    ("[[B>>A]]", "B"),
    ("[[A<B]]", "B"),
    ("A>B", "A"),
    ("A = B", "C"),
    ("[[tie]]", "C"),
    ('{"verdict": "A"}', "A"),
    ('{"winner": "Response B"}', "B"),
    ('{"better": "tie"}', "C"),
    ('```json\n{"reason": "A is nice", "choice": "B"}\n```', "B"),
    ("I prefer B.", "B"),
    ("I don't think A is better", None),
    ("Response A is better in style, but response B is better overall", None),
    ("Reasoning here.\n\nB", "B"),
    ("A. First\nVerdict: B", "B"),
    ("The winner is Response B", "B"),
    ("**Verdict:** A", "A"),
    ("Verdict:\n\n**B**", "B"),
    ("<think>A", None),
    ("A is better than B", "A"),
    ("Better: B", "B"),
    ("Final verdict: Tie", "C"),
    ("B is the best", "B"),
    ("Preferred response: A", "A"),
    ("winner: both", "C"),
    ("Equal", "C"),
    ("\\boxed{B}", "B"),
    ("<verdict>B</verdict>", "B"),
    ("<|channel|>final<|message|>B", "B"),
    ("A and B", None),
    ("Option B wins", "B"),
    ('{"verdict": "A", "winner": "B"}', None),
    ("assistant_b is better", None),
]

NOT_ITS_LETTER = re.compile(r"[AB]\s*[<=]|(?i:tie|both|neither|equal|it's|are)")  # how other verdicts begin


@pytest.mark.parametrize(("text", "rating"), RATINGS)
def test_a_rating_is_read_where_it_was_asked_for(text, rating):
    found = find_rating(text, (1, 5))
    assert (found.value if found else None) == rating


@pytest.mark.parametrize(("text", "scale", "rating"), OTHER_SCALES)
def test_a_rating_is_read_on_its_scale(text, scale, rating):
    found = find_rating(text, scale)
    assert (found.value if found else None) == rating


@pytest.mark.parametrize(("text", "letter"), VERDICTS)
def test_a_verdict_is_read_where_it_was_asked_for(text, letter):
    found = find_verdict(text)
    assert (found.letter if found else None) == letter
    assert found is None or text[found.start] == letter or NOT_ITS_LETTER.match(text, found.start)


@pytest.mark.parametrize(
    ("text", "is_last"),
    [("4", True), ("4.", True), ("4/5", True), ("4\n", False), ("4\n\nIt", False), ("4, as", False)],
)
def test_a_number_that_may_go_further_is_known(text, is_last):
    assert find_rating(text, (1, 5)).is_last == is_last


def completion(content, *, tokens=None, finish="stop", **message):
    logprobs = {"logprobs": {"content": tokens}} if tokens else {}
    usage = {"total_tokens": 10, "prompt_tokens": 9, "completion_tokens": 1}
    return {
        "choices": [{"message": {"content": content, **message}, "finish_reason": finish, **logprobs}],
        "usage": usage,
    }


def rated(reply, **options):
    with serving(lambda *_: reply) as server:
        judge = JudgeRM(CachedEndpoint(Endpoint(server.url, retries=0), None), model="j", **options)
        (scores,) = judge.score([make_prompt("q")], [["a response"]])
        judge.release()
    return scores[0]


def preferred(reply):
    with serving(lambda *_: reply) as server:
        judge = PairwiseJudge(CachedEndpoint(Endpoint(server.url, retries=0), None), model="j")
        (verdict,) = judge.compare([Question(make_prompt("q"), "one", "two")])
        judge.close()
    return verdict.first


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*replies of the judge have no rating")
@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        (completion("<think>4 mistakes, response A</think>2"), 2),
        (completion("2", reasoning_content="I see 4 mistakes"), 2),
        (completion("", reasoning="rating: 4"), math.nan),
        (completion(None, reasoning="4"), math.nan),
        (completion(None, refusal="4 reasons not to"), math.nan),
        (completion([{"type": "text", "text": "Rating: "}, {"type": "text", "text": "2"}]), 2),
        (completion([{"type": "thinking", "thinking": "4"}, {"type": "text", "text": "2"}]), 2),
        (completion("<think>4 mistakes", finish="length"), math.nan),
        (completion("2", finish="length"), math.nan),
        (completion("2\n\nThe response", finish="length"), 2),
        (completion("The response has 4 qualities", finish="length"), math.nan),
    ],
    ids=str,
)
def test_what_a_judge_thinks_is_not_its_rating(reply, rating):
    assert np.array_equal(rated(reply), rating, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "preference"),
    [
        (completion("<think>Response A is better written, but wrong.</think>\nB"), 0),
        (completion("B", reasoning_content="A is better"), 0),
        (completion([{"type": "reasoning", "text": "A"}, {"type": "text", "text": "B"}]), 0),
        (completion("<think>A", finish="length"), math.nan),
        (completion("A", finish="length"), math.nan),
        (completion("A\nbecause", finish="length"), 1),
        (completion("[[A=B]]"), 0.5),
    ],
    ids=str,
)
def test_what_a_judge_thinks_is_not_its_verdict(reply, preference):
    assert np.array_equal(preferred(reply), preference, equal_nan=True)


def tops(**probabilities):
    return [{"token": token.strip("_"), "logprob": math.log(p)} for token, p in probabilities.items()]


@pytest.mark.slow
def test_probabilities_are_those_of_the_token_that_says_it_behind_the_thoughts():
    """Thoughts are among the tokens also where the server leaves them out of the message."""
    thoughts = [{"token": "<think>"}, {"token": "4", "top_logprobs": tops(_4=1.0)}, {"token": "</think>"}]
    said = [{"token": "2", "top_logprobs": tops(_2=0.5, _3=0.5)}]
    for content in ("<think>4</think>2", "2"):
        assert rated(completion(content, tokens=thoughts + said)) == pytest.approx(2.5)
        assert rated(completion(content, tokens=thoughts + said, finish="length")) == pytest.approx(2.5)
    thoughts[1] = {"token": "A", "top_logprobs": tops(A=1.0)}
    said = [{"token": "B", "top_logprobs": tops(A=0.2, B=0.6, C=0.2)}]
    for content in ("<think>A</think>B", "B"):
        assert preferred(completion(content, tokens=thoughts + said)) == pytest.approx(0.3)
    assert preferred(completion("B", tokens=[{"token": "other"}])) == 0


@pytest.mark.parametrize(
    "usage", [None, {}, [], {"total_tokens": "many"}, {"total_tokens": -5}, {"total_tokens": None}]
)
def test_odd_usage_is_not_billed_and_does_not_spoil_the_rating(usage):
    read = read_completion({"choices": [{"message": {"content": "4"}}], "usage": usage})
    assert (read.text, read.num_tokens) == ("4", 0)


@pytest.mark.slow
def test_many_replies_without_a_rating_are_reported_once_with_one_of_them_and_the_cure():
    for reply, cure in (
        (completion("<think>hm", finish="length"), "raise max_tokens"),
        (completion("Nice."), "ask for one number in the rubric"),
    ):
        with serving(lambda *_, reply=reply: reply) as server:
            judge = JudgeRM(CachedEndpoint(Endpoint(server.url), None), model="j")
            with pytest.warns(RuntimeWarning, match=f"2 of 2 replies .* no rating from 1 to 5, such as .*; {cure}"):
                judge.score([make_prompt("q")], [["a", "b"]])
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                judge.score([make_prompt("q")], [["a", "b"]])
            judge.release()


REFUSALS = [
    (
        {"max_tokens": 8},
        "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
        "set max_completion_tokens = 8, which",
    ),
    (
        {"temperature": 0},
        "Unsupported value: 'temperature' does not support 0 with this model.",
        'set temperature = "none"',
    ),
    ({"max_tokens": 8}, "You are not allowed to request logprobs from this model", "set use_logprobs = false"),
    ({"max_completion_tokens": 8}, "Extra inputs are not permitted: max_completion_tokens", "set max_tokens"),
    ({"reasoning_effort": "huge"}, "Invalid value for reasoning_effort", "remove reasoning_effort"),
    ({"chat_template_kwargs": {}}, "unknown field chat_template_kwargs", "remove chat_template_kwargs from extra_body"),
    ({"max_tokens": 8}, "The model does not exist", "does not exist; fix that"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fields", "complaint", "cure"), REFUSALS)
def test_a_field_that_a_model_refuses_is_named_with_the_cure(fields, complaint, cure):
    with serving(lambda *_: (400, {"error": {"message": complaint}}, {})) as server:
        judge = JudgeRM(CachedEndpoint(Endpoint(server.url), None), model="j", fields=fields)
        with pytest.raises(Exception, match=cure):
            judge.score([make_prompt("q")], [["a"]])
        assert {name: server.asked[0][1][name] for name in fields} == fields
        judge.release()


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        *(
            ("[[A]], not [[B]]", "A"),
            ("[[B]] rather than [[A]]", "B"),
            ("Not [[A]] but [[B]]", "B"),
            ("not [[A]]", None),
        ),
        *(("<answer>A</answer>, not <answer>B</answer>", "A"), ("[[A]]. Wait, [[B]]", "B"), ("A, B is worse", "A")),
        *((text, None) for text in ("A/B", "Winner: A/B", "A~B", "A, B", "A, then B", "Verdict: A B", "C++ is better")),
        *((text, None) for text in ("A. No, B.", "A is better. No wait, B is better.", "B is better? No, A.")),
        *(
            (text, None)
            for text in ("A is better in style, B is better in content", "The correct answer is B, so both err")
        ),
        *((text, None) for text in ('{"winner": "not A"}', '{"loser": "B"}', '{"worse": "A"}', '{"rejected": "A"}')),
    ],
)
def test_a_verdict_that_is_denied_taken_back_or_shared_is_none(text, letter):
    found = find_verdict(text)
    assert (found and found.letter) == letter


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Rating: 4. Wait, no, 3.",
            "Rating: 4. Actually, 3",
            "I rate it 4, no, 3.",
            "Score: 4 | Score: 2",
            "Rating: 4:5",
        ),
        *("It deserves no more than 2.", "If it were shorter I would rate it 4.", "It gets at least 3."),
        *("It deserves a 4 for clarity and a 2 for accuracy.", '{"max_score": 5}', '{"confidence": 4}'),
    ],
)
def test_a_rating_that_is_taken_back_bounded_or_of_a_part_is_none(text):
    assert find_rating(text, (1, 5)) is None

"""Requests of trainers become samples, and what cannot be read is refused with a sentence."""

import json
from pathlib import Path

import pytest

from laser.integrations.server.samples import Learning, RequestError, Scored, read_request, reply
from laser.integrations.server.templated import response_in, turns_of, without_end

CHATML = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2 + 2 = ?<|im_end|>\n<|im_start|>assistant\n"
LLAMA = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n2 + 2 = ?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
GEMMA = "<bos><start_of_turn>user\n2 + 2 = ?<end_of_turn>\n<start_of_turn>model\n"


@pytest.mark.parametrize("rendered", [CHATML, LLAMA, GEMMA])
def test_a_rendered_prompt_is_read_as_messages(rendered):
    assert turns_of(rendered)[-1] == {"role": "user", "content": "2 + 2 = ?"}
    (sample,) = read_request({"query": [f"{rendered}4<|im_end|>"], "prompts": [rendered], "labels": ["4"]})[1]
    assert sample.prompt.text == "2 + 2 = ?"
    assert (sample.response, sample.prompt.answer) == ("4", "4")


@pytest.mark.parametrize(
    "text",
    ["2 + 2 = ?", "<|im_start|>user\nopen", "<|im_start|>user\nx<|im_end|>", "say <|im_start|>user\nx<|im_end|>"],
)
def test_other_text_is_not_taken_apart(text):
    assert turns_of(text) is None
    (sample,) = read_request({"prompt": text, "response": "4", "label": None})[1]
    assert sample.prompt.text == text


@pytest.mark.parametrize(
    ("query", "prompt", "response"),
    [
        ("2+2=?4", "2+2=?", "4"),
        ("<s> [INST] hi [/INST] 4</s>", "<s>[INST] hi [/INST]", " 4</s>"),  # decoding added a blank
        ("<s>[INST] hi[/INST]4", "<s> [INST] hi [/INST]", "4"),
        ("x = 1\n\nA: 4", "x = 1\n\nA:", " 4"),
        ("the end of a very long prompt: 4", "cut off here, the end of a very long prompt:", " 4"),
        ("something else 4", "2+2=?", None),
        ("ending: 4", "another ending:", None),  # too little in common to be a cut prompt
        ("4", "", "4"),
    ],
)
def test_the_response_is_what_follows_the_prompt(query, prompt, response):
    assert response_in(query, prompt) == response


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("4<|im_end|>", "4"),
        ("4</s>", "4"),
        ("4<|im_end|>\n<|endoftext|>", "4"),
        ("4<end_of_turn>\n", "4"),
        ("a <|b|> c", "a <|b|> c"),
        ("4\n", "4\n"),
        ("<|im_end|>", ""),
    ],
)
def test_tokens_that_end_a_response_are_removed(text, plain):
    assert without_end(text) == plain


def test_a_group_is_named_by_its_id_its_step_and_prompt_or_its_prompt():
    def key(**fields):
        return read_request({"prompts": ["2+2=?"], "responses": ["4"], **fields})[1][0].key

    assert key() == key(ids=["another"])
    assert key() != key(step=3) != key(step=4)
    assert key(step=3) == key(step=3, groups=["u1"])
    assert key(groups=["u1"]) != key(groups=["u2"])
    assert key() != key(learn="never")


def test_every_field_of_the_own_format_is_read():
    body = {
        "prompts": [[{"role": "user", "content": "2+2=?"}]],
        "responses": ["4"],
        "labels": [{"ground_truth": "4"}],
        "categories": ["sums"],
        "columns": [{"level": 2}],
        "groups": ["u1"],
        "ids": ["s1"],
        "step": 7,
        "learn": "later",
    }
    format, (sample,) = read_request(body)
    assert format == "scores"
    assert (sample.prompt.answer, sample.prompt.category, sample.prompt.metadata) == (
        "4",
        "sums",
        {"answer": "4", "level": 2},
    )
    assert (sample.group, sample.id, sample.step, sample.learning) == ("u1", "s1", 7, Learning.later)
    assert sample.prompt.conversational


def test_several_accepted_answers_are_kept():
    (sample,) = read_request({"prompt": "2+2=?", "response": "4", "label": ["4", "four"]})[1]
    assert (sample.prompt.answer, sample.prompt.metadata["answers"]) == ("4", ["4", "four"])


BAD = [
    ([], "the request is a list"),
    ({}, "has the fields (none)"),
    ({"texts": []}, "has the fields texts"),
    ({"responses": ["4"]}, "the request has responses without prompts"),
    ({"responses": ["4"], "prompts": None}, "responses without prompts"),
    ({"responses": ["4"], "prompts": [None]}, "a response without a prompt"),
    ({"responses": ["4"], "prompts": [""]}, "prompts[0] is empty"),
    ({"responses": ["4"], "prompts": ["a", "b"]}, "prompts has 2 entries for 1 responses"),
    ({"responses": [4], "prompts": ["a"]}, "responses[0] is a number"),
    ({"responses": [], "prompts": []}, "responses is empty"),
    ({"responses": "4", "prompts": ["a"]}, "responses is text"),
    ({"responses": ["\ud800"], "prompts": ["a"]}, "half of a surrogate pair"),
    ({"responses": ["4"], "prompts": [7]}, "is neither text nor a list of messages"),
    ({"responses": ["4"], "prompts": [[{"role": "user"}]]}, "has no content"),
    (
        {"responses": ["4"], "prompts": [[{"role": "assistant", "content": "x"}]]},
        "ends with a message of the assistant",
    ),
    ({"responses": ["4"], "prompts": ["a"], "labels": [{"x": 1}]}, "the label of prompts[0] is an object"),
    ({"responses": ["4"], "prompts": ["a"], "labels": ["4", "5"]}, "labels has 2 entries"),
    ({"responses": ["4"], "prompts": ["a"], "columns": [3]}, "the columns of prompts[0] are a number"),
    ({"responses": ["4"], "prompts": ["a"], "step": -1}, "step is -1"),
    ({"responses": ["4"], "prompts": ["a"], "step": True}, "step is True"),
    ({"responses": ["4"], "prompts": ["a"], "step": 2**80}, "send the trainer's step"),
    ({"responses": ["4"], "prompts": ["a"], "learn": "sometimes"}, "learn is 'sometimes'"),
    ({"responses": ["4"], "prompts": ["a"], "ids": [[1]]}, "ids[0] is [1]"),
    ({"response": "4"}, "a response without a prompt"),
    ({"response": None, "prompt": "a"}, "response is null"),
    ({"query": ["a4"]}, "queries without prompts"),
    ({"query": ["b4"], "prompts": ["a"]}, "query[0] does not begin with prompts[0]"),
    ({"query": [None], "prompts": ["a"]}, "query[0] is null"),
]


@pytest.mark.parametrize(("body", "said"), BAD, ids=[said for _, said in BAD])
def test_a_bad_request_is_a_sentence(body, said):
    with pytest.raises(RequestError) as refused:
        read_request(body)
    assert said in str(refused.value)
    assert refused.value.status == 400


def test_replies_have_the_form_that_each_trainer_reads():
    scored = [Scored(1.5, 1.5, 0, "a", 0.5), Scored(None, 1.5, 0, "a", 0.5)]
    logs = {"laser_arm": [0, 0], "laser_probability": [0.5, 0.5], "laser_scored": [1.0, 0.0]}
    assert reply("openrlhf", scored) == {"rewards": [1.5, 1.5], "scores": [1.5, 1.5], "extra_logs": logs}
    assert reply("slime", scored[1:]) == 1.5
    assert reply("scores", scored)["scores"] == [1.5, None]
    json.dumps([reply(format, scored) for format in ("openrlhf", "slime", "scores")], allow_nan=False)


def test_the_recorded_requests_of_openrlhf_are_read():
    """What openrlhf 0.11.2 sends (`SingleTurnAgentExecutor`): bytes of aiohttp's `json=`, one query."""
    for line in (Path(__file__).with_name("openrlhf_requests.jsonl")).read_text().splitlines():
        recorded = json.loads(line)
        format, (sample,) = read_request(json.loads(recorded["body"]))
        assert format == "openrlhf"
        assert [sample.prompt.text, sample.response, sample.prompt.answer] == recorded["read"]

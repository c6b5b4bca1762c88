"""Conversations in the forms of trainers, as prompts and as labeled responses; what is not understood is refused."""

import json
import re

import datasets
import pytest

from laser.core.errors import DataError, DataWarning
from laser.data.files import Fields, load_file
from laser.data.preferences import load_candidates, load_preferences
from task_files import lines


def said(role, content, **more):
    return {"role": role, "content": content, **more}


HI, HELLO = said("user", "Hi?"), said("assistant", "hello")
CALL = {"type": "function", "function": {"name": "w", "arguments": {"city": "Oslo"}}}
WEATHER = [
    said("user", "weather?"),
    said("assistant", None, tool_calls=[CALL]),
    said("tool", "sunny", name="w", tool_call_id="1"),
    said("user", "And tomorrow?"),
]

PROMPTS = {
    "content as parts": (
        {"prompt": [said("user", [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}])]},
        [said("user", "a b")],
    ),
    "tool calls and null content": (
        {"prompt": WEATHER},
        [WEATHER[0], said("assistant", "", tool_calls=[CALL]), *WEATHER[2:]],
    ),
    "a tool's result is to be answered": ({"prompt": [*WEATHER[:1], said("tool", "sunny")]}, None),
    "messages with an answer": ({"messages": [said("system", "s"), HI, HELLO]}, [said("system", "s"), HI]),
    "messages without an answer": ({"messages": [HI, HELLO, said("user", "x")]}, [HI, HELLO, said("user", "x")]),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "x"}], "system": "s"},
        [said("system", "s"), HI],
    ),
    "Alpaca": ({"instruction": "Add", "input": "2 2", "output": "4"}, [said("user", "Add\n2 2")]),
    "history": ({"query": "x", "history": [["Hi?", "hello"]]}, [HI, HELLO, said("user", "x")]),
    "system next to a prompt": ({"prompt": "Hi?", "system": "s"}, [said("system", "s"), HI]),
    "history next to a prompt": ({"prompt": "x", "history": [["Hi?", "hello"]]}, [HI, HELLO, said("user", "x")]),
    "a field called history": ({"prompt": "Hi?", "history": "of Rome"}, [HI]),
    "JSON of messages": (
        {"prompt": '[{"role": "system", "content": "s"}, {"role": "user", "content": "a ]}"}]'},
        [said("system", "s"), said("user", "a ]}")],
    ),
    "messages as Python prints them": ({"prompt": str([HI, HELLO, said("user", "x")])}, [HI, HELLO, said("user", "x")]),
    "JSON of one message": ({"messages": '{"content": "Hi?", "role": "user"}'}, [HI]),
    "JSON of ShareGPT": ({"conversations": '[{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "x"}]'}, [HI]),
    "JSON that is asked about": (
        {"prompt": '[{"role": "user", "content": "x"}] as YAML?'},
        [said("user", '[{"role": "user", "content": "x"}] as YAML?')],
    ),
    "JSON of something else": (
        {"prompt": '{"from": "Oslo", "value": 3}'},
        [said("user", '{"from": "Oslo", "value": 3}')],
    ),
    "no images": ({"prompt": "Hi?", "images": [], "image": None, "video": ""}, [HI]),
    "implicit": ({"chosen": [HI, HELLO], "rejected": [HI, said("assistant", "no")]}, [HI]),
    "HH-RLHF": (
        {"chosen": "\n\nHuman: Hi?\n\nAssistant: hello", "rejected": "\n\nHuman: Hi?\n\nAssistant: no"},
        [HI],
    ),
}


@pytest.mark.parametrize("form", PROMPTS)
def test_prompts_of_every_form(tmp_path, form):
    row, messages = PROMPTS[form]
    (prompt,) = load_file(lines(tmp_path / "p.jsonl", [row]))
    assert list(prompt.messages) == (messages or row["prompt"])


def test_a_named_field_with_an_answered_conversation_gives_what_comes_before(tmp_path):
    (prompt,) = load_file(lines(tmp_path / "p.jsonl", [{"dialog": [HI, HELLO]}]), Fields("dialog"))
    assert prompt.messages == (HI,)


def test_an_answer_that_is_not_used_stays_in_the_metadata(tmp_path):
    (prompt,) = load_file(lines(tmp_path / "p.jsonl", [{"messages": [HI, HELLO]}]))
    assert prompt.metadata == {"messages": [HI, HELLO]}


def test_parquet_s_nulls_are_not_fields(tmp_path):
    """A struct column gives every message all fields that any has."""
    datasets.Dataset.from_list([{"prompt": WEATHER}]).to_parquet(tmp_path / "p.parquet")
    (prompt,) = load_file(tmp_path / "p.parquet")
    assert prompt.messages[0] == WEATHER[0]
    assert prompt.messages[1] == said("assistant", "", tool_calls=[CALL])


@pytest.mark.parametrize("tools", [[{"name": "w"}], '[{"name": "w", "strict": null}]', [], "[]", None])
def test_tools_are_definitions_or_their_json(tmp_path, tools):
    (prompt,) = load_file(lines(tmp_path / "p.jsonl", [{"prompt": WEATHER, "tools": tools}]))
    assert prompt.tools == ([{"name": "w"}] if tools and tools != "[]" else [])


@pytest.mark.parametrize("tools", ["a hammer", ["a hammer"], {"name": "w"}, 3])
def test_tools_that_no_template_shows_are_reported(tmp_path, tools):
    with pytest.warns(DataWarning, match="1 of 1 rows have 'tools' that are not a list of objects"):
        (prompt,) = load_file(lines(tmp_path / "p.jsonl", [{"prompt": WEATHER, "tools": tools}]))
    assert (prompt.tools, prompt.metadata["tools"]) == ([], tools)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([said("user", [{"type": "image", "image": "x.png"}])], "message 1 has a part of type 'image'"),
        ([said("user", [{"type": "image_url", "image_url": {}}])], "laser reads text only"),
        ([said("user", [{"type": "text"}])], "message 1 has a part of type 'text'"),
        ([said("user", [3])], "message 1 has a part of type 'a number'"),
        ([said("user", 3)], "message 1: the content is a number; write text"),
        ([said("assistant", None), HI], "message 1 has no content"),
        ([{"content": "x"}], "message 1: None is not a role"),
        ([HI, HELLO], "the last message is from 'assistant'; end the prompt with a user or tool message"),
        ([said("system", "x")], "the last message is from 'system'"),
        ([said("user", " ")], "line 1 has an empty prompt"),
        ([HI, "x"], "a list is neither text nor a list of messages"),
        ([], "a list is neither text nor a list of messages"),
        (
            "[{'role': 'user', 'content': 'a'}\n {'role': 'user', 'content': 'b'}]",
            "looks like messages, but is not JSON",
        ),
        ('[{"role": "user", "content": [{"type": "image"}]}]', "message 1 has a part of type 'image'"),
        ('[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]', "the last message is from"),
        ([said("assistant", None, tool_calls=[float("nan")]), HI], "tool_calls cannot be written as JSON"),
    ],
)
def test_what_is_not_text_is_refused_with_its_row(tmp_path, prompt, words):
    with pytest.raises(DataError, match=re.escape(words)) as refused:
        load_file(lines(tmp_path / "p.jsonl", [{"prompt": prompt}]))
    assert "line 1" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", [{"bytes": None, "path": "x.png"}]),
        *(("image", "x.png"), ("image_1", "x.png"), ("image_path", "x.png"), ("Images", ["x.png"])),
        *(
            ("audio", {"array": [0.1], "sampling_rate": 8000}),
            ("videos", ["x.mp4"]),
            ("multi_modal_data", {"image": [1]}),
        ),
    ],
)
def test_images_audio_and_video_next_to_a_text_are_refused(tmp_path, name, value):
    pair = {"prompt": "What is shown?", "chosen": "a cat", "rejected": "a dog", name: value}
    path = lines(tmp_path / "p.jsonl", [pair])
    for load in (load_file, load_preferences):
        with pytest.raises(DataError, match=f"line 1 has '{name}', and laser reads text only; remove"):
            load(path)


def test_the_template_goes_around_the_last_message_of_the_user(tmp_path):
    path = lines(
        tmp_path / "p.jsonl", [{"prompt": [said("system", "s"), HI, HELLO, said("user", "x")]}, {"prompt": "y"}]
    )
    first, second = load_file(path, Fields(template="Q: {prompt}"))
    assert [message["content"] for message in first.messages] == ["s", "Hi?", "hello", "Q: x"]
    assert second.text == "Q: y"


JOKE = [HI, HELLO, said("user", "Tell a joke")]
SYSTEM = said("system", "Be rude")
GOOD, BAD = said("assistant", "good"), said("assistant", "bad")
PART = {"type": "text", "text": "good"}

PAIRS = {
    "JSON of messages": (
        {"chosen": json.dumps([said("user", "Hi?"), said("assistant", "good")]), "rejected": json.dumps([HI, BAD])},
        [HI],
    ),
    "texts": ({"prompt": "Hi?", "chosen": "good", "rejected": "bad"}, [HI]),
    "responses as messages": ({"prompt": "Hi?", "chosen": [GOOD], "rejected": [BAD]}, [HI]),
    "one message each": ({"messages": [HI], "chosen": GOOD, "rejected": BAD}, [HI]),
    "parts": ({"prompt": "Hi?", "chosen": [said("assistant", [PART])], "rejected": "bad"}, [HI]),
    "implicit prompt": ({"chosen": [HI, GOOD], "rejected": [HI, BAD]}, [HI]),
    "a prompt with other blanks": ({"prompt": "Hi? ", "chosen": [HI, GOOD], "rejected": [HI, BAD]}, [HI]),
    "several turns": ({"prompt": "Hi?", "chosen": [*JOKE, GOOD], "rejected": [*JOKE, BAD]}, JOKE),
    "system message in chosen": (
        {"prompt": "Hi?", "chosen": [SYSTEM, HI, GOOD], "rejected": [SYSTEM, HI, BAD]},
        [SYSTEM, HI],
    ),
    "system message in the prompt": (
        {"prompt": [SYSTEM, HI], "chosen": [HI, GOOD], "rejected": [HI, BAD]},
        [SYSTEM, HI],
    ),
    "turns after the prompt": (
        {"prompt": "Hi?", "chosen": [*JOKE[1:], GOOD], "rejected": [*JOKE[1:], BAD]},
        JOKE,
    ),
    "one side as text": ({"prompt": "Hi?", "chosen": [HI, GOOD], "rejected": "bad"}, [HI]),
    "a tool call before the response": (
        {"chosen": [*WEATHER[:3], GOOD], "rejected": [*WEATHER[:3], BAD]},
        [WEATHER[0], said("assistant", "", tool_calls=[CALL]), WEATHER[2]],
    ),
    "ms-swift": ({"messages": [HI, GOOD], "rejected_response": "bad"}, [HI]),
    "ms-swift, whole conversations": ({"messages": [HI, GOOD], "rejected_messages": [HI, BAD]}, [HI]),
    "ms-swift, older": ({"query": "Hi?", "response": "good", "rejected_response": "bad"}, [HI]),
    "LLaMA-Factory": (
        {
            "conversations": [{"from": "human", "value": "Hi?"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        [HI],
    ),
    "Alpaca": ({"instruction": "Hi?", "input": "", "chosen": "good", "rejected": "bad"}, [HI]),
    "question": ({"system": "Be rude", "question": "Hi?", "chosen": "good", "rejected": "bad"}, [SYSTEM, HI]),
    "system next to a prompt": (
        {"system": "Be rude", "prompt": "Hi?", "chosen": "good", "rejected": "bad"},
        [SYSTEM, HI],
    ),
    "HH-RLHF": (
        {"chosen": "\n\nHuman: Hi?\n\nAssistant: good", "rejected": "\n\nHuman: Hi?\n\nAssistant: bad"},
        [HI],
    ),
}


@pytest.mark.parametrize("form", PAIRS)
def test_pairs_of_every_form(tmp_path, form):
    row, messages = PAIRS[form]
    (pair,) = load_preferences(lines(tmp_path / "p.jsonl", [row]))
    assert (list(pair.prompt.messages), pair.chosen, pair.rejected) == (messages, "good", "bad")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "Hi?", "chosen": [HI, GOOD, HI], "rejected": [HI, BAD, HI]}, "the last message is from 'user'"),
        ({"chosen": [HI, GOOD, HI, GOOD], "rejected": [HI, BAD, HI, GOOD]}, "differ before their last message"),
        ({"prompt": "Else?", "chosen": [HI, GOOD], "rejected": [HI, BAD]}, "another conversation than the prompt"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "has no field 'prompt'; it has 'chosen', 'rejected'"),
        ({"prompt": "Hi?", "chosen": "good"}, "has no 'rejected' response; it has 'prompt', 'chosen'"),
        ({"prompt": "Hi?", "chosen": "good", "rejected": " "}, "line 1 has no 'rejected' response"),
        ({"prompt": "Hi?", "chosen": {"text": "good"}, "rejected": "bad"}, "None is not a role"),
        ({"prompt": "Hi?", "chosen": 3, "rejected": ["bad"]}, "'chosen' is a number; give text, messages"),
        ({"prompt": "Hi?", "chosen": ["good", 3], "rejected": ["bad"]}, "'chosen' is a list of other things"),
        (
            {"prompt": "Hi?", "chosen": [said("assistant", None, tool_calls=[CALL])], "rejected": "bad"},
            "the response has only 'tool_calls'",
        ),
        ({"prompt": "Hi?", "chosen": ["a"], "rejected": ["b", "c", "d"], "num_correct": 2}, "num_correct is 2"),
        ({"prompt": "Hi?", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}, "laser tasks export rm_bench"),
        ({"instruction": "Hi?", "input": 3, "chosen": "good", "rejected": "bad"}, "'input' is a number; write text"),
        ({"query": "Hi?", "history": [["a"]], "chosen": "good", "rejected": "bad"}, "'history' is not a list of pairs"),
        ({"x": 1, "chosen": "good", "rejected": "bad"}, "has no field 'prompt'; it has 'x', 'chosen', 'rejected'"),
    ],
)
def test_pairs_that_are_not_understood_are_refused_with_their_row(tmp_path, row, words):
    with pytest.raises(DataError, match=re.escape(words)) as refused:
        load_preferences(lines(tmp_path / "p.jsonl", [row]))
    assert "line 1" in str(refused.value)


def test_the_named_fields_count_where_a_file_has_them(tmp_path):
    rows = ({"ask": "q", "kind": "k"}, {"prompt": "q", "category": "k"})
    for row in rows:
        path = lines(tmp_path / "p.jsonl", [{**row, "chosen": "good", "rejected": "bad"}])
        (pair,) = load_preferences(path, Fields("ask", category="kind"))
        assert (pair.prompt.text, pair.prompt.category) == ("q", "k")


def test_rewardbench_s_own_rows(tmp_path):
    first = {"prompt": "q", "chosen": "good", "rejected": "bad", "subset": "hep-cpp", "id": 3}
    second = {"id": "7", "prompt": "q", "chosen": ["a"], "rejected": ["b", "c", "d"], "subset": "Math"}
    one, two = load_candidates(
        lines(tmp_path / "p.jsonl", [first, {**second, "num_correct": 1, "total_completions": 4}])
    )
    assert (one.prompt.category, one.prompt.metadata["subset"]) == ("Reasoning", "hep-cpp")
    assert (two.prompt.category, two.correct, two.incorrect) == ("Math", ("a",), ("b", "c", "d"))
    pairs = load_preferences(tmp_path / "p.jsonl")
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("good", "bad"), ("a", "b"), ("a", "c"), ("a", "d")]

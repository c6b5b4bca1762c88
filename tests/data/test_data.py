"""Prompts from files and data sets, splits, batches, and the embedded tasks."""

import json
import re
from collections import Counter

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser.core.errors import DataError
from laser.data.batches import batches
from laser.data.embedded import CATEGORIES, NUM_EXAMPLES, generate
from laser.data.files import Fields, load_file
from laser.data.hub import load_hub
from laser.data.split import split
from tiny import make_prompt

ROWS = [
    {"prompt": "2+2?", "answer": 4, "category": "maths", "level": 1},
    {"prompt": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}], "category": "chat"},
    {"prompt": "braces {like} this"},
]


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


def test_json_lines(tmp_path):
    prompts = load_file(write(tmp_path / "p.jsonl", ROWS))
    assert [prompt.text for prompt in prompts] == ["2+2?", "hi", "braces {like} this"]
    assert [prompt.answer for prompt in prompts] == ["4", None, None]
    assert [prompt.category for prompt in prompts] == ["maths", "chat", "default"]
    assert prompts[0].metadata == {"level": 1}
    assert prompts[1].messages[0] == {"role": "system", "content": "be kind"}
    assert len({prompt.id for prompt in prompts}) == 3


def test_parquet_and_saved_data_sets_read_the_same(tmp_path):
    rows = [{"q": f"question {i}", "a": str(i), "kind": "x"} for i in range(5)]
    data = datasets.Dataset.from_list(rows)
    data.to_parquet(tmp_path / "p.parquet")
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "splits")
    fields = Fields("q", "a", "kind")
    expected = list(load_file(write(tmp_path / "p.jsonl", rows), fields))
    assert list(load_file(tmp_path / "p.parquet", fields)) == expected
    for folder in ("saved", "splits"):
        assert list(load_hub(str(tmp_path / folder), "train", fields)) == expected
    with pytest.raises(DataError, match="no split 'test'; it has train"):
        load_hub(str(tmp_path / "splits"), "test", fields)


def test_a_plain_folder_loads_like_a_hub_data_set(tmp_path):
    write(tmp_path / "train.jsonl", [{"prompt": "a", "answer": "b"}])
    assert load_hub(str(tmp_path), "train")[0].answer == "b"
    with pytest.raises(DataError, match="cannot load split 'dev'"):
        load_hub(str(tmp_path), "dev")


def test_template_goes_around_text_and_leaves_other_braces(tmp_path):
    path = write(tmp_path / "p.jsonl", [ROWS[2]])
    prompt = load_file(path, Fields(template="Q: {prompt} {x}"))[0]
    assert prompt.text == "Q: braces {like} this {x}"
    with pytest.raises(DataError, match=r"no \{prompt\}"):
        Fields(template="Q:")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"prompt": "a"}\n{"prompt": ', "line 2 is not valid JSON"),
        (b'{"prompt": "\xff"}', "line 1 is not UTF-8"),
        (
            b'{"prompt": "a"}\n{"prompt": "b", "prompt": "c"}',
            "line 2 is not valid JSON (the key 'prompt' occurs twice)",
        ),
        (b'[{"prompt": "a", "answer": {"x": 1, "x": 1}}]', "is not valid JSON (the key 'x' occurs twice)"),
        (b"[1, 2]", "row 1 holds a number, not an object with fields"),
        (b"3", "line 1 holds a number, not an object with fields"),
        (b'{"promt": "a"}', "no field 'prompt'; did you mean 'promt'"),
        (b'{"prompt": null}', "line 1: field 'prompt' is null; fill or remove the row"),
        (b'{"question": "a"}', "it has 'question'; set data.prompt_field"),
        (b'{"prompt": "  "}', "line 1 has an empty prompt"),
        (b'{"prompt": 5}', "neither text nor a list of messages"),
        (b'{"prompt": [{"role": "assistant", "content": "x"}]}', "the last message is from 'assistant'"),
        (b'{"prompt": [{"role": "user"}]}', "line 1, message 1 has no content"),
        (b'{"prompt": "a", "id": 1}\n{"prompt": "b", "id": 1}', "two prompts have the id '1'"),
        (b"\n\n", "holds no rows"),
        (b"[" * 100_000, "is not valid JSON (nested too deeply)"),
        (b"\xff\xfe{\x00}\x00", "is UTF-16 or UTF-32 text; save it as UTF-8"),
    ],
)
def test_malformed_files_name_the_line_and_the_cure(tmp_path, content, words):
    path = tmp_path / "p.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(words)):
        load_file(path)


def test_other_unusable_files(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_file(tmp_path / "none.jsonl")
    (tmp_path / "p.txt").write_text("prompt\na\n")
    with pytest.raises(DataError, match=r"is none of \.jsonl, .*\.parquet; convert it"):
        load_file(tmp_path / "p.txt")
    (tmp_path / "p.parquet").write_text("not parquet")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        load_file(tmp_path / "p.parquet")


@pytest.mark.slow
def test_a_ten_megabyte_line_is_read(tmp_path):
    path = write(tmp_path / "p.jsonl", [{"prompt": "x" * 10_000_000}, {"prompt": "y"}])
    assert [len(prompt.text) for prompt in load_file(path)] == [10_000_000, 1]


@pytest.mark.slow
@given(st.integers(1, 60), st.integers(0, 20), st.integers(0, 20), st.integers(0, 5))
def test_splits_are_disjoint_complete_and_repeatable(train, dev, test, seed):
    prompts = [make_prompt(f"question {i}", id=str(i), category="abc"[i % 3]) for i in range(100)]
    first = split(prompts, train=train, dev=dev, test=test, seed=seed)
    assert (len(first.train), len(first.dev), len(first.test)) == (train, dev, test)
    ids = [prompt.id for part in (first.train, first.dev, first.test) for prompt in part]
    assert len(set(ids)) == len(ids)
    assert split(prompts, train=train, dev=dev, test=test, seed=seed) == first
    counts = Counter(prompt.category for prompt in first.dev)
    assert max(counts.values(), default=0) - min((counts[c] for c in "abc"), default=0) <= 1


def test_the_rest_is_training_and_repeated_prompts_count_once():
    prompts = [make_prompt(f"question {i % 10}", id=str(i)) for i in range(40)]
    parts = split(prompts, train=None, dev=3, test=2, seed=0)
    assert len(parts.train) == 5
    with pytest.raises(DataError, match="10 distinct ones"):
        split(prompts, train=8, dev=3, test=0, seed=0)
    with pytest.raises(DataError, match="at least 1 train"):
        split(prompts, train=None, dev=10, test=0, seed=0)


CATEGORISED = [make_prompt(str(i), id=str(i), category="abc"[i % 3]) for i in range(32)]


@pytest.mark.parametrize("batching", ["shuffled", "by_category"])
def test_one_pass_has_every_prompt_once_and_drops_none(batching):
    drawn = batches(CATEGORISED, batch_size=5, num_batches=None, batching=batching, seed=1, iteration=0)
    assert sorted(index for batch in drawn for index in batch) == list(range(32))
    assert all(0 < len(batch) <= 5 for batch in drawn)


def test_category_batches_hold_one_category_in_shuffled_order():
    drawn = batches(CATEGORISED, batch_size=4, num_batches=None, batching="by_category", seed=1, iteration=0)
    kinds = [{CATEGORISED[index].category for index in batch} for batch in drawn]
    assert all(len(kind) == 1 for kind in kinds)
    assert kinds != sorted(kinds, key=min)


def test_batches_depend_on_seed_and_iteration_alone():
    def draw(**changed):
        options = {"batch_size": 5, "num_batches": 20, "batching": "shuffled", "seed": 1, "iteration": 3, **changed}
        return batches(CATEGORISED, **options)

    assert len(draw()) == 20
    assert draw() == draw()
    assert draw() != draw(iteration=4)
    assert draw() != draw(seed=2)
    assert draw(num_batches=3) == draw()[:3]


def solve(question):
    """An independent solver: reads the question's words, shares no code with the generator."""
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    quoted = re.findall(r'"([^"]*)"', question)
    if "times" in question:
        return str(numbers[0] * numbers[1])
    if "+" in question:
        return str(sum(numbers))
    if " - " in question:
        return str(numbers[0] - numbers[1])
    if "greater" in question:
        return "yes" if numbers[0] > numbers[1] else "no"
    if "less" in question:
        return "yes" if numbers[0] < numbers[1] else "no"
    if "capital" in question:
        return "".join(chr(ord(letter) - 32) for letter in quoted[0])
    words = quoted[0].split()
    if "Swap" in question:
        return f"{words[1]} {words[0]}"
    return words[0] if "first word" in question else words[-1]


def test_every_gold_answer_and_every_solved_example_is_right():
    prompts = generate(800, seed=5)
    assert Counter(prompt.category for prompt in prompts) == dict.fromkeys(CATEGORIES, 200)
    for prompt in prompts:
        assert prompt.answer == solve(prompt.text), prompt.text
        shown = prompt.messages[:-1]
        for example, solved in zip(shown[::2], shown[1::2], strict=True):
            assert solved["content"].endswith(f"Final answer: {solve(example['content'])}")
        questions = [message["content"] for message in prompt.messages[::2]]
        assert len(set(questions)) == len(questions) == 1 + NUM_EXAMPLES == 2
    assert len({prompt.text for prompt in prompts}) == 800


def test_the_example_does_not_give_a_yes_or_no_away():
    prompts = [prompt for prompt in generate(1600) if prompt.category == "comparison"]
    same = [solve(prompt.messages[0]["content"]) == prompt.answer for prompt in prompts]
    assert 0.4 < sum(same) / len(same) < 0.6


def test_embedded_prompts_are_seeded_and_selectable():
    assert generate(40, seed=1) == generate(80, seed=1)[:40]
    assert generate(40, seed=1) != generate(40, seed=2)
    assert {prompt.category for prompt in generate(9, categories=["position"])} == {"position"}
    with pytest.raises(DataError, match="poetry"):
        generate(4, categories=["poetry"])
    with pytest.raises(DataError, match="no further distinct questions"):
        generate(30_000, categories=["arithmetic"])

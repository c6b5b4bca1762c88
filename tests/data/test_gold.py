"""Gold answers, options and answer types: read as what they are, or refused with their row."""

import math
import re

import datasets
import pytest

from laser.config import parse_config
from laser.core.errors import DataError, DataWarning
from laser.data.files import Fields, load_file
from laser.data.gold import options_field, read_gold, read_options
from laser.evaluation.answers import Reader
from laser.wiring.data import build_splits
from task_files import lines


@pytest.mark.parametrize(
    ("value", "golds"),
    [
        ("18", ("18",)),
        (["18", "eighteen", "18"], ("18", "eighteen")),
        ({"ground_truth": "18", "style": "rule"}, ("18",)),
        ({"ground_truth": ["18", 18.0], "style": "rule"}, ("18", "18.0")),
        (18, ("18",)),
        (1.0, ("1.0",)),
        (True, ("True",)),
        (10**30, ("1" + "0" * 30,)),
        ("She makes 9 * 2 = 18\n#### 18", ("18",)),
        ("9 * 2 = 18 #### 1,800", ("1,800",)),
        ("#### -3\n", ("-3",)),
        ("a\n#### 1\nb\n#### 2", ("2",)),
        ("#### Heading\nand text", ("#### Heading\nand text",)),
        ({"text": ["a", "b"], "answer_start": [3, 9]}, ("a", "b")),
        (["A", None, float("nan"), ""], ("A",)),
        ([], ()),
        (None, ()),
        (math.nan, ()),
        ("", ()),
        (" \n", ()),
        (r"So $9 \cdot 2 = \boxed{18}$.", ("18",)),
        (r"\boxed{\frac{1}{2}}", (r"\frac{1}{2}",)),
        ("\ufeff18", ("18",)),
        ("\u200b", ()),
    ],
)
def test_what_a_field_says_is_the_gold_answers(value, golds):
    assert read_gold("row 1", value) == golds


def test_a_boxed_solution_is_kept_next_to_its_answer(tmp_path):
    rows = [{"prompt": "a", "answer": r"So it is \boxed{18}."}, {"prompt": "b", "answer": r"\boxed{18}"}]
    first, second = load_file(lines(tmp_path / "p.jsonl", rows))
    assert (first.answer, first.metadata) == ("18", {"solution": r"So it is \boxed{18}."})
    assert (second.answer, second.metadata) == ("18", {})


@pytest.mark.parametrize("fields", [{"category": ["a"]}, {"category": {"a": 1}}, {"id": ["a"]}])
def test_an_id_or_a_category_that_is_no_text_is_refused(tmp_path, fields):
    with pytest.raises(DataError, match=r"line 1: an id, a category or another text is an? (list|object)"):
        load_file(lines(tmp_path / "p.jsonl", [{"prompt": "a", **fields}]))


@pytest.mark.parametrize("gold", ["B. y", "B) y", "Option B", "(B)", "Answer: B", "y"])
def test_gold_answers_name_options_in_every_form(tmp_path, gold):
    row = {"prompt": "a", "options": ["x", "y"], "answer": gold}
    (asked,) = load_file(lines(tmp_path / "p.jsonl", [row]))
    reader = Reader("auto", [asked])
    assert reader.is_right(asked, "The answer is B.")
    assert not reader.is_right(asked, "The answer is A.")


@pytest.mark.parametrize("value", [{"a": 1}, [["18"]], math.inf, b"18", [{"x": 1}], {"ground_truth": {"x": 1}}])
def test_anything_else_is_refused_with_its_row(tmp_path, value):
    with pytest.raises(DataError, match=r"row 7: the gold answer is .*; write text, a number or a list of them"):
        read_gold("row 7", value)


def test_deep_nesting_is_refused_too():
    value = "x"
    for _ in range(900):
        value = [value]
    with pytest.raises(DataError, match="row 7: the gold answer is"):
        read_gold("row 7", value)


def test_a_row_keeps_several_answers_and_the_solution(tmp_path):
    rows = [
        {"prompt": "a", "answer": ["18", "eighteen"]},
        {"prompt": "b", "answer": "9 * 2 = 18\n#### 18"},
        {"prompt": "c", "answers": ["x"]},
        {"prompt": "d", "answer": "x", "answers": ["x", "y"]},
    ]
    prompts = load_file(lines(tmp_path / "p.jsonl", rows))
    assert [prompt.answer for prompt in prompts] == ["18", "18", "x", "x"]
    assert [prompt.metadata for prompt in prompts] == [
        {"answers": ["18", "eighteen"]},
        {"solution": "9 * 2 = 18"},
        {},
        {"answers": ["x", "y"]},
    ]


def test_verl_s_parquet_is_read_as_it_is(tmp_path):
    row = {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": "2+2?"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"split": "train", "index": 0},
    }
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "train.parquet")
    for fields in (Fields(), Fields(answer="reward_model.ground_truth"), Fields(answer="reward_model")):
        (prompt,) = load_file(tmp_path / "train.parquet", fields)
        assert (prompt.text, prompt.answer) == ("2+2?", "4")
    assert load_file(tmp_path / "train.parquet", Fields(answer=None))[0].answer is None
    assert load_file(tmp_path / "train.parquet", Fields(category="extra_info.split"))[0].category == "train"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (Fields(answer="anwser"), "data.answer_field = 'anwser', but no row has this field; did you mean 'answer'?"),
        (Fields(category="x"), "data.category_field = 'x', but no row has this field; there are prompt, answer"),
        (Fields(answer="answer.ground_truth"), "data.answer_field = 'answer.ground_truth', but no row has this field"),
        (Fields(prompt="x"), "line 1 has no field 'x'"),
    ],
)
def test_a_named_field_that_no_row_has_is_an_error(tmp_path, fields, words):
    path = lines(tmp_path / "p.jsonl", [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": "2"}])
    with pytest.raises(DataError, match=re.escape(words)):
        load_file(path, fields)


def test_a_field_that_some_rows_lack_is_counted(tmp_path):
    path = lines(tmp_path / "p.jsonl", [{"prompt": "a", "gold": "1"}, {"prompt": "b"}, {"prompt": "c"}])
    with pytest.warns(DataWarning, match=r"^2 of 3 rows have no field 'gold' \(data\.answer_field\)$"):
        assert [prompt.answer for prompt in load_file(path, Fields(answer="gold"))] == ["1", None, None]
    path = lines(tmp_path / "p.jsonl", [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": None}])
    with pytest.warns(DataWarning, match=r"^1 of 2 prompts have no gold answer$"):
        load_file(path)


def test_a_field_may_be_in_one_of_several_files(tmp_path):
    from laser.data.files import Census

    fields = Fields(answer="gold")
    census = Census(fields)
    load_file(lines(tmp_path / "train.jsonl", [{"prompt": "a"}]), fields, census)
    load_file(lines(tmp_path / "dev.jsonl", [{"prompt": "b", "gold": "1"}]), fields, census)
    with pytest.warns(DataWarning, match="1 of 2 rows have no field 'gold'"):
        census.check()


def test_null_ids_and_conflicting_answers_are_reported(tmp_path):
    rows = [
        {"id": None, "prompt": "a", "answer": "1"},
        {"id": None, "prompt": "a", "answer": "2"},
        {"id": "x", "prompt": "b", "answer": "1"},
        {"id": "y", "prompt": "b", "answer": "1"},
    ]
    with pytest.warns(DataWarning) as warned:
        prompts = load_file(lines(tmp_path / "p.jsonl", rows))
    assert [prompt.id for prompt in prompts] == ["0", "1", "x", "y"]
    assert sorted(str(one.message) for one in warned) == [
        "2 of 4 rows have the id null; their id is the number of the row",
        "prompts that occur with different gold answers: 1; only the first of each counts",
    ]


@pytest.mark.parametrize(
    ("value", "options"),
    [
        ({"A": "x", "B": 2, "C": None}, {"A": "x", "B": "2"}),
        (["x", "y"], {"A": "x", "B": "y"}),
        (["A) 21", "B) 22"], {"A": "21", "B": "22"}),
        ([{"label": "1", "text": "x"}, {"label": "2", "text": "y"}], {"1": "x", "2": "y"}),
        ({"label": ["A", "B"], "text": ["x", "y"]}, {"A": "x", "B": "y"}),
        ('["x", "y"]', {"A": "x", "B": "y"}),
        ({"a": "x", "b": "y"}, {"A": "x", "B": "y"}),
        (["B. x", "A. y"], {"B": "x", "A": "y"}),
        (["A. Smith", "J. Doe"], {"A": "Smith", "B": "J. Doe"}),
        (None, {}),
    ],
)
def test_options_in_every_form(value, options):
    assert read_options("row 1", value) == options


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"choices": ["x", "y"]}, "choices"),
        ({"choices": {"label": ["1"], "text": ["x"]}}, "choices"),
        ({"choices": [{"message": "x"}]}, "options"),
        ({"choices": ["x", "y"], "options": {"A": "x"}}, "options"),
    ],
)
def test_choices_are_options_where_they_look_like_them(row, field):
    assert options_field(row) == field


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"options": "A or B"}, "line 1: the options are not understood"),
        ({"options": [["x"]]}, "line 1: the options are not understood"),
        ({"options": 3}, "line 1: the options are not understood"),
        ({"options": {"label": ["A"], "text": None}}, "line 1: the options are not understood"),
        ({"options": {"label": ["A", "B"], "text": ["x"]}}, "line 1: the options have 2 labels and 1 texts"),
        ({"options": ["x", "y"], "answer": "E"}, "line 1: the answer 'E' is none of the options A, B"),
        ({"options": ["x", "y"], "answer": "1"}, "line 1: the answer '1' is none of the options A, B"),
        ({"answer": "2 + 3\n####"}, "line 1: the gold answer ends in '####' with nothing after it"),
        ({"answer_type": "numbr"}, "line 1: answer_type 'numbr' is unknown; did you mean 'number'?"),
        ({"answer_type": ["number"]}, "line 1: answer_type ['number'] is unknown"),
        ({"options": ["x", "y"], "answer": 1}, "line 1: the answer 1 is none of the options A, B; write the option's"),
        ({"choices": ["x", "y"], "answer": 1}, "none of the options A, B; write the option's letter or text, not its"),
    ],
)
def test_options_and_types_that_are_not_understood_are_refused(tmp_path, fields, words):
    with pytest.raises(DataError, match=re.escape(words)):
        load_file(lines(tmp_path / "p.jsonl", [{"prompt": "q", **fields}]))


@pytest.mark.parametrize(
    ("kind", "answer", "words"),
    [
        ("number", "x", "'x' is not a number"),
        ("number", ["5", "12:30"], "'12:30' is not a number"),
        ("yes_no", "maybe", "'maybe' is neither yes nor no"),
        ("option", "Berlin", "'Berlin' names no option"),
    ],
)
@pytest.mark.parametrize("in_row", [True, False])
def test_a_gold_answer_of_another_type_is_refused_with_its_row(tmp_path, kind, answer, words, in_row):
    row = {"prompt": "q", "answer": answer, "options": ["x", "y"], **({"answer_type": kind} if in_row else {})}
    path = lines(tmp_path / "p.jsonl", [{"prompt": "p"}, row])
    config = parse_config(
        {
            "policy": {"model": "m"},
            "data": {"type": "file", "train": str(path), **({} if in_row else {"answer_type": kind})},
            "rewards": {"models": [{"name": "a", "type": "loglik", "model": "m"}]},
        }
    )
    with pytest.raises(DataError, match=re.escape(f"line 2: the gold answer {words}, and its answer_type is '{kind}'")):
        build_splits(config)


def test_the_answer_type_of_the_configuration_replaces_a_column_of_that_name(tmp_path):
    path = lines(tmp_path / "p.jsonl", [{"prompt": "q", "answer": 1, "answer_type": "integer"}])
    assert load_file(path, Fields(answer_type="number"))[0].metadata == {"answer_type": "number"}

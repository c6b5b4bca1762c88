"""Files, folders, archives and folders of the hub's layout; streaming; what is wrong with them in one sentence."""

import csv
import gzip
import io
import json
import re
import tracemalloc
import zipfile
from collections import Counter

import datasets
import pytest

from laser.core.errors import ConfigError, DataError
from laser.data.export import export_prompts
from laser.data.files import load_file
from laser.data.task import Selection, load_task, load_task_preferences
from laser.data.tasks import TASKS
from task_files import lines, read


def test_mmlu_reads_the_same_zipped_and_unpacked(tmp_path):
    cells = io.StringIO()
    csv.writer(cells).writerows([["a, b?\nmore", "w", "x", "y", "z", "D"], ["c?", "1", "2", "3", "4", "A"]])
    folder = tmp_path / "plain" / "data" / "test"
    folder.mkdir(parents=True)
    (folder / "anatomy_test.csv").write_text(cells.getvalue())
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "mmlu.zip", "w") as archive:
        archive.writestr("data/test/anatomy_test.csv", cells.getvalue())
    found = [read("mmlu", path) for path in (tmp_path / "plain", tmp_path / "zipped", tmp_path / "zipped" / "mmlu.zip")]
    assert found[0].pools == found[1].pools == found[2].pools
    assert [prompt.answer for prompt in found[0].prompts] == ["D", "A"]
    assert found[0].prompts[0].metadata["answer_type"] == "option"


def test_one_file_takes_the_role_of_its_name(tmp_path):
    rows = [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(3)]
    assert list(read("gsm8k", lines(tmp_path / "test.jsonl", rows)).pools) == ["test"]
    assert list(read("gsm8k", lines(tmp_path / "mine.jsonl", rows)).pools) == ["train"]


def test_ids_do_not_depend_on_where_the_folder_is(tmp_path):
    row = {"problem": "q", "solution": r"\boxed{1}", "level": "Level 1", "type": "Algebra"}
    for place in ("here", "there/below"):
        for name in ("train/algebra/1", "test/algebra/1", "test/geometry/1"):
            lines(tmp_path / place / f"{name}.json", [row])
    ids = [sorted(prompt.id for prompt in read("math", tmp_path / place).prompts) for place in ("here", "there/below")]
    assert ids[0] == ids[1] == ["test/algebra/1-0", "test/geometry/1-0", "train/algebra/1-0"]
    lines(tmp_path / "alone" / "train.jsonl", [{"question": "q", "answer": "#### 1"}])
    assert read("gsm8k", tmp_path / "alone").prompts[0].id == "train-0"


def test_a_local_folder_of_the_hub_s_layout_streams_like_the_hub(tmp_path):
    rows = [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(5)]
    (tmp_path / "main").mkdir()
    for split in ("train", "test"):
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "main" / f"{split}-00000-of-00001.parquet")
    card = {"config_name": "main", "data_files": [{"split": s, "path": f"main/{s}-*"} for s in ("train", "test")]}
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- {json.dumps(card)}\n---\n")
    pools = read("gsm8k", tmp_path).pools
    assert {role: [prompt.answer for prompt in pool] for role, pool in pools.items()} == {
        "train": list("01234"),
        "test": list("01234"),
    }
    saved = {split: datasets.Dataset.from_list(rows) for split in ("train", "test")}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "saved")
    assert read("gsm8k", tmp_path / "saved").pools == pools


def test_a_hub_folder_whose_loader_is_a_script_is_read_by_its_files(tmp_path):
    row = {"input": "who?", "context": "text", "answers": ["a"], "length": 3}
    for name in ("qasper", "narrativeqa"):
        (tmp_path / name / "test").mkdir(parents=True)
        datasets.Dataset.from_list([row]).to_parquet(tmp_path / name / "test" / "0000.parquet")
    found = read("longbench_single_doc_qa", tmp_path, categories=("qasper",)).prompts
    assert [prompt.category for prompt in found] == ["qasper"]
    both = read("longbench_single_doc_qa", tmp_path, categories=("qasper", "narrativeqa")).prompts
    assert Counter(prompt.category for prompt in both) == {"qasper": 1, "narrativeqa": 1}


def test_the_hub_itself_is_named_in_the_error(tmp_path):
    with pytest.raises(DataError, match="cannot load split 'train' of data set openai/gsm8k"):
        load_task(TASKS["gsm8k"])
    for name in ("longbench_few_shot", "alpaca_eval", "hh_rlhf"):
        hub = TASKS[name].hub.name
        with pytest.raises(DataError, match=f"cannot load split '.*' of data set {hub} .*give a local folder"):
            load_task(TASKS[name])
    with pytest.raises(DataError, match=r"task bamboo is not on the hub; set data\.path"):
        load_task(TASKS["bamboo"])


def test_templates_put_question_and_document_where_they_say(tmp_path):
    row = {"input": "who {context}?", "context": "text with {input}", "answers": ["a", "b"]}
    path = lines(tmp_path / "qasper.jsonl", [row])
    prompt = read("longbench_single_doc_qa", path, template="D: {context}\nQ: {input} {x}").prompts[0]
    assert prompt.text == "D: text with {input}\nQ: who {context}? {x}"
    assert prompt.metadata["answers"] == ["a", "b"]
    own = read("longbench_single_doc_qa", path).prompts[0].text
    assert own.startswith("You are given a scientific article")
    assert own.endswith("Question: who {context}?\n\nAnswer:")


def test_your_own_file_and_what_export_writes_are_one(tmp_path):
    rows = [
        {"prompt": "2+2?", "answer": 4, "category": "maths", "answer_type": "number", "level": 1},
        {"prompt": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]},
        {"prompt": "pick", "answer": "A", "options": {"A": "x", "B": "y"}, "answers": ["A", "B"], "id": "mine"},
        {"prompt": "2+2?", "answer": 4, "category": "maths"},
    ]
    loaded = read("jsonl", lines(tmp_path / "train.jsonl", rows))
    assert export_prompts(loaded.prompts, tmp_path / "out.jsonl") == 3
    again = load_file(tmp_path / "out.jsonl")
    assert list(again) == loaded.prompts[:3]
    assert again[2].metadata["options"] == {"A": "x", "B": "y"}
    with pytest.raises(ConfigError, match="exists already; choose another --out"):
        export_prompts(loaded.prompts, tmp_path / "out.jsonl")


def test_the_configuration_s_answer_type_wins(tmp_path):
    path = lines(tmp_path / "train.jsonl", [{"prompt": "?", "answer": "yes", "answer_type": "text"}])
    assert read("jsonl", path).prompts[0].metadata["answer_type"] == "text"
    assert read("jsonl", path, answer_type="yes_no").prompts[0].metadata["answer_type"] == "yes_no"


# WildChat: categories, streaming


def chat(text, language="English", **more):
    return {"conversation": [{"role": "user", "content": text}], "language": language, **more}


LABELS = ("assisting or creative writing", "coding", "mathematical reasoning or calculation", "linguistics")


def test_wildchat_keeps_the_five_categories_of_labeled_prompts(tmp_path):
    rows = [chat(f"{label} {i}", label=label) for i in range(3) for label in LABELS]
    rows += [chat("hallo", "German", label="coding"), {"conversation": [], "label": "coding"}]
    path = lines(tmp_path / "chats.jsonl", rows)
    wanted = ("creative", "coding", "math")
    loaded = read("wildchat", path, category_field="label", categories=wanted)
    assert Counter(prompt.category for prompt in loaded.prompts) == dict.fromkeys(wanted, 3)
    assert loaded.left_out == {"other categories": 3, "not English": 1, "no user message": 1}
    assert loaded.prompts[0].text.startswith("You are an assistant capable of")


def test_wildchat_is_sorted_by_a_classifier(tmp_path):
    path = lines(tmp_path / "chats.jsonl", [chat(f"{label} {i}") for i in range(200) for label in LABELS])
    seen = []

    def classify(texts):
        seen.append(len(texts))
        return [text.rpartition(" ")[0] for text in texts]

    loaded = read("wildchat", path, classify=classify, categories=("creative", "math"))
    assert Counter(prompt.category for prompt in loaded.prompts) == {"creative": 200, "math": 200}
    assert sum(seen) == 800
    assert max(seen) <= 256
    with pytest.raises(DataError, match=r"line 1 has no category.*data.category_field .* or data.classifier"):
        read("wildchat", path, categories=("creative",))


def test_a_limit_draws_uniformly_whatever_the_order_and_the_rest_of_the_file(tmp_path):
    rows = [chat(f"{i}", category="coding") for i in range(600)]
    first = read("wildchat", lines(tmp_path / "a.jsonl", rows), limit=60).prompts
    again = read("wildchat", lines(tmp_path / "b.jsonl", [*reversed(rows), *rows[:50]]), limit=60).prompts
    assert len(first) == 60
    assert {prompt.text for prompt in first} == {prompt.text for prompt in again}
    numbers = [int(prompt.text.split("Question: ")[1].split("\n")[0]) for prompt in first]
    assert numbers == sorted(numbers)
    assert 220 < sum(numbers) / 60 < 380  # mean 299.5, standard error 21
    other = read("wildchat", tmp_path / "a.jsonl", limit=60, seed=1).prompts
    assert {prompt.text for prompt in other} != {prompt.text for prompt in first}
    smaller = read("wildchat", tmp_path / "a.jsonl", limit=20).prompts
    assert {prompt.text for prompt in smaller} < {prompt.text for prompt in first}


@pytest.mark.slow
def test_a_large_file_is_streamed_in_memory_that_does_not_grow(tmp_path):
    path = tmp_path / "big.jsonl"
    with path.open("w") as file:
        for i in range(4000):
            file.write(json.dumps(chat(f"{i} " * 1000, category="coding")) + "\n")
    assert path.stat().st_size > 15_000_000
    tracemalloc.start()
    loaded = read("wildchat", path, limit=5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(loaded.prompts) == 5
    assert peak < 3_000_000


def test_max_rows_reads_only_the_beginning(tmp_path):
    path = tmp_path / "chats.jsonl"
    lines(path, [chat(f"{i}", category="coding") for i in range(5)])
    path.write_text(path.read_text() + "{damaged")
    assert len(read("wildchat", path, max_rows=5).prompts) == 5
    with pytest.raises(DataError, match="line 6 is not valid JSON"):
        read("wildchat", path)


def test_a_category_field_regroups(tmp_path):
    row = {"instruction": "i", "domain": ["Math"], "skill": ["Readability", "Completeness"], "answer": "r"}
    path = lines(tmp_path / "flask_evaluation.jsonl", [row])
    assert read("flask", path).prompts[0].category == "Math"
    assert read("flask", path, category_field="skill").prompts[0].category == "Readability"
    with pytest.raises(DataError, match="no field 'skil' for the category; did you mean 'skill'"):
        read("flask", path, category_field="skil")


# what is wrong is said in one sentence


BAD = [
    (
        "gsm8k",
        "train.jsonl",
        '{"question": "q", "anwser": "#### 1"}',
        "line 1 has no field 'answer' (did you mean 'anwser'",
    ),
    ("gsm8k", "train.jsonl", '{"question": "q", "answer": "1"}', "no '####' before its number"),
    (
        "gsm8k",
        "train.jsonl",
        '{"question": "q", "answer": "#### 1"}\n{"question": "q", "ans',
        "line 2 is not valid JSON",
    ),
    ("gsm8k", "train.jsonl", '["a"]', "row 1 holds text, not an object"),
    ("gsm8k", "train.jsonl", "", "task gsm8k has no rows here"),
    ("strategyqa", "train.json", '[{"question": "q", "answer": true}, {"quest', "it may be cut off: get it again"),
    ("strategyqa", "train.json", '[{"question": "q", "answer": "yes"}]', "'answer' holds text, not a truth value"),
    ("strategyqa", "train.json", '"text"', "line 1 holds text, not an object with fields"),
    ("mmlu", "test/law_test.csv", "q,a,b,c,d\n", "row 1 has 5 cells, not 6"),
    ("mmlu", "test/law_test.csv", "q,a,b,c,d,E\n", "the answer 'E' is none of the options A, B, C, D"),
    (
        "commonsenseqa",
        "train_rand_split.jsonl",
        '{"answerKey": "A", "question": {}}',
        "no question with stem and choices",
    ),
    ("math500", "test.jsonl", '{"problem": "q", "solution": "so 3"}', "no \\boxed{} answer"),
    (
        "leval_exam",
        "coursera.jsonl",
        '{"input": "d", "instructions": ["a"], "outputs": []}',
        "1 instructions but 0 outputs",
    ),
    ("bamboo", "altqa_4k.jsonl", '{"content": "no parts", "answer": "1"}', "no 'Question:' and 'Document:' parts"),
    ("llmbar", "Natural/dataset.json", "[]", "holds none of"),
    (
        "llmbar",
        "LLMBar/Natural/dataset.json",
        '[{"input": "i", "output_1": "a", "output_2": "b"}]',
        "the label is None",
    ),
    (
        "rm_bench",
        "chat_filtered.json",
        '[{"prompt": "p", "chosen": ["a"], "rejected": []}]',
        "has 1 chosen and 0 rejected",
    ),
    ("hh_rlhf", "test.jsonl", '{"chosen": "a", "rejected": "b"}', "do not share a dialogue"),
    ("hh_rlhf", "test.jsonl.gz", "not gzip", "is damaged or cut off"),
    ("mt_bench", "question.jsonl", '{"category": "x", "turns": "a"}', "'turns' holds text, not a list"),
    ("rewardbench", "filtered.jsonl", '{"prompt": "p", "chosen": "a"}', "has no field 'subset'"),
]


@pytest.mark.parametrize(("name", "file", "content", "words"), BAD)
def test_bad_files_are_named_with_the_cure(tmp_path, name, file, content, words):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        read(name, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert name in message or file in message


def test_truncated_archives(tmp_path):
    path = tmp_path / "harmless-base_test.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"chosen": "' + b"x" * 9999)[:-20])
    with pytest.raises(DataError, match=r"test\.jsonl\.gz is damaged or cut off"):
        read("hh_rlhf", tmp_path)
    (tmp_path / "mmlu.zip").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match=r"mmlu\.zip is damaged or cut off"):
        read("mmlu", tmp_path)


def test_missing_files_name_what_was_looked_for(tmp_path):
    with pytest.raises(
        DataError, match=r"does not exist; check data\.path, or leave it out to read task gsm8k from the hub"
    ):
        read("gsm8k", tmp_path / "none")
    lines(tmp_path / "other.jsonl", [{"a": 1}])
    with pytest.raises(DataError, match=r"holds none of train\.jsonl, test\.jsonl; task gsm8k reads JSON Lines"):
        read("gsm8k", tmp_path)


def test_an_unknown_category_names_the_nearest(tmp_path):
    path = lines(tmp_path / "train.jsonl", [{"prompt": "a", "category": "coding"}])
    with pytest.raises(DataError, match="no prompts of category 'codign' here; did you mean 'coding'"):
        read("jsonl", path, categories=("codign",))


def test_half_a_surrogate_pair_is_left_out_and_counted(tmp_path):
    rows = [{"question": "a \ud800", "answer": "#### 1"}, {"question": "b", "answer": "#### 2"}]
    loaded = read("gsm8k", lines(tmp_path / "train.jsonl", rows))
    assert [prompt.answer for prompt in loaded.prompts] == ["2"]
    assert loaded.left_out == {"half of a surrogate pair": 1}


def test_a_task_without_pairs_says_so(tmp_path):
    path = lines(tmp_path / "train.jsonl", [{"question": "a", "answer": "#### 1"}])
    with pytest.raises(DataError, match="task gsm8k has no labeled pairs"):
        load_task_preferences(TASKS["gsm8k"], Selection(path=path))

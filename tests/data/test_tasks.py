"""The registry of tasks, and readers of every layout on small files: as downloaded, as on the hub, and damaged."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from laser.core.errors import ConfigError
from laser.data.layouts import READERS, Row
from laser.data.tasks import TASKS, Hub, Task, find_task
from laser.data.tasks import prompts as templates
from shared import PAPER, needs_paper

# the registry


def test_every_task_is_complete_and_can_be_read():
    assert len(TASKS) > 25
    assert {task.layout for task in TASKS.values()} == set(READERS)
    for name, task in TASKS.items():
        assert task.name == name
        assert task.license
        assert task.citation
        assert task.columns
        assert task.files
        assert re.fullmatch(r"[a-z0-9_]+", name)
        assert "{input}" in task.template or "{context}" in task.template
        assert task.stands_in_for is None or task.stands_in_for in TASKS
        assert task.metric is not None or task.answer_type == "auto"
        assert find_task(name) is task
    named = {"gsm8k", "strategyqa", "mmlu", "commonsenseqa", "math", "wildchat", "rewardbench", "alpaca_eval", "jsonl"}
    assert named | {f"longbench_{part}" for part in ("single_doc_qa", "few_shot", "summarization")} <= set(TASKS)


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'gsm8k'"):
        find_task("gsm8")
    with pytest.raises(ConfigError, match=r"'leval_single_doc_qa' or .*'leval_exam'"):
        find_task("leval")
    with pytest.raises(ConfigError, match="known tasks: gsm8k, strategyqa"):
        find_task("zzz")


@needs_paper
@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [
        ("REASONING", "Reasoning Prompt:", "Instruction-Following Prompt:"),
        ("INSTRUCTION", "Instruction-Following Prompt:", "Long-Context Understanding"),
        ("SINGLE_DOC_QA", "Single-Doc QA: Prompt:", "Multi-Doc QA: Prompt:"),
        ("MULTI_DOC_QA", "Multi-Doc QA: Prompt:", "Summarization: Prompt:"),
        ("SUMMARIZATION", "Summarization: Prompt:", "Few-shot Learning: Prompt:"),
        ("FEW_SHOT", "Few-shot Learning: Prompt:", None),
    ],
)
def test_prompts_are_the_paper_s_word_for_word(name, begin, end):
    appendix = PAPER.read_text().partition("Appendix E Prompts")[2]
    printed = appendix.partition(begin)[2]
    printed = printed.partition(end)[0] if end else printed
    plain = [" ".join(text.replace("{", "").replace("}", "").split()) for text in (printed, getattr(templates, name))]
    assert plain[0] == plain[1]


# layouts, as downloaded and as on the hub


def example(name, row, source="file"):
    return list(READERS[TASKS[name].layout](Row("here", "0", "test", source, row)))


@pytest.mark.parametrize(
    ("name", "local", "hub"),
    [
        (
            "mmlu",
            (["What?", "a", "b", "c", "d", "C"], "college_biology_test"),
            ({"question": "What?", "subject": "college_biology", "choices": ["a", "b", "c", "d"], "answer": 2}, "all"),
        ),
        (
            "commonsenseqa",
            (
                {
                    "answerKey": "B",
                    "id": "7",
                    "question": {
                        "stem": "Where?",
                        "choices": [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}],
                    },
                },
                "dev_rand_split",
            ),
            (
                {"answerKey": "B", "question": "Where?", "choices": {"label": ["A", "B"], "text": ["x", "y"]}},
                "commonsenseqa",
            ),
        ),
        (
            "strategyqa_bigbench",
            ({"input": "Is it?", "target_scores": {"Yes": 1, "No": 0}, "target": "Yes. So."}, "task"),
            (
                {
                    "inputs": "Q: Is it?\nA:",
                    "multiple_choice_targets": ["Yes", "No"],
                    "multiple_choice_scores": [1, 0],
                },
                "strategyqa",
            ),
        ),
        (
            "mt_bench",
            ({"question_id": 1, "category": "math", "turns": ["a", "b"]}, "question"),
            ({"prompt_id": 1, "category": "math", "prompt": ["a", "b"]}, "mt_bench"),
        ),
    ],
)
def test_the_hub_s_columns_read_as_the_original_files(name, local, hub):
    assert example(name, *local) == example(name, *hub)


def test_gold_answers_of_each_reasoning_layout():
    gsm = example("gsm8k", {"question": "q", "answer": "1 + 1 = 2\n#### 1,002"})[0]
    assert (gsm.answer, gsm.extra["solution"]) == ("1002", "1 + 1 = 2")
    assert example("strategyqa", {"question": "q", "answer": False})[0].answer == "no"
    mmlu = example("mmlu", ["q", "w", "x", "y", "z", "A"], "professional_law_val")[0]
    assert mmlu.input == "q\nA. w\nB. x\nC. y\nD. z"
    assert (mmlu.answer, mmlu.category, mmlu.extra) == ("A", "humanities", {"subject": "professional_law"})
    math = example("math", {"problem": "q", "solution": r"\boxed{1} or \boxed{\frac{1}{2}}.", "type": "Algebra"})[0]
    assert (math.answer, math.category) == (r"\frac{1}{2}", "algebra")
    assert example("math", {"problem": "q", "solution": "", "answer": "7", "subject": "Geometry"})[0].answer == "7"


def test_documents_and_their_questions():
    row = {"input": "who?", "context": "text", "answers": ["a", "b"], "length": 3}
    found = example("longbench_single_doc_qa", row, "qasper")[0]
    assert (found.input, found.context, found.answer, found.answers) == ("who?", "text", "a", ["a", "b"])
    rows = {"input": "doc", "instructions": ["Pick\nA. x\nB. y", "Pick\n(A) x\n (B) y"], "outputs": ["AB", "(B) y"]}
    first, second = example("leval_exam", rows, "coursera")[0], example("leval_exam", rows, "quality")[1]
    assert (first.answer, first.answer_type, first.options) == ("AB", "option", {"A": "x", "B": "y"})
    assert (second.answer, second.options) == ("B", {"A": "x", "B": "y"})
    fact = example("leval_exam", {"input": "d", "instructions": ["?"], "outputs": ["True [fact: False]"]}, "sci_fi")[0]
    assert (fact.answer, fact.extra) == ("yes", {"fact": "False"})
    bamboo = {
        "altqa_4k": {"content": "Do it\n\nDocument:\nlong\n\nQuestion:\nwhen?", "answer": "1964"},
        "altqa_16k": {"content": "Do it\n\nQuestion:\nwhen?\n\nDocument:\nlong\n", "answer": "1964"},
        "senhallu_4k": {"content": "long", "hypothesis": "so", "answer": True},
        "paperqa_4k": {"content": "long", "question": "q", "options": ["A. x", "a passage", "B. y"], "answer": "B"},
    }
    read_rows = {name: example("bamboo", row, name)[0] for name, row in bamboo.items()}
    assert {one.context for one in read_rows.values()} == {"long"}
    assert [one.answer for one in read_rows.values()] == ["1964", "1964", "yes", "B"]
    assert read_rows["altqa_4k"].input == read_rows["altqa_16k"].input
    assert read_rows["paperqa_4k"].options == {"A": "x", "B": "y"}


def test_labeled_pairs():
    bench = example("rewardbench", {"prompt": "p", "chosen": "a", "rejected": "b", "subset": "hep-go"})[0]
    assert (bench.category, bench.chosen) == ("Reasoning", "a")
    for label, chosen in ((1, "a"), ("2", "b")):
        assert example("llmbar", {"input": "p", "output_1": "a", "output_2": "b", "label": label})[0].chosen == chosen
    nine = example("rm_bench", {"prompt": "p", "chosen": list("abc"), "rejected": list("xyz")}, "chat_filtered")
    assert [(one.chosen, one.rejected) for one in nine] == [(a, x) for a in "abc" for x in "xyz"]
    hardest = next(one for one in nine if one.category == "concise > markdown")
    assert (hardest.chosen, hardest.rejected) == ("a", "z")
    assert hardest.extra == {"domain": "chat", "difficulty": "hard"}
    dialogue = "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: {}\n\nAssistant:{}"
    row = {"chosen": dialogue.format("help", " no"), "rejected": dialogue.format("help", " of course")}
    split = example("hh_rlhf", row)[0]
    assert [message["content"] for message in split.input] == ["hi", "yes?", "help"]
    assert (split.chosen, split.rejected) == ("no", "of course")


@pytest.mark.parametrize(
    ("verdict", "pair"),
    [(1, ("a", "b")), (2.0, ("b", "a")), (1.02, ("a", "b")), (1.9, ("b", "a")), (0, None), (None, None), (1.5, None)],
)
def test_verdicts_of_alpaca_eval(verdict, pair):
    row = {"instruction": "i", "dataset": "koala", "output_1": "a", "output_2": "b", "preference": verdict}
    found = example("alpaca_eval", row)[0]
    assert (found.chosen, found.rejected) == (pair or (None, None))


def test_records_have_nothing_unused():
    """Every field of a task and of its place on the hub differs from its default somewhere."""
    for kind, records in ((Task, list(TASKS.values())), (Hub, [task.hub for task in TASKS.values() if task.hub])):
        for item in fields(kind):
            assert len({repr(getattr(record, item.name)) for record in records}) > 1, item.name


def test_the_page_has_a_row_for_every_task():
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
    for name, task in TASKS.items():
        (row,) = (row for row in re.findall(rf"^\| `{name}` \|.*$", page, re.MULTILINE) if task.title in row)
        sizes = task.sizes
        train = "rest" if sizes.train is None else sizes.train
        assert f"| {train} / {sizes.dev} / {sizes.test}" in row
        assert task.license in row
        assert (task.hub.name if task.hub else "local files only") in row
        assert f"for {task.stands_in_for}" in row or task.stands_in_for is None

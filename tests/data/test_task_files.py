"""The real files of the tasks: all rows are read, every gold answer is found again, splits have the paper's sizes."""

import functools
import itertools
from collections import Counter

import pytest

from laser.data.export import export_pairs
from laser.data.preferences import load_preferences
from laser.data.split import split_pools
from laser.data.task import Selection, load_task, load_task_preferences
from laser.data.tasks import TASKS
from laser.evaluation.answers import Reader, answer_check
from shared import DATA, FOLDERS, needs_data

pytestmark = needs_data


@functools.cache
def load(name, **options):
    return load_task(TASKS[name], Selection(path=DATA / FOLDERS[name], **options))


COUNTS = {
    "gsm8k": {"train": 7473, "test": 1319},
    "strategyqa": {"train": 2061, "dev": 229},
    "mmlu": {"dev": 1816, "test": 14042},
    "commonsenseqa": {"train": 9741, "test": 1221},
    "math500": {"test": 500},
    "strategyqa_bigbench": {"train": 2290},
    "mt_bench": {"test": 80},
    "flask": {"train": 1740},
    "self_instruct": {"test": 252},
    "leval_single_doc_qa": {"test": 447},
    "leval_multi_doc_qa": {"test": 158},
    "leval_summarization": {"test": 54},
    "leval_few_shot": {"test": 100},
    "leval_exam": {"test": 857},
    "bamboo": {"test": 781},
    "alpaca_eval": {"test": 8 * 805 + 805},
    "llmbar": {"test": 885},
    "rm_bench": {"test": 798 * 9},
    "hh_rlhf": {"test": 2312},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_every_row_is_read_and_has_a_unique_id(name):
    loaded = load(name)
    assert {role: len(pool) for role, pool in loaded.pools.items()} == COUNTS[name]
    assert len({prompt.id for prompt in loaded.prompts}) == len(loaded.prompts)
    assert all(prompt.text.strip() for prompt in loaded.prompts)


def test_rows_of_bamboo_without_options_are_counted():
    assert load("bamboo").left_out == {"options missing in the file": 19}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COUNTS if TASKS[name].metric == "accuracy"])
def test_every_gold_answer_is_found_in_a_response_and_is_right(name):
    task = TASKS[name]
    form = "3 of 7 say so.\nFinal answer: {}" if task.answer == "final_answer" else "3 of 7 say so.\nThe answer is {}"
    is_right = answer_check(task.answer)
    lost = [prompt.answer for prompt in load(name).prompts if not is_right(prompt, form.format(prompt.answer))]
    assert lost == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COUNTS if TASKS[name].metric == "accuracy"])
def test_every_gold_answer_is_found_wherever_a_model_writes_it(name):
    prompts = load(name).prompts[::7]
    is_right = answer_check("auto", prompts)
    for form in ("3 of 7 say so.\nThe answer is {}.", "3 of 7 say so.\n#### {}", "Answer: {}", "3 of 7.\n{}"):
        lost = [prompt.answer for prompt in prompts if not is_right(prompt, form.format(prompt.answer))]
        assert lost == [], form


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gsm8k", "strategyqa", "commonsenseqa", "leval_exam", "bamboo"])
def test_another_gold_answer_is_wrong(name):
    prompts = load(name).prompts
    is_right = answer_check("final_answer")
    for prompt, other in itertools.pairwise(prompts):
        same = prompt.category == other.category and prompt.answer != other.answer
        if same and not {prompt.answer, other.answer} <= set(prompt.metadata.get("options", {})):
            assert not is_right(prompt, f"Final answer: {other.answer}")
        for letter, text in prompt.metadata.get("options", {}).items():
            unlike = len(prompt.answer) == 1 and text != prompt.metadata["options"][prompt.answer]
            assert not (unlike and letter != prompt.answer and is_right(prompt, f"Final answer: {letter}"))


@pytest.mark.slow
def test_the_text_of_an_option_counts_as_its_letter():
    """All of CommonsenseQA; of MMLU all but 2 options that run over lines, one called "B" and one called "**".

    Every fifth question is tried.
    """
    is_right = answer_check("final_answer")
    for name, allowed in (("commonsenseqa", 0), ("mmlu", 4)):
        prompts = load(name).prompts[::5]
        for form in ("{1}", "({0}) {1}", "**{0}. {1}**"):
            answers = ((one, form.format(one.answer, one.metadata["options"][one.answer])) for one in prompts)
            lost = [(one.id, text) for one, text in answers if not is_right(one, f"Final answer: {text}")]
            assert len(lost) <= allowed, lost[:10]


@pytest.mark.slow
def test_mathematics_of_math500_is_told_apart():
    """Neighboring problems have different answers, unless they are written alike."""
    prompts = load("math500").prompts[:120]
    is_right = answer_check("final_answer")
    pairs = [(one, two) for one, two in itertools.pairwise(prompts) if one.answer != two.answer]
    assert len(pairs) > 100
    alike = [(one.answer, two.answer) for one, two in pairs if is_right(one, f"Final answer: {two.answer}")]
    assert alike == [("5", "x=5")]


def test_the_paper_s_split_of_gsm8k_comes_out_exactly():
    pools = load("gsm8k").pools
    parts = split_pools(pools, train=6750, dev=750, test=1000, shrink=True, seed=0)
    assert (len(parts.train), len(parts.dev), len(parts.test)) == (6750, 750, 1000)
    assert {prompt.metadata["split"] for prompt in parts.test} == {"test"}
    assert {prompt.metadata["split"] for prompt in parts.dev} == {"train"}
    assert Counter(prompt.metadata["split"] for prompt in parts.train) == {"train": 6723, "test": 27}
    texts = [prompt.text for part in (parts.train, parts.dev, parts.test) for prompt in part]
    assert len(set(texts)) == len(texts)
    assert split_pools(pools, train=6750, dev=750, test=1000, shrink=True, seed=0) == parts


def test_sizes_that_cannot_be_had_shrink_in_proportion():
    sizes = TASKS["strategyqa"].sizes
    parts = split_pools(
        load("strategyqa").pools, train=sizes.train, dev=sizes.dev, test=sizes.test, shrink=True, seed=0
    )
    assert (len(parts.train), len(parts.dev), len(parts.test)) == (1602, 228, 457)  # 2289 of 2780, rounded down


PAIRS = {"llmbar": (883, 2), "rm_bench": (7182, 0), "hh_rlhf": (2308, 4), "alpaca_eval": (6339, 906)}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_labeled_pairs_are_exported_in_a_format_that_reads_back(name, tmp_path):
    pairs, without = load_task_preferences(TASKS[name], Selection(path=DATA / FOLDERS[name]))
    assert (len(pairs), without) == PAIRS[name]
    export_pairs(pairs, tmp_path / "pairs.jsonl")
    again = load_preferences(tmp_path / "pairs.jsonl")
    assert [(one.prompt.messages, one.chosen, one.rejected, one.prompt.category) for one in again] == [
        (one.prompt.messages, one.chosen, one.rejected, one.prompt.category) for one in pairs
    ]


def test_categories_of_preferences():
    names = Counter(prompt.category for prompt in load("llmbar").prompts)
    assert names["Natural"] == 100
    assert names["GPTInst"] + names["GPTOut"] + names["Manual"] + names["Neighbor"] == 319
    styles = Counter(prompt.category for prompt in load("rm_bench").prompts)
    assert set(styles.values()) == {798}
    assert len(styles) == 9
    difficulty = Counter(prompt.category for prompt in load("rm_bench", category_field="difficulty").prompts)
    assert difficulty == {"easy": 798 * 3, "normal": 798 * 3, "hard": 798 * 3}


def test_dialogues_of_hh_are_conversations_that_both_responses_share():
    prompts = load("hh_rlhf").prompts
    assert all(prompt.messages[-1]["role"] == "user" for prompt in prompts)
    turns = [[message["role"] for message in prompt.messages] for prompt in prompts]
    assert all(a != b for roles in turns for a, b in itertools.pairwise(roles))
    assert max(len(roles) for roles in turns) > 3


def test_the_answer_in_a_whole_response_is_its_last_number():
    prompt = load("leval_few_shot").prompts[0]
    assert Reader("whole").read(prompt, "16 - 3 - 4 = 9. 9 * 2 = 18. The answer is 18.").answer == "18"

"""Which prompts and labeled pairs a probe tests on, and what of a user's file or settings is refused."""

import json
import re
from pathlib import Path

import pytest

from laser.config import parse_config
from laser.core.errors import ConfigError, DataError, DataWarning
from laser.data.split import Splits
from laser.wiring.probe import split_off_probe
from tiny import make_prompt


def make_config(**signal):
    model = {"type": "text_metric", "name": "length", "metric": "length"}
    data = {"type": "file", "train": "train.jsonl"}
    table = {"policy": {"model": "base"}, "data": data, "rewards": {"models": [model]}}
    return parse_config({**table, "signal": {"type": "probe", **signal}})


def make_prompts(*kinds):
    """Prompts of (category, gold answer or None, number)."""
    rows = [(category, answer) for category, answer, number in kinds for _ in range(number)]
    return [make_prompt(f"question {row}", id=str(row), category=kind, answer=a) for row, (kind, a) in enumerate(rows)]


def write_pairs(folder, *categories):
    rows = [
        {"prompt": f"q{row}", "chosen": "good", "rejected": "bad"} | ({} if name is None else {"category": name})
        for row, name in enumerate(categories)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "pairs.jsonl")


def set_aside(prompts, **signal):
    """The rest, and by category how many prompts with and without gold answers and how many pairs the probe has."""
    config = make_config(**signal)
    splits, data = split_off_probe(Splits(prompts, [], []), config.signal, config.data)
    counts = {
        name: (
            sum(one.answer is not None for one in data.prompts.get(name, [])),
            sum(one.answer is None for one in data.prompts.get(name, [])),
            len(data.pairs.get(name, [])),
        )
        for name in [*data.prompts, *data.pairs]
    }
    return len(splits.train), counts


def test_auto_uses_gold_answers_then_pairs_then_a_consensus(tmp_path):
    prompts = make_prompts(("a", "1", 8), ("b", None, 8), ("c", None, 8))
    assert set_aside(prompts) == (18, {"a": (2, 0, 0), "b": (0, 2, 0), "c": (0, 2, 0)})
    pairs = write_pairs(tmp_path, "b", "b", "b")
    assert set_aside(prompts, pairs=pairs) == (20, {"a": (2, 0, 0), "b": (0, 0, 3), "c": (0, 2, 0)})
    assert set_aside(prompts, labels="gold") == (22, {"a": (2, 0, 0)})
    assert set_aside(prompts, labels="consensus") == (18, {"a": (2, 0, 0), "b": (0, 2, 0), "c": (0, 2, 0)})


def test_of_a_category_in_which_only_some_prompts_have_answers_those_come_first():
    prompts = make_prompts(("a", None, 9), ("a", "1", 3))
    assert set_aside(prompts, prompts_per_category=2) == (10, {"a": (2, 0, 0)})
    assert set_aside(prompts * 2, prompts_per_category=8) == (18, {"a": (6, 0, 0)})
    mixed = make_prompts(("a", None, 11), ("a", "1", 1))
    assert set_aside(mixed) == (9, {"a": (1, 2, 0)})


def test_labels_from_pairs_set_no_prompt_aside_and_may_come_without_categories(tmp_path):
    prompts = make_prompts(("a", "1", 8))
    assert set_aside(prompts, labels="pairs", pairs=write_pairs(tmp_path, "a", "a")) == (8, {"a": (0, 0, 2)})
    assert set_aside(prompts, labels="pairs", pairs=write_pairs(tmp_path, None)) == (8, {"a": (0, 0, 1)})


@pytest.mark.parametrize(
    ("categories", "sentence"),
    [
        (["x", "y"], "the pairs in .* are of 'x', 'y', and the training prompts of 'a', 'b'; give pairs with the"),
        ([None], "the pairs in .* have no category, and the training prompts have 'a', 'b'; add a field 'category'"),
        (["a"], "has no pairs of category 'b', which training prompts have; add some, or set signal.labels = 'auto'"),
    ],
)
def test_pairs_of_another_task_or_without_categories_are_refused(categories, sentence, tmp_path):
    prompts = make_prompts(("a", "1", 8), ("b", "1", 8))
    with pytest.raises(DataError, match=sentence):
        set_aside(prompts, labels="pairs", pairs=write_pairs(tmp_path, *categories))


def test_pairs_of_categories_that_no_prompt_has_are_left_out_with_a_warning(tmp_path):
    prompts = make_prompts(("a", None, 8), ("0", None, 8))
    pairs = write_pairs(tmp_path, "a", "z", None, "A", 0, 0)
    with pytest.warns(DataWarning, match=r"^3 pairs in .* are of 'z', 'default', 'A' and left out, because the trai"):
        assert set_aside(prompts, labels="pairs", pairs=pairs) == (16, {"a": (0, 0, 1), "0": (0, 0, 2)})


def test_a_pair_that_the_file_repeats_counts_once_with_a_warning(tmp_path):
    pairs = Path(write_pairs(tmp_path, "a", "a", "a"))
    rows = pairs.read_text()
    pairs.write_text(rows + rows.replace("q2", "another question"))
    with pytest.warns(DataWarning, match=r"^2 pairs in .* repeat others and count once; remove them$"):
        assert set_aside(make_prompts(("a", None, 8)), labels="pairs", pairs=str(pairs)) == (8, {"a": (0, 0, 4)})


def test_a_pair_of_two_equal_responses_is_refused(tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "q", "chosen": "same", "rejected": "same"}\n')
    with pytest.raises(DataError, match=r"two responses of pair 1 are the same text; remove the row"):
        set_aside(make_prompts(("a", None, 8)), labels="pairs", pairs=str(tmp_path / "pairs.jsonl"))


@pytest.mark.parametrize(
    ("signal", "sentence"),
    [
        ({"labels": "pairs"}, "signal.labels = 'pairs' needs a file of labeled pairs; set signal.pairs"),
        ({"labels": "gold", "pairs": "p.jsonl"}, "signal.pairs has no effect; set signal.labels = 'pairs' or 'auto'"),
        ({"labels": "consensus", "num_responses": 1}, "and signal.num_responses is 1; raise it to 8"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(signal, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        make_config(**signal)


def test_one_response_to_a_prompt_without_a_gold_answer_is_refused():
    assert set_aside(make_prompts(("a", "1", 8)), num_responses=1) == (6, {"a": (2, 0, 0)})
    with pytest.raises(ConfigError, match=r"prompts without gold answers, and signal.num_responses is 1; raise it to"):
        set_aside(make_prompts(("a", None, 8)), num_responses=1)


def test_a_probe_larger_than_the_split_is_refused():
    prompts = make_prompts(("a", "1", 12), ("b", "1", 8))
    assert set_aside(prompts, prompts_per_category=12)[0] == 15, "at most a quarter"
    with pytest.raises(DataError, match=r"is 13, and the largest category has 12 training prompts, .* lower it to 3"):
        set_aside(prompts, prompts_per_category=13)
    with pytest.raises(DataError, match=r"of 2 none is left to train on; give more prompts, or set signal.type = 'n"):
        set_aside(make_prompts(("a", "1", 1), ("b", "1", 1)))


def test_gold_labels_without_gold_answers_are_refused():
    with pytest.raises(DataError, match=r"no training prompt has a gold answer; set data.answer_field to the field"):
        set_aside(make_prompts(("a", None, 8)), labels="gold")

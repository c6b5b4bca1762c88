"""Offline labeling and benchmarks of reward models, on tiny real models."""

import json

import datasets
import numpy as np
import pytest
from trl import DPOConfig, DPOTrainer

from laser.commands.label import label
from laser.commands.rewardbench import LENGTH, SELECTED, _taught, rewardbench
from laser.config import parse_config
from laser.core.errors import ConfigError, DataError, RewardModelError, RunDirectoryError
from laser.data.preferences import load_candidates
from runs import make_table
from tiny import make_tokenizer


@pytest.fixture
def config(tmp_path):
    return parse_config({**make_table(tmp_path, "vowels", "short", split={"train": 6, "dev": 0}), "seed": 6})


def rows(folder):
    return [json.loads(line) for path in sorted(folder.glob("part-*")) for line in path.read_text().splitlines()]


def test_a_data_set_in_the_standard_format(config, tmp_path):
    report = label(config, tmp_path / "pairs")
    written = rows(tmp_path / "pairs")
    assert report.num_pairs == len(written) > 0
    assert report.num_prompts == len({row["prompt_id"] for row in written}) > 2
    assert sum(report.chosen.values()) == len(written)
    for row in written:
        assert row["prompt"][-1]["role"] == "user"
        assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"
        assert row["chosen_score"] > row["rejected_score"]
        assert 0 < row["probability"] <= 1
        assert row["reward_model"] in ("likelihood", "vowels", "short")


@pytest.mark.slow
def test_an_interrupted_job_continues_to_the_same_rows(config, tmp_path, monkeypatch):
    monkeypatch.setattr("laser.commands.label_files.PART_PROMPTS", 2)
    label(config, tmp_path / "whole")
    label(config, tmp_path / "again")
    sorted((tmp_path / "again").glob("part-*.jsonl"))[-1].unlink()
    before = (tmp_path / "again" / "part-000000.jsonl").stat().st_mtime_ns
    label(config, tmp_path / "again")
    assert rows(tmp_path / "again") == rows(tmp_path / "whole")
    assert (tmp_path / "again" / "part-000000.jsonl").stat().st_mtime_ns == before


@pytest.mark.slow
def test_an_interrupted_job_with_a_scaled_ensemble_continues_to_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("laser.commands.label_files.PART_PROMPTS", 2)
    ensemble = {"selector": {"type": "ensemble"}, "split": {"train": 8, "dev": 0}}
    table = make_table(tmp_path, "vowels", "short", **ensemble)
    table["rewards"]["combine"] = "scaled"
    config = parse_config(table)
    label(config, tmp_path / "whole")
    label(config, tmp_path / "again")
    last = sorted((tmp_path / "again").glob(".part-??????.json"))[-1]
    last.unlink()
    label(config, tmp_path / "again")
    assert rows(tmp_path / "again") == rows(tmp_path / "whole")


def test_another_configuration_or_folder_is_refused(config, tmp_path):
    label(config, tmp_path / "pairs")
    with pytest.raises(ConfigError, match="another configuration"):
        label(config.model_copy(update={"seed": 9}), tmp_path / "pairs")
    with pytest.raises(ConfigError, match="format"):
        label(config, tmp_path / "pairs", format="parquet")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(RunDirectoryError, match="not empty"):
        label(config, tmp_path / "mine")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_trl_trains_on_it_directly(config, tmp_path, format):
    report = label(config, tmp_path / "pairs", format=format)
    builder = {"jsonl": "json"}.get(format, format)
    files = sorted(str(path) for path in (tmp_path / "pairs").glob("part-*"))
    data = datasets.load_dataset(builder, data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(data) == report.num_pairs
    options = DPOConfig(
        output_dir=str(tmp_path / "trl"), max_steps=2, per_device_train_batch_size=2, use_cpu=True, report_to=[],
        save_strategy="no", bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    model = str(tmp_path / "base")
    output = DPOTrainer(model=model, args=options, train_dataset=data, processing_class=make_tokenizer()).train()
    assert np.isclose(output.metrics["train_loss"], np.log(2), atol=0.2)


def write_pairs(path):
    pairs = [
        {"prompt": "q1", "chosen": "aeiou", "rejected": "bcdfghjk", "category": "vowels"},
        {"prompt": "q2", "chosen": "aa", "rejected": "bbb", "category": "vowels"},
        {"prompt": "q3", "chosen": "bcdfghjkl", "rejected": "ae", "category": "length"},
        {"prompt": "q4", "chosen": "bbbb", "rejected": "c", "category": "length"},
    ]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


def test_accuracy_by_category_and_agreement(config, tmp_path):
    result = rewardbench(config, [write_pairs(tmp_path / "pairs.jsonl")], select=True)
    assert result.num_pairs == 4
    assert result.counts == {"length": 2, "vowels": 2}
    assert result.by_category["vowels"] == {"vowels": 1.0, "length": 0.0}
    assert result.by_category["short"] == {"vowels": 1.0, "length": 0.0}
    assert result.by_category[LENGTH] == {"vowels": 0.0, "length": 1.0}
    assert result.agreement["vowels"]["short"] == 1.0
    assert result.agreement["vowels"]["likelihood"] == result.agreement["likelihood"]["vowels"]
    assert 0 <= result.accuracy[SELECTED] <= 1
    low, high = result.interval["vowels"]
    assert low < 0.5 < high


def test_a_reward_model_that_fails_is_left_out_and_named(tmp_path):
    table = make_table(tmp_path, "vowels", "silent")
    (tmp_path / "bad.py").write_text("def bad(prompts, responses):\n    raise RuntimeError('down')\n")
    bad = {"type": "function", "name": "bad", "function": f"{tmp_path}/bad.py:bad"}
    table["rewards"]["models"] = [bad, *table["rewards"]["models"]]
    result = rewardbench(parse_config(table), [write_pairs(tmp_path / "pairs.jsonl")])
    assert result.failed.keys() == {"bad"}
    assert result.unscored["silent"] == 8
    assert result.accuracy["silent"] == 0
    assert result.silent == ("silent",)
    assert result.too_long == {"likelihood": 0, "vowels": 0, "silent": 0}
    table["rewards"]["models"] = [bad]
    with pytest.raises(RewardModelError, match="no reward model could be used"):
        rewardbench(parse_config(table), [tmp_path / "pairs.jsonl"])
    (tmp_path / "half.jsonl").write_text('{"prompt": "q", "chosen": "a"}\n')
    with pytest.raises(DataError, match="no 'rejected' response"):
        rewardbench(parse_config(table), [tmp_path / "half.jsonl"])


def test_a_selector_that_learns_which_judge_to_ask(tmp_path):
    """Each kind of prompt has its own right judge; the selector finds both, on prompts it has not seen."""
    words = {"vowels": "aeiou please", "length": "0123456789 ?!"}
    pairs = []
    for row in range(120):
        category = ("vowels", "length")[row % 2]
        better, worse = ("aeiou", "bcdfghjk") if category == "vowels" else ("bcdfghjkl", "aei")
        pairs.append({"prompt": f"{words[category]} {row}", "chosen": better, "rejected": worse, "category": category})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (tmp_path / "judges.py").write_text(
        "def vowels(prompts, responses):\n    return [sum(c in 'aeiou' for c in r) / len(r) for r in responses]\n"
        "def longer(prompts, responses):\n    return [len(r) for r in responses]\n"
    )
    table = make_table(tmp_path, context={"normalization": "unit"}, selector={"type": "linucb", "ridge": 0.05})
    table["rewards"]["models"] = [
        {"type": "function", "name": name, "function": f"{tmp_path}/judges.py:{name}"} for name in ("vowels", "longer")
    ]
    config = parse_config(table)
    result = rewardbench(config, [tmp_path / "pairs.jsonl"], learn=0.5)
    assert result.num_pairs == 60
    assert result.accuracy["vowels"] == result.counts["vowels"] / 60
    assert result.accuracy[SELECTED] > 0.9 > max(result.accuracy["vowels"], result.accuracy["longer"])
    assert result.chosen["vowels"]["vowels"] > 0.9
    with pytest.raises(ConfigError, match="--learn is 1"):
        rewardbench(parse_config(table), [tmp_path / "pairs.jsonl"], learn=1.0)
    assert result.agreement["vowels"]["longer"] < 0.1
    taught_N = _taught(load_candidates(tmp_path / "pairs.jsonl"), 0.5, config.seed)
    alike = [
        pair if taught else pair | {"chosen": "aeiou", "rejected": "b"}
        for pair, taught in zip(pairs, taught_N, strict=True)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in alike))
    again = rewardbench(config, [tmp_path / "pairs.jsonl"], learn=0.5)
    assert again.agreement["vowels"]["longer"] == 1, "on the pairs that are measured, as all else"


def test_responses_of_a_prompt_are_scored_once(tmp_path):
    """Two pairs over three responses to one prompt: three responses asked about, not four."""
    rows = [{"prompt": "q", "chosen": "aa", "rejected": one} for one in ("b", "cc")]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "counted.py").write_text(
        f"def count(prompts, responses):\n    open({str(tmp_path / 'asked')!r}, 'a').write('x' * len(responses))\n"
        "    return [len(r) for r in responses]\n"
    )
    table = make_table(tmp_path)
    table["rewards"]["models"] = [{"type": "function", "name": "c", "function": f"{tmp_path}/counted.py:count"}]
    result = rewardbench(parse_config(table), [tmp_path / "pairs.jsonl"])
    assert (tmp_path / "asked").read_text() == "xxx"
    assert result.accuracy["c"] == 0.75


def bench_of(tmp_path, rows, function):
    """`laser rewardbench` of one reward function on rows."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "judge.py").write_text(f"def judge(prompts, responses):\n    return [{function} for r in responses]\n")
    table = make_table(tmp_path)
    table["rewards"]["models"] = [{"type": "function", "name": "judge", "function": f"{tmp_path}/judge.py:judge"}]
    return rewardbench(parse_config(table), [path])


def test_rewardbench_2_is_scored_by_its_own_rules(tmp_path):
    """Best of 4: right, wrong, one of two best. Ties: 0.3 of the tied prompt's accuracy, 0.3 of its reference's, 0.2
    each for a spread of 1 below distances of 3 and of min(3, 2); the margin is tanh(min(3, 2) / 1 - 1) / 100."""
    rows = [
        {"id": "1", "prompt": "a", "chosen": ["4"], "rejected": ["1", "2", "3"], "subset": "Math"},
        {"id": "2", "prompt": "b", "chosen": ["1"], "rejected": ["4", "2", "3"], "subset": "Math"},
        {"id": "3", "prompt": "c", "chosen": ["4"], "rejected": ["4", "2", "3"], "subset": "Focus"},
        {"id": "ref:0", "prompt": "d", "chosen": ["7"], "rejected": ["5", "1"], "subset": "Ties"},
        {"id": "tied:0", "prompt": "e", "chosen": ["8", "9"], "rejected": ["5", "1"], "subset": "Ties"},
    ]
    result = bench_of(tmp_path, rows, "float(r)")
    ties = 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * np.tanh(1)
    assert result.by_category["judge"] == pytest.approx({"Math": 0.5, "Focus": 0.5, "Ties": ties})
    assert result.score["judge"] == pytest.approx((0.5 + 0.5 + ties) / 3)
    assert result.accuracy["judge"] == pytest.approx((1 + 0 + 0.5 + 1 + 1) / 5)
    assert (result.num_pairs, result.candidates) == (5, 4)
    assert result.chance == 0.25
    assert result.as_rewardbench("judge", "function") == pytest.approx(
        {
            "model": "judge",
            "model_type": "function",
            "chat_template": "tokenizer",
            "Math": 0.5,
            "Focus": 0.5,
            "Ties": ties,
        }
    )
    with pytest.raises(DataError, match="the subset Ties has the id '9', not ref:N or tied:N"):
        bench_of(tmp_path, [{**rows[-1], "id": "9"}], "float(r)")


def test_ties_count_half_and_in_rewardbench_s_own_format_nothing(tmp_path):
    rows = [{"prompt": f"q{row}", "chosen": "aa", "rejected": "b" * row, "subset": "hep-cpp"} for row in (1, 2, 3, 4)]
    result = bench_of(tmp_path, rows, "len(r)")
    assert result.accuracy["judge"] == (1 + 0.5) / 4
    assert result.counts == {"Reasoning": 4}
    assert result.by_subset["judge"] == {"hep-cpp": 0.25}
    assert result.score == {}


def test_agreement_leaves_ties_out(tmp_path):
    """One model ties where the others differ: only the pair that both order counts."""
    rows = [{"prompt": f"q{row}", "chosen": "aa", "rejected": "b" * (row + 1), "kind": row} for row in range(3)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "judges.py").write_text(
        "def longer(prompts, responses):\n    return [len(r) for r in responses]\n"
        "def shorter_first(prompts, responses):\n"
        "    return [len(r) if p.metadata['kind'] == 0 else -len(r) for p, r in zip(prompts, responses)]\n"
        "def coarse(prompts, responses):\n    return [len(r) // 2 for r in responses]\n"
    )
    names = ("longer", "shorter_first", "coarse")
    table = make_table(tmp_path)
    table["rewards"]["models"] = [
        {"type": "function", "name": name, "function": f"{tmp_path}/judges.py:{name}"} for name in names
    ]
    agreement = rewardbench(parse_config(table), [path]).agreement
    assert agreement["longer"]["coarse"] == 1.0
    assert agreement["longer"]["shorter_first"] == pytest.approx(1 / 3)
    assert agreement["shorter_first"]["coarse"] == 1.0

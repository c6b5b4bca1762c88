"""The plan's figures against real models, and the summary of hand-written records."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM

from laser.analysis.summary import summarize
from laser.commands.plan import (
    ModelSize,
    batch_size,
    estimate_memory,
    measure_model,
    measure_reward_model,
    print_plan,
)
from laser.commands.plan_steps import steps_table
from laser.config import parse_config
from laser.core.errors import ConfigError, DataError, ModelError
from laser.policy.policy import Policy
from laser.training.costs import MACHINES, BatchSize, LmShape, Machine, PhaseCost, batch_costs
from laser.wiring import build_splits
from laser.wiring.probe import split_off_probe
from tiny import make_model, save_model


@pytest.fixture
def config(tmp_path):
    base = str(save_model(tmp_path / "base"))
    models = [{"type": "loglik", "name": "a", "model": base}, {"type": "function", "name": "f", "function": "x.py:f"}]
    return parse_config(
        {"policy": {"model": base, "lora": {"rank": 4}}, "data": {"type": "embedded"}, "rewards": {"models": models}}
    )


@pytest.mark.parametrize(("batching", "largest"), [("shuffled", 6), ("by_category", 3)])
def test_a_plan_has_no_more_prompts_in_a_batch_than_there_are(tmp_path, config, batching, largest):
    rows = [{"prompt": f"say {i}", "category": "ab"[i % 2]} for i in range(6)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {
        "data": {"type": "file", "train": str(tmp_path / "prompts.jsonl")},
        "split": {"train": 6, "dev": 0, "batching": batching},
        "training": {"batch_size": 50, "batches_per_iteration": 2},
    }
    config = parse_config({**config.model_dump(mode="json"), **changes})
    assert batch_size(config, build_splits(config)).prompts == largest


def test_sizes_are_those_of_the_loaded_model(config):
    size = measure_model(config.policy, AutoModelForCausalLM)
    count = sum(parameter.numel() for parameter in make_model().parameters())
    assert (size.num_parameters, size.num_bytes) == (count, 4 * count)
    assert measure_reward_model(config.rewards.models[1]).num_parameters == 0


def test_adapter_memory_is_that_of_the_real_adapters(config):
    from tiny import make_tokenizer

    policy = Policy(make_model(), make_tokenizer(), lora_rank=4)
    adapter = sum(parameter.numel() for parameter in policy.trainable_parameters())
    estimate = estimate_memory(config, measure_model(config.policy, AutoModelForCausalLM), [])
    assert estimate.adapters == 5 * 4 * adapter


def test_only_the_largest_resident_reward_models_count(config):
    sizes = [ModelSize(1, 10), ModelSize(1, 30), ModelSize(1, 20)]
    policy = ModelSize(1, 1)
    assert estimate_memory(config, policy, sizes).rewards == 30
    two = config.model_copy(update={"rewards": config.rewards.model_copy(update={"max_resident": 2})})
    assert estimate_memory(two, policy, sizes).rewards == 50


def step(names, rewards, categories, **changed):
    record = {
        "selection": {
            "weights": [[float(name == one) for one in ("a", "b", "c")] for name in names],
            "charged": names,
            "categories": categories,
        },
        "scored": {"a": 2, "b": 1},
        "bandit_rewards": rewards,
        "dropped": {"ties": 1},
        "pairs": 3,
        "tokens": {"sampled": 10},
        "seconds": {"train": 0.5},
    }
    return {**record, **changed}


def test_summary_counts_prompts_by_category_and_averages_bandit_rewards():
    steps = [
        step(["a"], [0.5], [{"x": 2, "y": 1}]),
        step(["a", "b"], [1.0, 0.0], [{"x": 1}, {"y": 1}]),
        step(["b"], [None], [{"y": 4}]),
    ]
    evaluations = [
        {"accuracy": 0.4, "by_category": {"x": 0.3, "y": 0.5}, "num_prompts": 20},
        {"accuracy": 0.6, "by_category": {"x": 0.7, "y": 0.5}, "num_prompts": 20},
    ]
    summary = summarize(steps, evaluations, ["a", "b", "c"])
    assert summary.utilization == {"x": {"a": 3, "b": 0, "c": 0}, "y": {"a": 1, "b": 5, "c": 0}}
    assert summary.bandit_rewards == {"a": 0.75, "b": 0.0}
    assert (summary.metric_before, summary.metric_after, summary.num_evaluated) == (0.4, 0.6, 20)
    assert summary.metric_by_category == {"x": (0.3, 0.7), "y": (0.5, 0.5)}
    assert (summary.num_pairs, summary.dropped, summary.tokens) == (9, {"ties": 3}, {"sampled": 30})
    assert summary.scored == {"a": 6, "b": 3}
    ensemble = step([], [], [{"x": 4}])
    ensemble["selection"]["weights"] = [[0.5, 0.25, 0.25]]
    assert summarize([ensemble], [], ["a", "b", "c"]).utilization == {"x": {"a": 2, "b": 1, "c": 1}}
    empty = summarize([], [], ["a"])
    assert (empty.metric_before, empty.num_batches) == (None, 0)


SIZE = BatchSize(prompts=2, responses=4, pairs=3, prompt_tokens=10, response_tokens=5)
STARTED = (0.0, 0.0, 0.0)  # nothing takes time to start
LM = LmShape(linear=1000, head=200, layers=2, width=16, kv_width=8, bytes_each=4)


def test_the_expected_number_of_needed_responses_is_that_of_drawn_pairs():
    from laser.core.seeding import stream
    from laser.core.types import Response
    from laser.training.pairs import draw_pairs

    replies = [[Response((row, 1), f"text {row}", (0.0, 0.0), True) for row in range(8)]]
    size = BatchSize(prompts=1, responses=8, pairs=5, prompt_tokens=1, response_tokens=1)
    drawn = [len(draw_pairs(replies, 5, [stream(seed, "pairs")]).needed()[0]) for seed in range(2000)]
    assert sum(drawn) / len(drawn) == pytest.approx(size.needed, abs=0.1)
    assert BatchSize(1, 4, 6, 1, 1).needed == 4


def test_an_agreement_ensemble_scores_the_responses_of_all_candidate_pairs(tmp_path, config):
    """2 of 28 pairs per prompt are trained on, but 28 candidates need every response scored."""
    changes = {
        "generation": {"num_responses": 8},
        "training": {"pairs_per_prompt": 2},
        "selector": {"type": "ensemble"},
    }
    table = config.model_dump(mode="json") | changes
    models = table["rewards"]["models"]
    raw, agreeing = (
        parse_config({**table, "rewards": {"models": models, "combine": combine, "candidate_pairs": 28}})
        for combine in ("raw", "agreement")
    )
    few, all_of_them = (batch_size(one, build_splits(one)) for one in (raw, agreeing))
    assert few.scored == few.needed == all_of_them.needed < all_of_them.scored == 8
    one, other = (batch_costs(LM, LM, size) for size in (few, all_of_them))
    assert one["train"] == other["train"]
    assert one["score"].flops < other["score"].flops


def test_a_matrix_only_model_costs_two_operations_per_weight_and_token():
    """Without attention and head: 2 W per token forward, 4 W trained, prompts computed once."""
    lm = LmShape(linear=1000, head=0, layers=1, width=0, kv_width=0, bytes_each=4)
    size = BatchSize(prompts=3, responses=2, pairs=1, prompt_tokens=10, response_tokens=5)
    costs = batch_costs(lm, lm, size)
    tokens = 3 * (10 + 2 * 4)  # the last token of a response predicts nothing
    assert costs["score"].flops == costs["reference"].flops == 2 * 1000 * tokens
    assert costs["train"].flops == 4 * 1000 * tokens
    assert costs["embed"].flops == 2 * 1000 * 30
    assert costs["sample"].flops == 2 * 1000 * (30 + 3 * 2 * 5)


def test_an_ensemble_costs_as_many_scorings_as_it_has_reward_models():
    one, four = (batch_costs(LM, LM, BatchSize(2, 4, 3, 10, 5, asked=asked))["score"] for asked in (1, 4))
    assert four.flops == 4 * one.flops
    assert four.seconds(MACHINES["h100-80gb"]) == pytest.approx(4 * one.seconds(MACHINES["h100-80gb"]))
    assert "reference" not in batch_costs(LM, LM, BatchSize(2, 4, 3, 10, 5, needs_reference=False))


def test_small_decoding_is_bound_by_memory_and_large_passes_by_arithmetic():
    slow_memory, slow_arithmetic = Machine("a", 1e15, 1e3, *STARTED), Machine("b", 1e3, 1e15, *STARTED)
    sample = batch_costs(LM, LM, SIZE)["sample"]
    assert sample.seconds(slow_memory) == pytest.approx(sample.num_bytes / 1e3)
    assert sample.seconds(slow_arithmetic) == pytest.approx(sample.flops / (sample.share * 1e3))


def test_steps_that_are_replayed_start_faster_unless_their_layers_come_from_elsewhere():
    cost = PhaseCost(flops=0.0, num_bytes=0.0, passes=3, layers=2, share=0.5, steps=5, trained=1)
    machine = Machine("a", 1e15, 1e15, overhead=1.0, step_overhead=0.1, train_overhead=3.0)
    assert cost.seconds(machine) == pytest.approx(2 * (3 + 0.5 + 3))
    assert cost.seconds(machine, 1e3) == pytest.approx(2 * (8 + 3))


def test_responses_share_the_keys_of_their_prompt():
    """A step reads 4 prompts of 100 tokens once, and half of 5 tokens of each of 40 responses on average."""
    lm = LmShape(linear=0, head=0, layers=1, width=0, kv_width=1, bytes_each=1)
    cost = batch_costs(lm, lm, BatchSize(prompts=4, responses=10, pairs=3, prompt_tokens=100, response_tokens=5))
    assert cost["sample"].num_bytes == 5 * (4 * 100 + 40 * 2.5)


def test_a_known_batch_needs_no_more_than_the_budgets(config):
    policy = measure_model(config.policy, AutoModelForCausalLM)
    known = estimate_memory(config, policy, [], SIZE)
    budgets = estimate_memory(config, policy, [])
    assert known.activations < budgets.activations
    assert known.generation < budgets.generation
    assert (known.policy, known.adapters) == (budgets.policy, budgets.adapters)


def test_sharded_layers_are_divided_among_devices_and_arrive_over_their_links(config):
    """4 devices: a quarter of the layers, three layers whole, embeddings and head."""
    whole = measure_model(config.policy, AutoModelForCausalLM)
    sharded = measure_model(config.policy.model_copy(update={"shard": True}), AutoModelForCausalLM)
    rest = 4 * (2 * 99 * 32 + 32)
    assert (whole.sharded_bytes, sharded.sharded_bytes) == (0, sharded.num_bytes - rest)
    assert whole.bytes_on_each(4) == whole.num_bytes == sharded.bytes_on_each(1)
    assert sharded.bytes_on_each(4) == rest + sharded.sharded_bytes // 4 + 3 * sharded.sharded_bytes // 2
    assert estimate_memory(config, sharded, [], devices=4).policy == sharded.bytes_on_each(4)
    cost = PhaseCost(flops=1e6, num_bytes=1.0, passes=1, layers=2, share=0.5, steps=5, trained=1)
    fast, slow = (Machine("a", 1e6, 1e9, *STARTED, link=link) for link in (1e12, 1e3))
    assert cost.seconds(fast, 3e3) == cost.seconds(slow) == pytest.approx(1e6 / 0.5e6)
    assert cost.seconds(slow, 3e3) == pytest.approx(8 * 3e3 / (0.8 * 1e3))


def test_a_plan_counts_what_a_probe_samples_and_what_scoring_it_costs(tmp_path, config):
    rows = [{"prompt": f"say {i}", "category": "ab"[i % 2], "answer": "1"} for i in range(40)]
    pairs = [
        {"prompt": f"say {number}", "chosen": "1", "rejected": "2", "category": name}
        for number, name in enumerate("abab")
    ]
    for name, content in (("prompts", rows), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    data = {"type": "file", "train": str(tmp_path / "prompts.jsonl")}
    table = config.model_dump(mode="json") | {"data": data, "split": {"dev": 0}}
    for model, cost in zip(table["rewards"]["models"], (1.0, 2.0), strict=True):
        model["cost"] = cost

    def planned(**signal):
        changed = parse_config(table | {"signal": {"type": "probe", **signal}, "training": {"iterations": 3}})
        written = StringIO()
        Console(file=written, width=120).print(
            steps_table(changed, *split_off_probe(build_splits(changed), changed.signal, changed.data))
        )
        lines = [[cell.strip() for cell in line.split("│")] for line in written.getvalue().splitlines()]
        return {line[1]: line[2] for line in lines if len(line) > 2}

    found = planned(refresh=1)
    assert found["probe: prompts / labeled pairs"] == "10 / 0", "a quarter of each category"
    assert found["probe: responses sampled, at most"] == str(3 * 10 * 8), "before each iteration"
    assert found["probe: scored by each RM, at most"] == str(3 * 10 * 9), "eight wrong ones and the gold answer"
    assert found["probe: cost, at most"] == str(3 * 10 * 9 * (1 + 2))
    assert planned(refresh=2)["probe: responses sampled, at most"] == str(2 * 10 * 8)
    assert planned(refresh=0)["probe: responses sampled, at most"] == str(10 * 8)
    found = planned(labels="pairs", pairs=str(tmp_path / "pairs.jsonl"))
    assert found["probe: prompts / labeled pairs"] == "0 / 4"
    assert found["probe: responses sampled, at most"] == "0"
    assert found["probe: cost, at most"] == str(8 * (1 + 2))


def test_a_plan_refuses_the_pairs_that_a_run_would_refuse(tmp_path, config):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "q", "chosen": "1", "rejected": "2", "category": "elsewhere"}\n')
    signal = {"type": "probe", "labels": "pairs", "pairs": str(tmp_path / "pairs.jsonl")}
    table = config.model_dump(mode="json") | {"signal": signal}
    with pytest.raises(DataError, match="are of 'elsewhere', and the training prompts of"):
        print_plan(parse_config(table), Console(file=StringIO()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["8b", "70b"])
def test_the_shipped_sizes_are_planned_without_weights(name):
    from laser.config import load_config

    root = Path(__file__).parents[1] / "configs" / "sizing"
    written = StringIO()
    config = load_config(root / f"{name}.toml")
    print_plan(config, Console(file=written, width=120), "h100-80gb", 8)
    assert "8 x h100-80gb" in written.getvalue()
    assert ("more than h100-80gb has" in written.getvalue()) == (name == "70b")
    size = measure_model(config.policy, AutoModelForCausalLM, needs_weights=False)
    assert size.num_parameters == {"8b": 8_030_261_248, "70b": 70_553_706_496}[name]
    with pytest.raises(ModelError, match="has no weights"):
        measure_model(config.policy, AutoModelForCausalLM)
    with pytest.raises(ConfigError, match="'tpu' is not a known machine"):
        print_plan(config, Console(file=written), "tpu")

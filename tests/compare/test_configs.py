"""The suites that ship: all of them are valid, and ask for what the paper and the laboratory ask."""

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from laser.cli.compare import _print_plan, compare
from laser.compare.cells import make_cells
from laser.compare.lab.build import POOLS
from laser.compare.lab.methods import METHODS, method_config
from laser.config import load_config, parse_config
from laser.config.judge import load_judge
from laser.config.suite import load_suite

CONFIGS = Path(__file__).parents[2] / "configs"
SUITES = sorted([*CONFIGS.glob("paper/*.toml"), *CONFIGS.glob("lab/*.toml")])
RUNS = sorted(path for path in CONFIGS.glob("*/base/*.toml") if path.name != "judge.toml")
PAPER = ("table", "figure")


def cells_of(path, tmp_path, *overrides):
    return make_cells(load_suite(path, ["seeds=1", *overrides]), tmp_path / "out")


def test_there_is_a_suite_for_every_table_and_study_of_the_paper():
    names = {path.stem for path in SUITES if path.stem.startswith(PAPER)}
    assert names >= {f"table-{number:02d}" for number in (1, 2, *range(4, 16))}
    assert names >= {f"figure-{number:02d}" for number in (2, 10, 11, 12, 13)}
    assert len(SUITES) - len(names) >= 6
    assert len(RUNS) >= 3


@pytest.mark.parametrize("path", SUITES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_suite_is_valid_and_shows_a_plan_without_its_models(path, tmp_path):
    cells = cells_of(path, tmp_path)
    assert cells
    console = Console(file=io.StringIO(), width=200)
    _print_plan(cells, tmp_path, console)
    assert f"{len(cells)} cells, at most" in console.file.getvalue()
    assert "missing" in console.file.getvalue()


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_base_is_a_run_of_its_own(path):
    assert load_config(path).rewards.models


def test_the_command_lists_cells_and_leaves_no_trace(tmp_path, capsys):
    path = CONFIGS / "paper" / "table-04.toml"
    compare(path, out=tmp_path / "out", only=["seed=3"], dry_run=True)
    shown = capsys.readouterr().out
    assert "9 cells, at most 37,200 batches" in " ".join(shown.split())  # 10 iterations of 122 + 422 + 696, thrice
    assert not (tmp_path / "out").exists()


def test_the_reasoning_runs_have_the_papers_settings(tmp_path):
    """Sec. 4.1 and A.1, and Table 3."""
    cells = {cell.key.method: cell.config for cell in cells_of(CONFIGS / "paper" / "table-01.toml", tmp_path)}
    laser, training = cells["laser"], cells["laser"].training
    assert laser.policy.model == "meta-llama/Meta-Llama-3-8B"
    assert [model.model for model in laser.rewards.models] == [
        "HuggingFaceH4/zephyr-7b-alpha",
        "Qwen/Qwen1.5-7B-Chat",
        "openbmb/Eurus-7b-kto",
        "allenai/OLMo-7B-Instruct-hf",
    ]
    assert (laser.generation.num_responses, laser.generation.temperature, training.pairs_per_prompt) == (30, 0.8, 10)
    assert (training.batch_size, training.learning_rate, training.loss) == (16, 5e-6, "nll+dpo")
    assert (laser.policy.lora.rank, laser.policy.lora.alpha, training.convergence_threshold) == (16, 32, 0.1)
    assert (laser.split.train, laser.split.dev, laser.split.test) == (11135, 1591, 3182)
    iterations = {name: config.training.iterations for name, config in cells.items()}
    assert {name for name, count in iterations.items() if count == 25} == {"random", "sequential"}
    assert {count for name, count in iterations.items() if name not in ("random", "sequential")} == {10}
    assert cells["agreement-ensemble"].generation.num_responses == 32
    assert (cells["best-rm"].selector.arm, cells["score-ensemble"].selector.type) == ("zephyr", "ensemble")


def test_other_suites_ask_for_what_they_are_about(tmp_path):
    def of(name, method):
        return [cell for cell in cells_of(CONFIGS / "paper" / f"{name}.toml", tmp_path) if cell.key.method == method]

    assert [len(cell.config.rewards.models) for cell in of("figure-11", "laser")][::3] == [4, 5, 6, 7, 8]
    noise = [{model.noise for model in cell.config.rewards.models} for cell in of("figure-12", "exp3")]
    assert noise == [{0.0}, {0.1}, {0.2}, {0.3}, {0.4}]
    assert [len(cell.config.rewards.models) for cell in of("figure-13", "laser")] == [4, 5, 6, 7, 8]
    assert {cell.config.training.loss for cell in of("table-13", "sequential")} == {"nll", "dpo", "kto", "nll+dpo"}
    assert {cell.config.training.loss for cell in of("table-13", "laser-acc")} == {"nll+dpo"}
    cold = of("table-05", "cs-laser")[0]
    assert cold.needs[0].task == "wildchat"
    wildchat = next(cell.config for cell in of("table-05", "laser") if cell.key.task == "wildchat")
    assert (wildchat.training.loss, wildchat.split.batching, wildchat.split.train) == ("dpo", "by_category", 17500)
    csqa, mathematics = of("table-14", "laser")
    assert csqa.config.data.train.endswith("data/strategyqa-mmlu.jsonl")
    assert (csqa.measurement.config.data.name, csqa.measurement.config.split.test) == ("commonsenseqa", 1221)
    assert (mathematics.config.data.name, mathematics.measurement.config.data.name) == ("gsm8k", "math")
    for name in ("table-10", "table-14-mistral", "table-15-mistral", "figure-10"):
        assert {cell.config.policy.model for cell in of(name, "laser")} == {"mistralai/Mistral-7B-Instruct-v0.3"}
    assert {cell.config.policy.model for cell in of("table-12", "laser")} == {"Qwen/Qwen2.5-32B"}
    tasks = {cell.key.task: cell.config.evaluation.metric for cell in of("table-02", "best-of-n")}
    assert tasks == {"single-doc-qa": "f1", "multi-doc-qa": "f1", "summarization": "rouge_l", "few-shot": "f1"}


def test_no_key_is_in_a_config_and_the_judge_reads_one_from_the_environment():
    judge = load_judge(CONFIGS / "paper" / "base" / "judge.toml")
    assert (judge.model, judge.api_key_env) == ("gpt-4o", "OPENAI_API_KEY")
    assert not any("sk-" in path.read_text() for path in (*SUITES, *RUNS))


def plain(value):
    """A nested value whose paths are without ``..``."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return os.path.normpath(value) if isinstance(value, str) and value.startswith("/") else value


def test_the_suite_of_all_pools_is_the_laboratorys_own_list_of_methods(tmp_path):
    lab, out = CONFIGS.parent / "lab", tmp_path / "out"
    cells = {(c.key.task, c.key.method): c.config for c in cells_of(CONFIGS / "lab" / "pools.toml", tmp_path)}
    assert {method for _, method in cells} >= set(METHODS)
    for (pool, method), config in cells.items():
        wanted = parse_config(method_config(lab, pool, method, 0, runs=out))
        assert plain(json.loads(config.model_dump_json())) == plain(json.loads(wanted.model_dump_json())), (
            pool,
            method,
        )
    assert {pool for pool, _ in cells} == set(POOLS)

"""The suites that ship: all of them are valid, and ask for what the paper and the laboratory ask."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from laser.cli.compare import _print_plan, compare
from laser.compare.cells import make_cells
from laser.compare.lab.build import POOLS
from laser.config import load_config
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


@pytest.mark.slow
@pytest.mark.parametrize("path", SUITES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_suite_is_valid_and_shows_a_plan_without_its_models(path, tmp_path):
    cells = cells_of(path, tmp_path)
    assert cells
    console = Console(file=io.StringIO(), width=200)
    _print_plan(cells, tmp_path, console)
    assert f"{len(cells)} cells, at most" in console.file.getvalue()
    assert "missing" in console.file.getvalue()


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_base_is_a_complete_run(path):
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
    assert laser.policy.model.endswith("runs/sft/llama-3-8b/mmlu")  # which `laser sft` makes of the base's model
    assert load_config(CONFIGS / "paper" / "base" / "llama-3-8b.toml").policy.model == "meta-llama/Meta-Llama-3-8B"
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
    starts = {Path(cell.config.policy.model).name for cell in of("table-13", "sequential")}
    assert starts == {"strategyqa", "gsm8k", "mmlu"}
    cold = of("table-05", "cs-laser")[0]
    assert Path(cold.config.policy.model).parts[-3:] == ("sft", "llama-3-8b", cold.key.task)
    assert cold.needs[0].task == "wildchat"
    wildchat = next(cell.config for cell in of("table-05", "laser") if cell.key.task == "wildchat")
    assert (wildchat.training.loss, wildchat.split.batching, wildchat.split.train) == ("dpo", "by_category", 17500)
    assert wildchat.policy.model == "meta-llama/Meta-Llama-3-8B"
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


def lab_cells(tmp_path):
    cells = make_cells(load_suite(CONFIGS / "lab" / "studies.toml", ["seeds=[3]"]), tmp_path)
    return {(cell.key.task, cell.key.method): cell for cell in cells}


@pytest.mark.slow
def test_the_laboratory_has_every_method_on_every_pool_and_study(tmp_path):
    cells = lab_cells(tmp_path)
    tasks, methods = {task for task, _ in cells}, {method for _, method in cells}
    assert {task.partition("+")[0] for task in tasks} == set(POOLS)
    judged = {method for method in methods if ("mixed", method) not in cells}
    assert len(tasks) == 3 * 24
    assert judged == {method for method in methods if "judge" in method or "cost" in method}  # need a judge in the pool
    assert len(cells) == len(tasks) * len(methods - judged) + 2 * 3 * len(judged)
    configs = {task: cells[task, "laser"].config for task in tasks}
    assert all(len(configs[pool].rewards.models) == 4 for pool in POOLS)
    assert all(configs[task] != configs[task.partition("+")[0]] for task in tasks - set(POOLS))


def differing(one, other):
    """Fields in which two configurations differ, as dotted paths."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            yield from (f"{key}.{path}".rstrip(".") for path in differing(one.get(key), other.get(key)))
    elif one != other:
        yield ""


def changed(one, other):
    return set(differing(one.model_dump(mode="json"), other.model_dump(mode="json")))


@pytest.mark.slow
def test_studies_and_methods_of_the_laboratory_change_what_their_names_say(tmp_path):
    cells = lab_cells(tmp_path)

    def config(method, study=""):
        return cells[f"confident{study}", method].config

    laser, loss = config("laser"), config("laser-loss")
    assert changed(config("laser-post-update"), loss) == {"training.bandit_loss"}
    assert changed(config("laser-decrease"), loss) == {"training.bandit_loss"}
    assert changed(config("laser-per-prompt"), laser) == {"training.granularity", "split.batching"}
    assert [config(name).selector.type for name in ("ucb1", "epsilon-greedy")] == ["ucb1", "epsilon_greedy"]
    for study, field in (("longer", "batches_per_iteration"), ("loss-kto", "loss")):
        assert changed(config("laser", f"+{study}"), laser) == {f"training.{field}"}
    models = {study: config("laser", f"+{study}").rewards.models for study in ("noise-0.3", "units", "rms-8")}
    assert [model.noise for model in models["noise-0.3"]] == [0.3] * 4
    assert [model.factor for model in models["units"]] == [1, 1, 1, 100]
    joined = [(model.name, Path(model.model).name) for model in models["rms-8"][4:]]
    assert joined == [(f"confident-{name}",) * 2 for name in ("numbers", "reversal", "sorting", "mediocre")]
    tokens = config("laser", "+per-token").rewards.models
    assert [model.normalization for model in tokens] == ["per_token"] * 3 + ["sum"]
    (length,) = config("laser", "+length").rewards.models[4:]
    assert (length.name, Path(length.function).name) == ("length", "rewards.py:length")
    random = [config("laser", f"+{study}").rewards.models[4:] for study in ("random-2", "irrelevant-2")]
    assert [[model.factor for model in one] for one in random] == [[30, 30], [1, 1]]
    for study, corruption, count in (("irrelevant-2", "random", 2), ("inverted", "inverted", 1)):
        added = config("laser", f"+{study}").rewards.models[4:]
        assert [model.corruption for model in added] == [corruption] * count
        assert [Path(model.model).name for model in added] == ["confident-numbers", "confident-reversal"][:count]


@pytest.mark.slow
def test_the_judge_is_the_dearest_and_has_its_own_methods(tmp_path):
    cells = lab_cells(tmp_path)
    plain, priced, always = (cells["mixed+judge", name].config for name in ("laser", "laser-cost", "always-judge"))
    assert [model.cost for model in plain.rewards.models] == [1, 1, 1, 1, 10]
    assert changed(plain, priced) == {"selector.cost_weight"}
    assert (always.selector.arm, always.rewards) == ("judge", plain.rewards)


@pytest.mark.slow
def test_ensembles_of_the_laboratory_differ_in_how_they_combine(tmp_path):
    cells = lab_cells(tmp_path)
    kinds = ("zscore", "rank", "scaled", "variation")
    assert [cells["mixed", f"score-ensemble-{kind}"].config.rewards.combine for kind in kinds] == list(kinds)


@pytest.mark.slow
def test_the_laboratorys_studies_use_routers_and_selectors_of_the_plain_pool(tmp_path):
    cells = lab_cells(tmp_path)
    cold = cells["mixed+noise-0.4", "laser-cold-start"]
    assert [str(key) for key in cold.needs] == ["mixed laser seed 3"]
    assert cold.config.selector.run == str(cold.needs[0].folder(tmp_path))
    for method, field in (("classifier", "path"), ("bayesian-router", "prior")):
        path = getattr(cells["confident+units", method].config.selector, field)
        assert Path(path).name == f"router-confident-{method}"
    assert Path(cells["confident+inverted", "oracle"].config.selector.path).name == "oracle-confident"


def test_a_figure_of_the_laboratory_is_a_view_of_the_studies(tmp_path):
    suite = load_suite(CONFIGS / "lab" / "noise.toml")
    assert suite.shown_methods == ("random", "score-ensemble", "laser-loss", "laser")
    assert suite.shown_tasks == ("mixed", *(f"mixed+noise-{sigma}" for sigma in (0.1, 0.2, 0.3, 0.4)))
    cells = make_cells(suite, tmp_path)
    assert len(cells) == 4 * 5 * 5
    assert [{model.noise for model in cell.config.rewards.models} for cell in cells[:20:4]] == [
        {0.0},
        {0.1},
        {0.2},
        {0.3},
        {0.4},
    ]

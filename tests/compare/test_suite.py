"""From a suite's file to its cells: patches, references, order, and a sentence for every mistake."""

import json
import re
import tomllib
from pathlib import Path

import pytest

import laser
from laser.cli.compare import select_cells
from laser.compare.cells import Key, make_cells, with_needs
from laser.compare.cost import Cost, estimate_best_of_n, estimate_cost
from laser.config.patch import merged
from laser.config.suite import MethodConfig, SuiteConfig, TaskConfig, load_suite
from laser.core.errors import ConfigError
from suites import read_suite, toml, write_toml

MODELS = [{"type": "function", "name": name, "function": f"scores.py:{name}"} for name in ("good", "bad")]
BASE = {
    "policy": {"model": "org/policy"},
    "data": {"type": "embedded"},
    "split": {"train": 40, "dev": 8, "test": 8},
    "rewards": {"models": MODELS},
    "selector": {"type": "linucb", "alpha": 0.3},
    "training": {"iterations": 3, "batch_size": 16},
}
SUITE = {
    "seeds": [4, 7],
    "reference": "laser",
    "base": BASE,
    "methods": {"laser": {}, "random": {"selector": {"type": "random"}, "training": {"iterations": 25}}},
    "tasks": {"sums": {"data": {"categories": ["arithmetic"]}}, "words": {"data": {"categories": ["position"]}}},
}


def test_a_configuration_of_train_is_not_a_suite(tmp_path):
    (tmp_path / "run.toml").write_text('[policy]\nmodel = "org/policy"\n[data]\ntype = "embedded"\n')
    with pytest.raises(ConfigError, match=r"configuration of laser train, not a suite; .* base = 'run\.toml'"):
        load_suite(tmp_path / "run.toml")


def suite_with(folder, **changes):
    return read_suite(folder, {**SUITE, **changes})


def test_every_method_meets_every_task_and_seed(tmp_path):
    cells = make_cells(suite_with(tmp_path), tmp_path / "out")
    assert [cell.key for cell in cells] == [
        Key(task, method, seed) for seed in (4, 7) for task in ("sums", "words") for method in ("laser", "random")
    ]
    by_key = {cell.key: cell.config for cell in cells}
    one = by_key[Key("words", "random", 7)]
    assert (one.seed, one.data.categories, one.selector.type, one.training.iterations) == (
        7,
        ("position",),
        "random",
        25,
    )
    assert by_key[Key("sums", "laser", 4)].selector.alpha == 0.3
    assert one.rewards.models[0].function == f"{tmp_path}/scores.py:good"
    assert cells[0].key.folder(tmp_path) == tmp_path / "sums" / "laser" / "seed-4"


def test_a_number_of_seeds_counts_from_zero(tmp_path):
    assert suite_with(tmp_path, seeds=3).seeds == (0, 1, 2)


def test_patches_reach_reward_models_by_name():
    table = {"models": [{"name": "a", "noise": 0}, {"name": "b"}], "x": 1}
    assert merged(table, {"models": {"b": {"noise": 2}, "*": {"y": 3}, "c": {"type": "t"}}}) == {
        "models": [{"name": "a", "noise": 0, "y": 3}, {"name": "b", "noise": 2, "y": 3}, {"name": "c", "type": "t"}],
        "x": 1,
    }
    assert table["models"] == [{"name": "a", "noise": 0}, {"name": "b"}]
    with pytest.raises(ConfigError, match=r"there is no 'bb' \(did you mean 'b'\?\)"):
        merged(table, {"models": {"bb": {"noise": 2}}})


def test_a_section_of_another_type_replaces_the_old_one():
    assert merged({"s": {"type": "a", "x": 1}}, {"s": {"y": 2}}) == {"s": {"type": "a", "x": 1, "y": 2}}
    assert merged({"s": {"type": "a", "x": 1}}, {"s": {"type": "b"}}) == {"s": {"type": "b"}}


def test_a_suite_extends_another_and_starts_from_a_run_file(tmp_path):
    (tmp_path / "runs").mkdir()
    write_toml(tmp_path / "runs" / "run.toml", BASE)
    table = {**SUITE, "base": {"file": "runs/run.toml", "training": {"iterations": 5}}}
    write_toml(tmp_path / "first.toml", {**table, "name": "first", "title": "One"})
    (tmp_path / "second.toml").write_text(
        'extends = "first.toml"\n[base.policy]\nmodel = "org/other"\n[methods.third]\nselector = {type = "ucb1"}\n'
    )
    suite = load_suite(tmp_path / "second.toml", ["seeds=1", "base.training.batch_size=2"])
    assert (suite.name, suite.title, suite.seeds) == ("second", "One", (0,))
    assert list(suite.methods) == ["laser", "random", "third"]
    config = make_cells(suite, tmp_path)[0].config
    assert (config.policy.model, config.training.iterations, config.training.batch_size) == ("org/other", 5, 2)
    assert config.rewards.models[0].function == f"{tmp_path}/runs/scores.py:good"  # next to the file that names it
    (tmp_path / "first.toml").write_text('extends = "second.toml"\n')
    with pytest.raises(ConfigError, match="extends itself"):
        load_suite(tmp_path / "second.toml")


COLD = {"selector": {"type": "frozen", "run": "{run:laser}"}}


def test_a_cold_start_refers_to_the_run_of_the_same_task_and_seed(tmp_path):
    out = tmp_path / "out"
    cells = make_cells(suite_with(tmp_path, methods={"cold": COLD, "laser": {}}), out)
    cold = next(cell for cell in cells if cell.key == Key("words", "cold", 7))
    assert cold.config.selector.run == str(out / "words" / "laser" / "seed-7")
    assert cold.needs == (Key("words", "laser", 7),)
    assert [cell.key for cell in with_needs(cells, [cold])] == [Key("words", "cold", 7), Key("words", "laser", 7)]


def test_a_task_can_be_named_in_values(tmp_path):
    methods = {"laser": {}, "classifier": {"selector": {"type": "classifier", "path": "router-{task}"}}}
    cells = make_cells(suite_with(tmp_path, methods=methods, seeds=1), tmp_path / "out")
    paths = [cell.config.selector.path for cell in cells if cell.key.method == "classifier"]
    assert paths == [f"{tmp_path}/router-sums", f"{tmp_path}/router-words"]


def test_an_auxiliary_task_runs_only_what_is_needed_of_it(tmp_path):
    tasks = {**SUITE["tasks"], "chat": {"auxiliary": True, "split": {"dev": 0}}}
    methods = {"laser": {}, "cold": {"selector": {"type": "frozen", "run": "{run:laser@chat}"}}}
    suite = suite_with(tmp_path, tasks=tasks, methods=methods)
    keys = [cell.key for cell in make_cells(suite, tmp_path)]
    assert [key for key in keys if key.task == "chat"] == [Key("chat", "laser", 4), Key("chat", "laser", 7)]
    assert suite.shown_tasks == ("sums", "words")


def test_methods_may_be_for_some_tasks(tmp_path):
    suite = suite_with(tmp_path, methods={"laser": {}, "more": {"tasks": ["words"], "selector": {"type": "ucb1"}}})
    assert {cell.key.task for cell in make_cells(suite, tmp_path) if cell.key.method == "more"} == {"words"}


VARIANTS = {"noisy": {"label": "loud", "rewards": {"models": {"*": {"noise": 0.5}}}}, "short": {"split": {"dev": 4}}}


def test_a_variant_makes_a_column_of_every_task(tmp_path):
    """Its patch is applied after the task's; ``{task}`` is the task without the variant, for files and for runs."""
    methods = {
        "laser": {},
        "classifier": {"selector": {"type": "classifier", "path": "router-{task}"}},
        "cold": {"selector": {"type": "frozen", "run": "{run:laser@{task}}"}},
    }
    tasks = {"sums": {"split": {"dev": 6}}, "words": {"label": "Words"}}
    suite = suite_with(tmp_path, methods=methods, tasks=tasks, variants=VARIANTS, seeds=1)
    assert suite.shown_tasks == ("sums", "sums+noisy", "sums+short", "words", "words+noisy", "words+short")
    labels = [suite.all_columns[name].label for name in ("sums+noisy", "sums+short", "words+noisy", "words+short")]
    assert labels == ["sums, loud", "sums+short", "Words, loud", "Words, short"]
    cells = {cell.key: cell for cell in make_cells(suite, tmp_path / "out")}
    assert [model.noise for model in cells[Key("sums+noisy", "laser", 0)].config.rewards.models] == [0.5, 0.5]
    dev = {task: cells[Key(task, "laser", 0)].config.split.dev for task in ("sums", "sums+noisy", "sums+short")}
    assert dev == {"sums": 6, "sums+noisy": 6, "sums+short": 4}
    assert cells[Key("words+noisy", "classifier", 0)].config.selector.path == f"{tmp_path}/router-words"
    assert cells[Key("words+noisy", "cold", 0)].needs == (Key("words", "laser", 0),)


def test_rows_and_columns_choose_what_runs(tmp_path):
    """A hidden cell runs only where a shown one needs it."""
    methods = {**SUITE["methods"], "cold": COLD, "avg": {"mean_of": ["laser", "random"]}}
    changes = {"methods": methods, "variants": VARIANTS, "seeds": 1}
    suite = suite_with(tmp_path, **changes, rows=["avg", "laser"], columns=["words+short", "sums"])
    assert [str(cell.key) for cell in make_cells(suite, tmp_path)] == [
        f"{task} {method} seed 0" for task in ("words+short", "sums") for method in ("laser", "random")
    ]
    cold = {"cold": {"selector": {"type": "frozen", "run": "{run:laser@{task}}"}}}
    one = suite_with(
        tmp_path,
        **{**changes, "methods": {**SUITE["methods"], **cold}},
        reference="cold",
        rows=["cold"],
        columns=["sums+short"],
    )
    assert [cell.key for cell in make_cells(one, tmp_path)] == [Key("sums+short", "cold", 0), Key("sums", "laser", 0)]
    assert one.shown_tasks == ("sums+short",)


def test_a_method_for_a_task_is_run_on_its_variants(tmp_path):
    methods = {"laser": {}, "more": {"tasks": ["words"], "selector": {"type": "ucb1"}}}
    suite = suite_with(tmp_path, methods=methods, variants={"short": VARIANTS["short"]})
    tasks = {cell.key.task for cell in make_cells(suite, tmp_path) if cell.key.method == "more"}
    assert tasks == {"words", "words+short"}


def test_the_trained_policy_can_be_tested_on_another_task(tmp_path):
    tasks = {"sums": {**SUITE["tasks"]["sums"], "test": {"data": {"categories": ["comparison"]}}}}
    methods = {"before": {"row": "before"}, **SUITE["methods"]}
    cells = make_cells(suite_with(tmp_path, metric="test", tasks=tasks, methods=methods), tmp_path)
    first, second = cells[0], cells[1]
    assert first.config.data.categories == ("arithmetic",)
    assert first.measurement.config.data.categories == ("comparison",)
    assert (first.measurement.base, second.measurement.base) == (True, False)  # the untrained policy once is enough
    assert first.measurement.answers == second.measurement.answers
    assert (
        type(first.measurement).from_record(json.loads(json.dumps(first.measurement.as_record()))) == first.measurement
    )


def test_win_rates_are_against_the_references_run(tmp_path):
    judge = {"url": "http://127.0.0.1:8000", "model": "judge"}
    suite = suite_with(tmp_path, metric="win_rate", judge=judge, reference="random", seeds=1)
    laser, random = make_cells(suite, tmp_path)[:2]
    assert laser.needs == (random.key,)
    assert laser.measurement.against == random.key.folder(tmp_path)
    assert random.measurement.against is None
    assert random.needs == ()
    other = make_cells(suite_with(tmp_path, metric="lc_win_rate", judge=judge, seeds=1), tmp_path)[0]
    assert other.measurement.answers == laser.measurement.answers
    assert other.measurement.file != laser.measurement.file


def test_best_of_n_methods_share_a_cell(tmp_path):
    methods = {**SUITE["methods"], "before": {"row": "before"}, "best": {"row": "oracle"}}
    cells = make_cells(suite_with(tmp_path, mode="best-of-n", methods=methods), tmp_path)
    assert [cell.key for cell in cells] == [Key(t, "best-of-n", s) for s in (4, 7) for t in ("sums", "words")]
    assert list(cells[0].methods) == ["laser", "random"]
    assert cells[0].methods["random"].selector.type == "random"
    methods["warm"] = {"generation": {"temperature": 2.0}}
    with pytest.raises(ConfigError, match="changes 'generation', but the methods of a best-of-n suite share responses"):
        make_cells(suite_with(tmp_path, mode="best-of-n", methods=methods), tmp_path)


def test_costs(tmp_path):
    """40 prompts in batches of 16: 3 batches, 3 iterations; of 30 responses 10 pairs need at most 20."""
    laser, random = make_cells(suite_with(tmp_path, seeds=1), tmp_path)[:2]
    assert estimate_cost(laser.config) == Cost(9, 9 * 16 * 30, 9 * 16 * 20)
    assert estimate_cost(random.config).batches == 75
    every = merged(BASE, {"selector": {"type": "ensemble"}, "split": {"train": 16}})
    ensemble = make_cells(suite_with(tmp_path, base=every, seeds=1), tmp_path)[0]
    assert estimate_cost(ensemble.config) == Cost(3, 3 * 16 * 30, 3 * 16 * 20 * 2)
    assert estimate_best_of_n(ensemble.config) == Cost(1, 24 * 30, 24 * 30 * 2)
    unknown = make_cells(suite_with(tmp_path, base={**BASE, "split": {"dev": 4}}, seeds=1), tmp_path)[0]
    assert estimate_cost(unknown.config) is None


@pytest.mark.parametrize(
    ("only", "count"),
    [([], 8), (["seed=4"], 4), (["method=laser,task=words"], 2), (["task=words", "task=sums,seed=7,method=random"], 2)],
)
def test_only_selects_cells(tmp_path, only, count):
    suite = suite_with(tmp_path)
    assert len(select_cells(suite, make_cells(suite, tmp_path), only)) == count


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ("method=lazer", "there is no method 'lazer'; did you mean 'laser'?"),
        ("task=x", "there is no task 'x'; there are sums, words"),
        ("seed=5", "there is no seed '5'"),
        ("seeds=4", "is not valid; write method=NAME, task=NAME or seed=N"),
        ("laser", "is not valid"),
    ],
)
def test_only_knows_what_there_is(tmp_path, only, words):
    suite = suite_with(tmp_path)
    with pytest.raises(ConfigError) as caught:
        select_cells(suite, [], [only])
    assert words in str(caught.value)


def changed(**changes):
    return changes


MISTAKES = {
    "an unknown key": (changed(metods={}), "unknown key 'metods'; did you mean 'methods'?"),
    "an unknown section": (
        changed(methods={"laser": {"selectr": {}}}),
        "methods.laser: unknown key 'selectr'; did you mean 'selector'?",
    ),
    "an unknown key of a task": (changed(tasks={"t": {"auxilary": True}}), "did you mean 'auxiliary'?"),
    "an unknown field": (
        changed(methods={"laser": {"selector": {"alfa": 1}}}),
        "method laser on task sums: unknown key 'selector.alfa'; did you mean 'alpha'?",
    ),
    "no seeds": (changed(seeds=[]), "seeds is empty; give at least one"),
    "zero seeds": (changed(seeds=0), "seeds is empty"),
    "a seed twice": (changed(seeds=[1, 1]), "names one twice"),
    "a seed in the base": (changed(base={**BASE, "seed": 3}), "base.seed is set by the suite's seeds"),
    "a seed in a method": (
        changed(methods={"laser": {"seed": 3}}),
        "methods.laser: 'seed' is set by the suite's seeds",
    ),
    "no methods": (changed(methods={}), "methods: dictionary should have at least 1 item"),
    "a reference that is none": (changed(reference="lasr"), "there is no method 'lasr'; did you mean 'laser'?"),
    "a folder name": (changed(methods={"a/b": {}}), "pattern"),
    "a method twice": (
        changed(methods={"laser": {}, "again": {}}),
        "methods 'laser' and 'again' are the same configuration on 'sums'; drop one",
    ),
    "case": (
        changed(methods={"laser": {}, "Laser": {"selector": {"type": "ucb1"}}}),
        "methods laser and Laser would share a folder; rename one",
    ),
    "a task that is a variant": (
        changed(tasks={"sums": {}, "sums+loud": {}}, variants={"loud": {"seed": 1, "split": {}}}),
        "'seed' is set by the suite's seeds",
    ),
    "a variant's folder": (
        changed(tasks={"sums": {}, "sums+loud": {}}, variants={"loud": {"split": {"dev": 4}}}),
        "tasks sums+loud and sums+loud would share a folder; rename one",
    ),
    "an unknown row": (changed(rows=["laser", "randm"]), "rows: there is no method 'randm'; did you mean 'random'?"),
    "a row twice": (changed(rows=["laser", "laser"]), "rows names 'laser' twice; drop one"),
    "an unknown column": (changed(columns=["sum"]), "columns: there is no task 'sum'; did you mean 'sums'?"),
    "a hidden reference": (changed(rows=["random"]), "reference = 'laser' is not among `rows`; add it"),
    "a best reward model without an oracle": (
        changed(methods={"laser": {}, "best": {"row": "best_rm"}}),
        "methods.best.row = 'best_rm' needs `oracle` and methods with selector.type = 'fixed'",
    ),
    "an unknown task": (changed(methods={"laser": {"tasks": ["sum"]}}), "there is no task 'sum'; did you mean 'sums'?"),
    "a mean of nothing": (
        changed(methods={"laser": {}, "avg": {"mean_of": ["lasr"]}}),
        "methods.avg.mean_of: 'lasr' has no runs; did you mean 'laser'?",
    ),
    "a patch without a run": (
        changed(methods={"laser": {}, "avg": {"mean_of": ["laser"], "training": {}}}),
        "methods.avg is not run, so 'training' has no effect",
    ),
    "an oracle of training": (changed(methods={"laser": {}, "o": {"row": "oracle"}}), "needs mode = 'best-of-n'"),
    "an unknown run": (
        changed(methods={"laser": {}, "cold": {"selector": {"type": "frozen", "run": "{run:lasr}"}}}),
        "methods.cold: {run:lasr} names no method with runs; did you mean 'laser'?",
    ),
    "an unknown task of a run": (
        changed(methods={"laser": {}, "cold": {"selector": {"type": "frozen", "run": "{run:laser@sum}"}}}),
        "{run:laser@sum} names no task; did you mean 'sums'?",
    ),
    "a circle": (
        changed(
            methods={
                "a": {"selector": {"type": "frozen", "run": "{run:b}"}},
                "b": {"selector": {"type": "frozen", "run": "{run:a}"}},
            },
            reference="a",
        ),
        "methods a and b need each other's runs",
    ),
    "no dev prompts": (changed(base=merged(BASE, {"split": {"dev": 0}})), "metric = 'dev' needs dev prompts"),
    "no test prompts": (
        changed(base=merged(BASE, {"split": {"test": 0}}), metric="test"),
        "metric = 'test' needs test prompts",
    ),
    "a judge without win rates": (
        changed(judge={"url": "http://x", "model": "y"}),
        "do not fit; give a judge for win rates",
    ),
    "win rates without a judge": (changed(metric="win_rate"), "do not fit; give a judge for win rates"),
    "a reference elsewhere": (
        changed(
            methods={"laser": {"tasks": ["sums"]}, "random": SUITE["methods"]["random"]},
            metric="win_rate",
            judge={"url": "http://127.0.0.1:1", "model": "y"},
        ),
        "compares with 'laser', which task words lacks",
    ),
    "a metric of best-of-n": (changed(mode="best-of-n", metric="test"), "drop `metric`"),
    "a device": (changed(devices=["gpu7"]), "'gpu7' is not a device; choose auto, cpu, mps or cuda:N"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_sentences(tmp_path, mistake):
    changes, words = MISTAKES[mistake]
    with pytest.raises(ConfigError) as caught:
        make_cells(suite_with(tmp_path, **changes), tmp_path / "out")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


SOURCE = Path(laser.__file__).parent
READERS = "".join(
    path.read_text()
    for path in [*(SOURCE / "compare").glob("*.py"), SOURCE / "cli/compare.py", SOURCE / "config/suite.py"]
)


@pytest.mark.parametrize("section", [SuiteConfig, MethodConfig, TaskConfig], ids=lambda section: section.__name__)
def test_no_field_of_a_suite_goes_unread(section):
    for name, field in section.model_fields.items():
        assert field.description
        assert re.search(rf"\.{name}\b", READERS), f"{section.__name__}.{name} is documented but nothing reads it"


def test_suites_for_tests_are_toml(tmp_path):
    assert tomllib.loads(f"x = {toml(SUITE)}")["x"] == SUITE

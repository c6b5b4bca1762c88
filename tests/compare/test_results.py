"""The tables of a suite, from run directories with known numbers."""

import csv
import io
import json
import shutil
import subprocess

import pytest
from rich.console import Console
from scipy import stats
from test_suite import BASE, COLD, SUITE

from laser.compare.cells import make_cells
from laser.compare.cost import seconds_left
from laser.compare.results import AVERAGE, collect
from laser.compare.state import State, check_owner, claim, standing, write_failure
from laser.compare.tables import as_record, latex, long_csv, markdown, terminal, write_results
from laser.core.errors import ConfigError, RunDirectoryError
from suites import read_suite

VALUES = {  # by task and method, one value a seed
    "sums": {"laser": (0.70, 0.80, 0.60), "random": (0.61, 0.73, 0.50), "one": (0.5, 0.6, 0.7), "two": (0.3, 0.4, 0.2)},
    "words": {
        "laser": (0.31, 0.20, 0.42),
        "random": (0.31, 0.20, 0.39),
        "one": (0.1, 0.2, 0.3),
        "two": (0.3, 0.2, 0.1),
    },
}
METHODS = {
    "before": {"row": "before", "label": "No training"},
    "random": {"selector": {"type": "random"}, "label": "Random_RM"},
    "laser": {"label": "LASeR & co"},
    "one": {"selector": {"type": "fixed", "arm": "good"}},
    "two": {"selector": {"type": "fixed", "arm": "bad"}},
    "avg": {"mean_of": ["one", "two"]},
}


@pytest.fixture
def suite(tmp_path):
    return read_suite(tmp_path, {**SUITE, "seeds": 3, "methods": METHODS, "title": "All <b>of</b> it, 100%"})


def finish(cell, out, value, *, seconds=10.0, calls=5):
    folder = cell.key.folder(out)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(cell.config.model_dump(mode="json")))
    summary = {
        "num_batches": 4,
        "metric_before": 0.25,
        "metric_after": value,
        "seconds": {"score": seconds / 2, "train": seconds / 2},
        "scored": {"good": calls, "bad": 2 * calls},
        "tokens": {"sampled": 100, "trained": 50},
    }
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def out(suite, tmp_path):
    out = tmp_path / "out"
    for cell in make_cells(suite, out):
        key = cell.key
        seconds = 30.0 if key.method == "random" else 20.0
        finish(cell, out, VALUES[key.task][key.method][key.seed], seconds=seconds, calls=5 + (key.method == "two"))
    return out


def test_numbers(suite, out):
    """Random minus LASeR on sums: -0.09, -0.07, -0.10; scipy's paired test is the judge."""
    results = collect(suite, make_cells(suite, out), out)
    entry = results.entries["random", "sums"]
    wanted = stats.ttest_rel(VALUES["sums"]["random"], VALUES["sums"]["laser"])
    assert entry.value.mean == pytest.approx((0.61 + 0.73 + 0.50) / 3)
    assert entry.against.difference.mean == pytest.approx(-0.26 / 3)
    assert entry.against.p == pytest.approx(wanted.pvalue)
    assert entry.seconds_ratio == pytest.approx(1.5)
    assert (entry.calls, entry.tokens) == (15, 150)
    assert results.entries["laser", "sums"].against is None
    average = results.entries["random", AVERAGE]
    assert [one.value for one in average.by_seed.values()] == pytest.approx([0.46, 0.465, 0.445])
    assert average.against.p == pytest.approx(stats.ttest_rel([0.46, 0.465, 0.445], [0.505, 0.5, 0.51]).pvalue)


def test_rows_made_of_other_rows(suite, out):
    results = collect(suite, make_cells(suite, out), out)
    before, average = results.entries["before", "sums"], results.entries["avg", "sums"]
    assert [one.value for one in before.by_seed.values()] == [0.25] * 3
    assert [one.value for one in average.by_seed.values()] == pytest.approx([0.4, 0.5, 0.45])
    assert (average.calls, results.entries["two", "sums"].calls) == (16.5, 18)
    assert before.calls is None


def test_holm_is_over_the_methods_of_one_task(suite, out):
    results = collect(suite, make_cells(suite, out), out)
    for task in ("sums", "words"):
        entries = [results.entries[name, task] for name in METHODS if name != "laser"]
        known = sorted((entry.against.p, entry.p_holm) for entry in entries if entry.against.p is not None)
        assert known[0][1] == pytest.approx(min(1.0, len(known) * known[0][0]))
        assert [adjusted for _, adjusted in known] == sorted(adjusted for _, adjusted in known)


def test_markdown(suite, out):
    """`two` differs from LASeR by 0.4 with every seed, so four tests are left on sums: Holm's p is 4 x 0.0102."""
    page = markdown(collect(suite, make_cells(suite, out), out))
    assert page.startswith("# All \\<b\\>of\\</b\\> it, 100%\n")
    row = next(line for line in page.splitlines() if line.startswith("| Random"))
    assert "Random\\_RM | 61.33 ± 28.58\\* | 30.00 ± 23.70 | 45.67 ± 2.59 | 30 s (1.50x) | 15 (1.00x) | 150 |" in row
    assert "| Random\\_RM | sums | 11.50 | −8.67 ± 3.79 | 0.010 | 0.041 | 3 |" in page
    assert "Unfinished" not in page


def test_csv_is_long_and_complete(suite, out):
    rows = list(csv.DictReader(io.StringIO(long_csv(collect(suite, make_cells(suite, out), out)))))
    assert len(rows) == 3 * len(METHODS)
    row = next(row for row in rows if (row["task"], row["method"]) == ("words", "laser"))
    assert (row["mean"][:6], row["seeds"], row["p"], row["reference"]) == ("0.31", "3", "", "laser")
    assert float(row["interval_high"]) - float(row["mean"]) == pytest.approx(4.30265 * 0.11 / 3**0.5, rel=1e-5)


def test_latex_is_escaped_and_marks_the_best(suite, out):
    page = latex(collect(suite, make_cells(suite, out), out))
    assert "\\caption{All \\textless{}b\\textgreater{}of\\textless{}/b\\textgreater{} it, 100\\%." in page
    assert "LASeR \\& co & \\textbf{70.00 $\\pm$ 24.84} & \\textbf{31.00 $\\pm$ 27.33}" in page
    body = page.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines()
    assert len(body) == len(METHODS)
    assert {line.count(" & ") for line in body} == {6}
    assert all(line.endswith(" \\\\") for line in body)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(suite, out, tmp_path):
    table = latex(collect(suite, make_cells(suite, out), out))
    page = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{table}\\end{{document}}"
    (tmp_path / "page.tex").write_text(page)
    subprocess.run(["pdflatex", "-halt-on-error", "page.tex"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)


def test_the_terminal_shows_what_markdown_shows(suite, out):
    console = Console(record=True, width=200, file=io.StringIO())
    for table in terminal(collect(suite, make_cells(suite, out), out)):
        console.print(table)
    text = console.export_text()
    assert "All <b>of</b> it, 100%" in text
    assert "61.33 ± 28.58*" in text
    assert "0.041" in text


def test_an_unfinished_suite_shows_what_is_missing(suite, out):
    cells = make_cells(suite, out)
    key = cells[-1].key
    assert (key.task, key.method, key.seed) == ("words", "two", 2)
    shutil.rmtree(key.folder(out))
    write_failure(key, out, "the model | is gone")
    results = collect(suite, cells, out)
    page = markdown(results)
    assert "(2/3)" in page
    assert "Unfinished: of 24 cells 23 finished, 1 failed" in page
    assert "- words two seed 2: the model \\| is gone" in page
    entry = results.entries["avg", "words"]
    assert (entry.value.num, entry.against.difference.num) == (2, 2)
    assert results.entries["avg", AVERAGE].value.num == 2


def test_ratios_are_over_seeds_that_both_have(suite, out):
    """Random's run with seed 0 takes 300 s, but LASeR has none with seed 0."""
    cells = {str(cell.key): cell for cell in make_cells(suite, out)}
    for name in ("words laser seed 0", "words random seed 0"):
        shutil.rmtree(cells[name].key.folder(out))
    finish(cells["words random seed 0"], out, 0.9, seconds=300.0)
    entry = collect(suite, list(cells.values()), out).entries["random", "words"]
    assert entry.seconds_ratio == pytest.approx(1.5)
    assert (entry.value.num, entry.against.difference.num) == (3, 2)


def test_a_suite_without_any_run_has_tables(suite, tmp_path):
    results = collect(suite, make_cells(suite, tmp_path / "none"), tmp_path / "none")
    for text in (markdown(results), latex(results), long_csv(results)):
        assert "nan" not in text
    assert "– (0/3)" in markdown(results)


def test_methods_and_tasks_without_a_finished_run_are_named_instead_of_shown(suite, out):
    cells = make_cells(suite, out)
    for cell in cells:
        if cell.key.task == "words" or cell.key.method == "two":
            shutil.rmtree(cell.key.folder(out))
    results = collect(suite, cells, out)
    table = markdown(results).partition("\n\n")[2].partition("\n\n")[0]
    assert "| method | sums | time | RM calls | tokens |" in table
    assert [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")][1:] == [
        "| No training",
        "| Random\\_RM",
        "| LASeR & co",
        "| one",
    ]
    assert "Without a result, and not shown: methods two, avg; tasks words." in markdown(results)
    assert "words" not in latex(results).partition("begin{tabular}")[2]


def test_a_task_without_a_result_is_named_although_every_cell_is_finished(suite, tmp_path):
    out = tmp_path / "out"
    for cell in make_cells(suite, out):
        finish(cell, out, 0.5 if cell.key.task == "sums" else None)
    results = collect(suite, make_cells(suite, out), out)
    assert results.num_missing == 0
    assert "Without a result, and not shown: tasks words." in markdown(results)


def test_files_are_written_and_json_has_every_value(suite, out):
    results = collect(suite, make_cells(suite, out), out)
    assert {path.name for path in write_results(results, out)} == {
        f"results.{kind}" for kind in ("md", "csv", "tex", "json")
    }
    record = json.loads((out / "results.json").read_text())
    assert record == json.loads(json.dumps(as_record(results)))
    row = next(row for row in record["rows"] if (row["task"], row["method"]) == ("sums", "two"))
    assert row["values"] == {"0": 0.3, "1": 0.4, "2": 0.2}
    assert {cell["state"] for cell in record["cells"]} == {"finished"}


def test_a_cell_with_another_configuration_is_told_apart(suite, out, tmp_path):
    other = read_suite(tmp_path, {**SUITE, "seeds": 3, "methods": {**METHODS, "laser": {"selector": {"alpha": 0.9}}}})
    cells = {str(cell.key): cell for cell in make_cells(other, out)}
    changed = standing(cells["sums laser seed 1"], out)
    assert changed.state is State.different
    assert changed.reason == (
        "selector.alpha is 0.9, but the run was started with 0.3; remove its folder or choose another --out"
    )
    assert standing(cells["sums random seed 1"], out).state is State.finished


def test_time_left_is_by_the_pace_of_finished_runs(suite, out):
    """LASeR's batches took 20 / 4 seconds; 3 iterations of 3 batches are wanted and 4 are done."""
    cells = make_cells(suite, out)
    cell = next(cell for cell in cells if str(cell.key) == "words laser seed 1")
    folder = cell.key.folder(out)
    (folder / "summary.json").unlink()
    (folder / "steps.jsonl").write_text("{}\n" * 4)
    assert seconds_left(cells, out) == {cell.key: pytest.approx(5.0 * 5)}
    assert standing(cell, out).state is State.interrupted


def test_a_directory_belongs_to_one_suite(suite, out, tmp_path):
    claim(suite, tmp_path / "mine")
    claim(suite, tmp_path / "mine")
    other = suite.model_copy(update={"name": "other"})
    with pytest.raises(
        RunDirectoryError, match=r"holds the suite with name = 'suite', not 'other'; choose another --out"
    ):
        check_owner(other, tmp_path / "mine")
    with pytest.raises(RunDirectoryError, match="is not empty; choose another --out"):
        check_owner(suite, out)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="is a file"):
        check_owner(suite, tmp_path / "file")


def test_one_seed_has_no_test_and_no_interval(tmp_path):
    suite = read_suite(tmp_path, {**SUITE, "base": BASE, "seeds": 1, "methods": {"laser": {}, "cold": COLD}})
    out = tmp_path / "out"
    for cell in make_cells(suite, out):
        finish(cell, out, 0.5)
    results = collect(suite, make_cells(suite, out), out)
    assert results.entries["cold", "sums"].against.p is None
    assert results.entries["cold", "sums"].p_holm is None
    assert "| cold | 50.00 | 50.00 | 50.00 |" in markdown(results)


ORACLE = {"pool": {"a": {"good": 0.9, "bad": 0.5}, "b": {"good": 0.4, "bad": 0.6}}}  # good: 0.65 on average, bad: 0.55


def with_choices(folder, rows):
    """Records of a run whose selections had these rows: (weights, number of prompts by category)."""
    selection = {
        "weights": [weights for weights, _ in rows],
        "categories": [categories for _, categories in rows],
        "charged": ["good"] * len(rows),
    }
    numbers = {"iteration": 0, "step": 0, "bandit_rewards": [0.5] * len(rows), "loss": 0.5, "pairs": 1}
    empty = {name: {} for name in ("dropped", "scored", "tokens", "seconds")}
    record = {"category": "mixed", "selection": selection, **numbers, **empty}
    (folder / "steps.jsonl").write_text(json.dumps(record) + "\n")


def oracle_suite(tmp_path, **changes):
    (tmp_path / "oracle.json").write_text(json.dumps(ORACLE))
    methods = {
        "laser": {},
        "one": METHODS["one"],
        "two": METHODS["two"],
        "best": {"row": "best_rm"},
    }
    given = {"seeds": 1, "methods": methods, "tasks": {"pool": {}}, "oracle": "oracle.json", **changes}
    return read_suite(tmp_path, {**SUITE, **given})


def finish_all(suite, out, rows):
    values = {"laser": 0.7, "one": 0.6, "two": 0.8}
    for cell in make_cells(suite, out):
        finish(cell, out, values[cell.key.method])
        summary = cell.key.folder(out) / "summary.json"
        by_category = {"a": [0.2, values[cell.key.method]], "b": [0.2, 0.5]}
        summary.write_text(json.dumps({**json.loads(summary.read_text()), "metric_by_category": by_category}))
        with_choices(cell.key.folder(out), rows)


def test_choices_are_compared_with_the_oracle_prompt_by_prompt(tmp_path):
    """Best for 1 of 4 prompts; regret 0.4 on one prompt of a, 0.2 on two of b."""
    suite, out = oracle_suite(tmp_path), tmp_path / "out"
    finish_all(suite, out, [([1.0, 0.0], {"a": 1, "b": 2}), ([0.0, 1.0], {"a": 1})])
    results = collect(suite, make_cells(suite, out), out)
    entry = results.entries["laser", "pool"]
    assert entry.best_choice == pytest.approx(0.25)
    assert entry.regret == pytest.approx((0.4 + 2 * 0.2) / 4)
    assert entry.by_category == {"a": 0.7, "b": 0.5}
    assert "| laser | pool | 70.00 | 50.00 | 25.00 | 0.200 |" in markdown(results)
    row = next(csv.DictReader(io.StringIO(long_csv(results))))
    assert (row["best_choice"], float(row["oracle_regret"])) == ("0.25", pytest.approx(0.2))


def test_a_damaged_record_is_named(tmp_path):
    suite, out = oracle_suite(tmp_path), tmp_path / "out"
    finish_all(suite, out, [([1.0, 0.0], {"a": 1})])
    with (out / "pool" / "laser" / "seed-0" / "steps.jsonl").open("a") as file:
        file.write("{nonsense\n")
    with pytest.raises(RunDirectoryError, match=r"laser/seed-0/steps\.jsonl line 2 is damaged"):
        collect(suite, make_cells(suite, out), out)


def test_a_reward_model_without_an_oracle_figure_is_a_dash(tmp_path):
    """A variant may add arms that the oracle has not measured: nothing is known of the choices, and no number shown."""
    third = {"models": {"third": {"type": "function", "function": "scores.py:third"}}}
    suite, out = oracle_suite(tmp_path, variants={"more": {"rewards": third}}, columns=["pool+more"]), tmp_path / "out"
    finish_all(suite, out, [([1.0, 0.0, 0.0], {"a": 4})])
    results = collect(suite, make_cells(suite, out), out)
    entry = results.entries["laser", "pool+more"]
    assert (entry.best_choice, entry.regret) == (None, None)
    assert "| laser | pool+more | 70.00 | 50.00 | – | – |" in markdown(results)
    assert "nan" not in markdown(results)


def test_the_best_reward_model_is_the_oracles_not_the_luckiest_run(tmp_path):
    suite, out = oracle_suite(tmp_path, variants={"more": {"split": {"dev": 4}}}), tmp_path / "out"
    finish_all(suite, out, [([1.0, 0.0], {"a": 4})])
    for task in ("pool", "pool+more"):
        entries = collect(suite, make_cells(suite, out), out).entries
        assert entries["best", task].value.mean == entries["one", task].value.mean == 0.6
    shutil.rmtree(out / "pool" / "one")
    assert collect(suite, make_cells(suite, out), out).entries["best", "pool"].value.num == 0


@pytest.mark.parametrize("content", [None, "[]", '{"pool": {"a": 1}}', '{"pool": {"a": {"good": "x"}}}'])
def test_an_oracle_that_cannot_be_used_is_refused(tmp_path, content):
    suite = oracle_suite(tmp_path)
    (tmp_path / "oracle.json").unlink()
    if content is not None:
        (tmp_path / "oracle.json").write_text(content)
    with pytest.raises(ConfigError, match=r"oracle: .*oracle\.json"):
        collect(suite, make_cells(suite, tmp_path / "out"), tmp_path / "out")

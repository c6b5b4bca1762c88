"""Reports of suites: the table of the runs, curves over what a suite varies, words over seeds, what is missing."""

import json
import shutil

import numpy as np
import pytest
from scipy import stats

from laser.analysis.report import write_report
from laser.analysis.report.curves import AXES, against_time, over
from laser.analysis.report.suite import lead, preferences, suite_page
from laser.analysis.suites import is_suite, read_suite, together
from laser.core.errors import RunDirectoryError
from written import NAMES, evaluation, step, typical, write_run

NOISE, NUMBER, CORRUPTED = AXES


def cell(folder, task, method, seed, right, *, chosen=None, finished=True, models=None, selector="linucb"):
    """A run with two dev checks; `chosen` gives the arm of every batch."""
    names = tuple(model["name"] for model in models) if models else NAMES
    steps = [step(n, names, chosen=arm) for n, arm in enumerate(chosen)] if chosen is not None else typical(8, names)
    config = {"rewards": {"models": models or [{"name": name} for name in names]}, "selector": {"type": selector}}
    path = folder / task / method / f"seed-{seed}"
    write_run(path, steps, [evaluation(0, 10), evaluation(8, right)], names=names, config=config)
    if finished:
        (path / "summary.json").write_text("{}")
    return path


@pytest.fixture
def suite(tmp_path):
    """LASeR against random on one task: 30, 32, 31 of 40 right against 20, 21, 20."""
    for seed, (ours, theirs) in enumerate(((30, 20), (32, 21), (31, 20))):
        cell(tmp_path, "maths", "laser", seed, ours, chosen=[0, 0, 0, 0, 0, 0, 0, seed % 2])
        cell(tmp_path, "maths", "random", seed, theirs)
    return tmp_path


def test_the_table_is_made_from_the_runs(suite):
    read = read_suite(suite)
    rows = {row["method"]: row for row in read.results["rows"]}
    assert read.results["reference"] == "laser"
    ours, theirs = np.array([30, 32, 31]) / 40, np.array([20, 21, 20]) / 40
    assert rows["laser"]["mean"] == pytest.approx(ours.mean())
    half = stats.t.ppf(0.975, 2) * ours.std(ddof=1) / np.sqrt(3)
    assert rows["laser"]["interval_low"] == pytest.approx(ours.mean() - half)
    assert rows["random"]["difference"] == pytest.approx((theirs - ours).mean())
    assert rows["random"]["p_holm"] == pytest.approx(stats.ttest_rel(theirs, ours).pvalue)
    assert rows["laser"]["p_holm"] is None
    assert (rows["laser"]["seconds"], rows["laser"]["rm_calls"]) == (24.0, 40.0)


def test_the_table_that_compare_wrote_is_taken_as_it_is(suite):
    made = read_suite(suite).results
    made["rows"][0]["mean"] = 0.123
    made["title"], made["methods"]["laser"] = "A title", "LASeR"
    (suite / "results.json").write_text(json.dumps({**made, "mode": "train"}))
    page = suite_page(read_suite(suite))
    assert page.title == "A title"
    assert "LASeR" in page.lead[1]
    assert any("12.3%" in row for picture in page.pictures() for row in picture.table.rows)
    (suite / "results.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match="is not what laser compare writes"):
        read_suite(suite)


def test_words_name_the_best_and_whether_that_is_chance(suite):
    read = read_suite(suite)
    said = " ".join(lead(read, preferences(read, "laser")))
    assert "2 methods, 1 tasks, 6 cells." in said
    assert "maths: laser is highest with 77.5%" in said
    assert "random below laser beyond chance" in said
    assert "laser chose good for 95.8% of maths prompts" in said
    for seed in range(3):
        shutil.rmtree(suite / "maths" / "random" / f"seed-{seed}")
        cell(suite, "maths", "random", seed, (33, 30, 31)[seed])
        shutil.rmtree(suite / "maths" / "laser" / f"seed-{seed}")
        cell(suite, "maths", "laser", seed, (30, 32, 31)[seed])
    read = read_suite(suite)
    said = " ".join(lead(read, preferences(read, "laser")))
    assert "no method is distinguishable from laser" in said
    assert "laser has no preference among reward models" in said


def test_shares_are_tested_over_seeds_and_corrected(suite):
    preferred = {one.name: one for one in preferences(read_suite(suite), "laser")}
    shares = np.array([1.0, 7 / 8, 1.0])
    assert preferred["good"].share.mean == pytest.approx(shares.mean())
    assert preferred["good"].p == pytest.approx(2 * stats.ttest_1samp(shares, 0.5).pvalue)
    assert preferred["bad"].reward.num == 1


@pytest.mark.parametrize("levels_are", ["tasks", "methods"])
def test_curves_run_over_what_the_suite_varies(tmp_path, levels_are):
    for level in (0.0, 0.2, 0.4):
        models = [{"name": name, "noise": level} for name in NAMES]
        for method, kind in (("ours", "linucb"), ("theirs", "sequential")):
            for seed in range(2):
                where = (f"noise-{level}", method) if levels_are == "tasks" else ("all", f"{method}-{level}")
                right = 30 + 2 * seed - (round(20 * level) if method == "theirs" else 0)
                cell(tmp_path, *where, seed, right, models=models, selector=kind)
    read = read_suite(tmp_path)
    assert over(read, NUMBER) is None
    assert over(read, CORRUPTED) is None
    rows = over(read, NOISE).table.rows
    names = ("ours", "theirs") if levels_are == "tasks" else ("linucb", "sequential")
    assert [(row[0], row[1], row[2]) for row in rows] == [
        *((names[0], level, "77.5%") for level in (0.0, 0.2, 0.4)),
        *((names[1], level, share) for level, share in ((0.0, "77.5%"), (0.2, "67.5%"), (0.4, "57.5%"))),
    ]
    assert {row[4] for row in rows} == {2}


def test_curves_over_the_number_of_reward_models_and_of_useless_ones(tmp_path):
    for number in (2, 3, 4):
        models = [{"name": f"m{n}", "corruption": "random" if n > 1 else "none"} for n in range(number)]
        cell(tmp_path, f"rms-{number}", "laser", 0, 30, models=models)
    read = read_suite(tmp_path)
    assert [row[1] for row in over(read, NUMBER).table.rows] == [2, 3, 4]
    assert [row[1] for row in over(read, CORRUPTED).table.rows] == [0, 1, 2]
    assert over(read, NOISE) is None


def test_accuracy_against_time_is_the_mean_over_seeds(suite):
    rows = against_time(read_suite(suite), "maths", ["laser", "random"]).table.rows
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == [
        ("laser", 0.0, "25.0%", 3),
        ("laser", 24.0, "77.5%", 3),
        ("random", 0.0, "25.0%", 3),
        ("random", 24.0, "50.8%", 3),
    ]


def test_runs_put_together_hold_every_batch_of_every_seed(suite):
    read = read_suite(suite)
    runs = read.of("maths", "random")
    whole = together(runs)
    assert len(whole.steps) == 24
    assert list(whole.batches) == sorted(whole.batches)
    assert sum(step["pairs"] for step in whole.steps) == sum(step["pairs"] for run in runs for step in run.steps)


@pytest.mark.slow
def test_what_is_missing_or_damaged_is_said_and_the_rest_reported(suite):
    (suite / "maths" / "laser" / "seed-1" / "config.json").write_text("{")
    with (suite / "maths" / "random" / "seed-0" / "steps.jsonl").open("a") as file:
        file.write("junk\n")
    (suite / "maths" / "random" / "seed-2" / "summary.json").unlink()
    written = write_report(suite, pictures=suite / "png")
    page = written.page.read_text()
    assert "maths/laser/seed-1" in page
    assert "interrupted" in page
    assert [one.file for one in written.damage] == ["maths/random/seed-0/steps.jsonl"]
    assert "maths/random/seed-0/steps.jsonl line 9" in page
    names = {path.name for path in written.pictures}
    assert {"results-maths.png", "accuracy-against-time-maths.png", "utilization-maths.png"} <= names


def test_a_task_without_a_finished_run_has_no_picture_and_its_cells_are_counted(suite):
    made = read_suite(suite).results
    empty = {"task": "physics", "mean": None, "seeds": 0, "values": {}}
    made["tasks"] = {"physics": "physics", **made["tasks"]}
    made["rows"] += [{**row, **empty} for row in made["rows"]]
    made["cells"] += [{**cell, "task": "physics", "state": "missing"} for cell in made["cells"]]
    (suite / "results.json").write_text(json.dumps({**made, "mode": "train"}))
    written = write_report(suite, pictures=suite / "png")
    assert not any("physics" in path.name for path in written.pictures)
    page = written.page.read_text()
    assert "6 of 12 cells were not started." in page
    assert "physics/laser" not in page


def test_a_suite_without_its_run_directories_has_its_table(suite):
    """As a best-of-n suite: cells that are not training runs."""
    made = read_suite(suite).results
    shutil.rmtree(suite / "maths")
    (suite / "suite.json").write_text("{}")
    (suite / "results.json").write_text(json.dumps(made))
    page = suite_page(read_suite(suite))
    assert [section.name for section in page.sections] == ["results", "costs", "left-out"]
    assert "maths: laser is highest with 77.5%" in page.lead[1]
    write_report(suite)


def test_folders_without_runs_are_not_a_suite(tmp_path):
    assert not is_suite(tmp_path)
    write_run(tmp_path / "task" / "method" / "seed-0", [])
    assert is_suite(tmp_path)
    with pytest.raises(RunDirectoryError, match="has finished a batch yet"):
        write_report(tmp_path)

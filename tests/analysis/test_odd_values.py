"""Values of other types anywhere in a run directory: a page that leaves them out, or a sentence, never a traceback."""

import copy
import io
import json
import random
from dataclasses import replace

import pytest
from rich.console import Console

from laser.analysis.follow import Watch
from laser.analysis.frame import frame
from laser.analysis.records import read_run
from laser.analysis.report import render
from laser.analysis.report.render import document
from laser.analysis.report.run import configuration, run_page
from laser.analysis.report.suite import suite_page
from laser.analysis.suites import read_suite
from laser.core.errors import LaserError, RunDirectoryError
from written import evaluation, typical, write_run

ODD = (
    *("x", "3", "", "\ud800", "\x1b[2J", None, True, -1, 0, 10**400, 10**18, 1e308, -1e308, 1e-320, float("nan")),
    *([], [[]], {}, {"a": [1]}, [None] * 11, [1e308] * 11),
)


def places(value, here=()):
    """The path of everything within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*here, key)
        yield from places(item, (*here, key))


def changed(rng, value, times):
    """A copy with something odd in some places."""
    value = copy.deepcopy(value)
    for _ in range(times):
        *path, last = rng.choice(list(places(value)) or [(None,)])
        if last is None:
            break
        inner = value
        for key in path:
            inner = inner[key]
        inner[last] = copy.deepcopy(rng.choice(ODD))
    return value


def records():
    steps = typical(6)
    steps[2]["agreement"] = [{"first": "good", "second": "bad", "alike": 3, "judged": 4}]
    scores = {"good": [1.0, 2.0], "bad": [3.0, 1.0]}
    steps[2]["disagreement"] = {"prompt": "p", "responses": ["a", "b"], "scores": scores, "strength": 2.0}
    steps[3]["quarantined"] = {"bad": "why"}
    return {
        "steps.jsonl": steps,
        "evaluations.jsonl": [evaluation(0, 2, correct={1, 2}), evaluation(6, 3, correct={1, 2, 3})],
        "config.json": {
            "rewards": {"models": [{"name": "good", "noise": 0.5, "corruption": "none"}, {"name": "bad"}]},
            "selector": {"type": "linucb"},
            "signal": {"type": "none"},
            "training": {"iterations": 2, "batches_per_iteration": 6},
        },
        "summary.json": {
            "num_batches": 6,
            "metric_before": 0.2,
            "metric_after": 0.3,
            "scored": {"good": 4},
            "tokens": {},
            "seconds": {"train": 2.0},
            "reward_models": {"good": {"calls": 1}},
        },
    }


def write(folder, contents):
    write_run(folder, [])
    for name, content in contents.items():
        rows = content if name.endswith(".jsonl") else [content]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def no_pictures(monkeypatch):
    """Pages without their drawings, which take a second each."""
    monkeypatch.setattr(render, "as_svg", lambda picture, prefix: "")
    render._templates.cache_clear()  # the templates keep the function that draws
    yield
    render._templates.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(records()))
def test_odd_values_in_a_run_give_a_page_or_a_sentence(tmp_path, no_pictures, name):
    shown, refusals = 0, []
    for seed in range(40):
        rng = random.Random(f"{name} {seed}")
        folder = tmp_path / str(seed)
        write(folder, {**records(), name: changed(rng, records()[name], rng.choice((1, 1, 3)))})
        Console(file=io.StringIO()).print(frame(Watch(folder).look()))
        try:
            assert document(run_page(read_run(folder))).startswith("<!doctype html>")
            shown += 1
        except LaserError as error:
            refusals.append(str(error))
    assert shown > 10
    assert all(str(tmp_path) in sentence for sentence in refusals)
    assert not refusals or name == "config.json"


def test_odd_values_in_a_suite_give_a_page_or_a_sentence(tmp_path, no_pictures):
    for seed in range(2):
        for noise in (0, 1):
            config = copy.deepcopy(records()["config.json"])
            config["rewards"]["models"][0]["noise"] = noise
            write(tmp_path / "task" / f"noise-{noise}" / f"seed-{seed}", {**records(), "config.json": config})
    results = dict(read_suite(tmp_path).results)
    assert len(results["rows"]) == 2
    shown, refusals = 0, []
    for seed in range(40):
        rng = random.Random(seed)
        (tmp_path / "results.json").write_text(json.dumps(changed(rng, results, 1)))
        try:
            document(suite_page(read_suite(tmp_path)))
            shown += 1
        except LaserError as error:
            refusals.append(str(error))
    assert shown > 5
    assert all(str(tmp_path) in sentence for sentence in refusals)


@pytest.mark.parametrize("iterations", [10**400, -1, True, "2", None, [2]])
def test_an_odd_number_of_iterations_leaves_the_end_unknown(tmp_path, iterations):
    contents = records()
    contents["config.json"]["training"]["iterations"] = iterations
    write(tmp_path, contents)
    (tmp_path / "summary.json").unlink()
    view = Watch(tmp_path).look()
    assert view.num_planned is None
    assert view.remaining is None


@pytest.mark.parametrize("noise", ["loud", None, [0.5], 10**400])
def test_an_odd_noise_in_a_suite_is_a_sentence(tmp_path, noise):
    contents = records()
    contents["config.json"]["rewards"]["models"][0]["noise"] = noise
    write(tmp_path / "task" / "laser" / "seed-0", contents)
    with pytest.raises(RunDirectoryError, match=r"config\.json has a noise that is not a number; restore the file"):
        suite_page(read_suite(tmp_path))


TOO_DEEP = "nested too deeply to show"


@pytest.mark.slow
def test_a_configuration_that_is_nested_deeply_is_shown_or_refused(tmp_path):
    contents = records()
    write(tmp_path, contents)
    config = json.dumps(contents["config.json"])[:-1]
    found = set()
    for depth in range(800, 1000, 5):
        (tmp_path / "config.json").write_text(f'{config}, "note": {"[" * depth}{"]" * depth}}}')
        try:
            (code,) = configuration(read_run(tmp_path))
        except RunDirectoryError:
            found.add("refused")
        else:
            found.add("too deep" if code.text == TOO_DEEP else "shown")
    assert found >= {"shown", "refused"}


def test_a_configuration_that_was_read_where_more_recursion_was_left_is_not_shown(tmp_path):
    write(tmp_path, records())
    note = []
    for _ in range(2000):
        note = [note]
    (code,) = configuration(replace(read_run(tmp_path), config={"note": note}))
    assert code.text == TOO_DEEP

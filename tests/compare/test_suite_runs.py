"""Suites that really run: tiny random models, one process a cell, killed and continued."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import typer

from laser.cli.compare import compare
from laser.commands.train import train
from laser.compare.cells import Cell, Key, make_cells
from laser.compare.schedule import device_environment, order_for, run_cells
from laser.compare.state import State, claim, failure_note, standing
from laser.compare.worker import run_cell
from laser.config import parse_config
from laser.core.errors import ConfigError
from laser.training.progress import Progress
from runs import essence, make_table, same_adapter, steps
from servers import rate, serving
from suites import read_suite, write_toml

COMMAND = (sys.executable, "-m", "laser.cli.cell")


def exit_code(path, out, *only, **options):
    """Of `laser compare`."""
    try:
        compare(path, out=out, devices="cpu", workers=2, only=list(only), **options)
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def base(folder, **sections):
    table = make_table(folder, "vowels", "short", **sections)
    del table["seed"]
    return table


SUITE = {
    "seeds": [3],
    "metric": "test",
    "keep": "results",
    "methods": {
        "before": {"row": "before"},
        "laser": {},
        "broken": {"policy": {"model": "/nowhere/at/all"}},
        "cold": {"selector": {"type": "frozen", "run": "{run:broken}"}},
    },
}


@pytest.mark.slow
def test_a_suite_runs_fails_in_part_and_continues(tmp_path, capfd):
    table = {**SUITE, "base": base(tmp_path, split={"train": 12, "dev": 4, "test": 4})}
    path, out = write_toml(tmp_path / "suite.toml", table), tmp_path / "out"
    assert exit_code(path, out, dry_run=True) == 0
    assert not out.exists()
    assert "3 cells" in capfd.readouterr().out

    assert exit_code(path, out) == 1
    shown = capfd.readouterr()
    assert "all broken seed 3: model folder /nowhere/at/all does not exist" in shown.err
    assert "all cold seed 3: not run, because it needs all broken seed 3" in shown.err
    results = json.loads((out / "results.json").read_text())
    states = {cell["method"]: cell["state"] for cell in results["cells"]}
    assert states == {"laser": "finished", "broken": "failed", "cold": "missing"}
    rows = {row["method"]: row for row in results["rows"]}
    assert {name: row["seeds"] for name, row in rows.items()} == {"before": 1, "laser": 1, "broken": 0, "cold": 0}
    laser = out / "all" / "laser" / "seed-3"
    summary = json.loads((laser / "summary.json").read_text())
    assert rows["laser"]["rm_calls"] == sum(summary["scored"].values())
    assert rows["laser"]["tokens"] == sum(summary["tokens"].values())
    assert not (laser / "adapter").exists()  # keep = "results"
    assert list((laser / "checkpoints").glob("*/selector.*"))

    # A method is fixed: finished cells stay, the others run, the cold start after the run it needs.
    stamp = (laser / "summary.json").stat().st_mtime_ns
    table["methods"]["broken"] = {"selector": {"type": "linucb", "forced_pulls": 1}}
    write_toml(path, table)
    assert exit_code(path, out, "method=cold") == 0
    shown = capfd.readouterr().out
    assert shown.index("[1/2] all broken seed 3: done") < shown.index("[2/2] all cold seed 3: done")
    assert (laser / "summary.json").stat().st_mtime_ns == stamp
    assert not failure_note(Key("all", "broken", 3), out).exists()

    # The same settings by hand give the same run: its process makes no difference.
    cell = next(cell for cell in make_cells(read_suite(tmp_path, table), out) if cell.key.method == "laser")
    train(cell.config, tmp_path / "by-hand")
    assert essence(tmp_path / "by-hand") == essence(laser)

    # A cell whose stored configuration is another is refused; nothing is run.
    table["methods"]["laser"] = {"training": {"beta": 0.7}}
    write_toml(path, table)
    assert exit_code(path, out) == 1
    assert "training.beta is 0.7, but the run was started with 0.1" in capfd.readouterr().err
    assert (laser / "summary.json").stat().st_mtime_ns == stamp


KILLED = """
import sys
from pathlib import Path
from laser.cli.compare import compare
suite, out = map(Path, sys.argv[1:])
compare(suite, out=out, devices="cpu", workers=2)
"""


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_with_its_cells_it_continues_to_the_same_result(tmp_path):
    table = base(tmp_path, training={"iterations": 6}, checkpoint={"every": 1})
    suite = {"seeds": [3], "base": table, "methods": {"laser": {}}}
    path, out = write_toml(tmp_path / "suite.toml", suite), tmp_path / "out"
    (cell,) = make_cells(read_suite(tmp_path, suite), out)
    run = cell.key.folder(out)
    running = subprocess.Popen([sys.executable, "-c", KILLED, path, out], stdout=subprocess.DEVNULL)
    wait_for(lambda: (run / "steps.jsonl").is_file() and len(steps(run)) >= 2)
    running.send_signal(signal.SIGKILL)
    running.wait()
    wait_for(lambda: standing(cell, out).state is not State.running)  # the cell stops with its parent
    assert standing(cell, out).state is State.interrupted
    assert len(steps(run)) < 18

    assert exit_code(path, out) == 0
    train(cell.config, tmp_path / "whole")
    assert essence(run) == essence(tmp_path / "whole")
    assert same_adapter(run, tmp_path / "whole")


def run_here(suite, out):
    """Every cell in this process."""
    claim(suite, out)
    for cell in sorted(make_cells(suite, out), key=lambda cell: len(cell.needs)):
        assert standing(cell, out).state is State.missing
        run_cell(json.loads(json.dumps(order_for(cell, out, "cpu", "all"))), Progress())
        assert standing(cell, out).state is State.finished


@pytest.mark.slow
def test_a_finished_cell_whose_data_or_reward_models_have_changed_is_not_a_result(tmp_path, capfd):
    rows = [json.dumps({"prompt": f"what is {number}?", "answer": "a"}) for number in range(8)]
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    sections = {"training": {"iterations": 1, "batches_per_iteration": 1}, "split": {"train": 4, "dev": 0, "test": 2}}
    table = {**base(tmp_path, **sections), "data": {"type": "file", "train": str(tmp_path / "p.jsonl")}}
    path = write_toml(tmp_path / "suite.toml", {**SUITE, "methods": {"laser": {}}, "base": table})
    assert exit_code(path, tmp_path / "out") == exit_code(path, tmp_path / "out") == 0
    (tmp_path / "p.jsonl").write_text("\n".join(rows[1:]))
    assert exit_code(path, tmp_path / "out") == 1
    assert "data.train changed since it was run; restore them, or remove" in capfd.readouterr().err
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    (tmp_path / "scores.py").write_text((tmp_path / "scores.py").read_text() + "\n# other\n")
    assert exit_code(path, tmp_path / "out") == 1
    assert "vowels, short changed since it was run" in capfd.readouterr().err


@pytest.mark.slow
def test_best_of_n_cells_are_finished_only_with_these_methods(tmp_path):
    table = base(tmp_path, split={"train": 4, "dev": 0, "test": 4})
    methods = {"random": {"selector": {"type": "random"}}, "one": {"row": "before"}, "best": {"row": "oracle"}}
    suite = {"seeds": 1, "mode": "best-of-n", "base": table, "methods": methods}
    run_here(read_suite(tmp_path, suite), tmp_path / "out")
    assert exit_code(tmp_path / "suite.toml", tmp_path / "out", tables=True) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {row["method"]: row["seeds"] for row in rows} == {"random": 1, "one": 1, "best": 1}
    methods["random"]["feedback"] = {"window": 3}
    (changed,) = make_cells(read_suite(tmp_path, suite), tmp_path / "out")
    assert standing(changed, tmp_path / "out").state is State.interrupted


def alphabetical(path, payload, number):
    """A judge that prefers the response that comes later in the alphabet."""
    first, second = payload["messages"][0]["content"].split("[Response A]\n")[1].split("\n\n[Response B]\n")
    return rate("A" if first > second.split("\n\n[End]")[0] else "B")


def responses(out, method, name):
    (path,) = (out / "all" / method / "seed-3").glob(f"answers-*.{name}.jsonl")
    return [json.loads(line)["response"] for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_win_rates_are_judged_after_training(tmp_path):
    out = tmp_path / "out"
    with serving(alphabetical) as server:
        table = base(tmp_path, split={"train": 12, "dev": 0, "test": 8}, training={"learning_rate": 0.05})
        judge = {"url": server.url, "model": "judge", "use_logprobs": False}
        methods = {"laser": {}, "random": {"selector": {"type": "random"}}, "before": {"row": "before"}}
        suite = {"seeds": [3], "metric": "win_rate", "judge": judge, "base": table, "methods": methods}
        run_here(read_suite(tmp_path, suite), out)
        assert server.asked
    assert exit_code(tmp_path / "suite.toml", out, tables=True) == 0
    rows = json.loads((out / "results.json").read_text())["rows"]
    means = {row["method"]: row["mean"] for row in rows}
    theirs = responses(out, "laser", "laser")
    assert means["laser"] == 0.5
    for method, run, name in (("random", "random", "random"), ("before", "laser", "before")):
        pairs = list(zip(responses(out, run, name), theirs, strict=True))
        assert means[method] == pytest.approx(sum((a > b) + (a == b) / 2 for a, b in pairs) / 8)
    assert means["before"] != 0.5


def test_a_cell_that_runs_elsewhere_is_left_to_it(tmp_path):
    import fcntl

    table = base(tmp_path)
    cell = Cell(Key("all", "laser", 3), parse_config({**table, "seed": 3}))
    waiting = Cell(Key("all", "cold", 3), parse_config({**table, "seed": 4}), needs=(cell.key,))
    folder = cell.key.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(cell.config.model_dump(mode="json")))
    notes = []
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = run_cells(
            [waiting, cell], tmp_path, command=COMMAND, devices=["cpu"], workers=1, keep="all", note=notes.append
        )
    assert notes == ["all laser seed 3: skipped, because another process is running it"]
    assert outcome.done == ()
    assert outcome.failures == {waiting.key: "not run, because it needs all laser seed 3, which is not finished"}


def test_a_process_that_dies_is_a_failure_with_its_last_line(tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nread order\necho loading >&2\nkill -KILL $$\n")
    (tmp_path / "python").chmod(0o755)
    cell = Cell(Key("all", "laser", 3), parse_config({**base(tmp_path), "seed": 3}))
    command = (str(tmp_path / "python"),)
    outcome = run_cells([cell], tmp_path, command=command, devices=["cpu"], workers=1, keep="all", note=lambda _: None)
    log = tmp_path / "all" / "laser" / "seed-3.log"
    assert outcome.failures == {cell.key: f"ended by signal SIGKILL; its last line: loading (log: {log})"}
    assert standing(cell, tmp_path).state is State.failed
    assert standing(cell, tmp_path).reason == outcome.failures[cell.key]


@pytest.mark.parametrize(
    ("device", "given", "wanted"),
    [
        ("auto", {"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "3"}),
        ("cpu", {}, {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}),
        ("cuda:1", {}, {"CUDA_VISIBLE_DEVICES": "1"}),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "4, GPU-7"}, {"CUDA_VISIBLE_DEVICES": "GPU-7"}),
    ],
)
def test_a_process_sees_its_device(device, given, wanted):
    seen = device_environment(device, {"HOME": "/h", **given})
    assert {name: seen[name] for name in wanted} == wanted
    assert seen["HOME"] == "/h"
    assert os.environ.get("HOME") != "/h"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_does_not_become_the_cpu(tmp_path):
    cell = Cell(Key("all", "laser", 3), parse_config({**base(tmp_path), "seed": 3}))
    with pytest.raises(ConfigError, match="device 'cuda:1' does not exist"):
        run_cell(order_for(cell, tmp_path, "cuda:1", "all"), Progress())
    assert standing(cell, tmp_path).state is State.missing


def test_a_device_that_is_not_visible_is_a_sentence():
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES shows 1 GPUs"):
        device_environment("cuda:1", {"CUDA_VISIBLE_DEVICES": "0"})

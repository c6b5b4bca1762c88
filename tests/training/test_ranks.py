"""Runs of several real processes: the same choices and losses as one process, no pickles between them,
and no hang when one dies."""

import os
import signal
import time

import pytest

import laser
from processes import ENVIRONMENT, finish, fork, launch, same, worker_of
from runs import make_table, steps
from suites import write_toml


@pytest.mark.slow
@pytest.mark.parametrize(
    "sections",
    [
        {"training": {"loss": "nll+dpo", "sampling": "per_iteration"}},
        {"training": {"loss": "kto", "granularity": "per_prompt", "optimizer_steps": 2}},
        {"selector": {"type": "online_ensemble"}},
    ],
    ids=["per-iteration", "kto-per-prompt", "ensemble"],
)
def test_two_and_three_processes_do_what_one_does(tmp_path, sections):
    sections = {**sections, "training": {"batch_size": 4, **sections.get("training", {})}}
    table = make_table(tmp_path, "vowels", "short", **sections)
    laser.train(table, tmp_path / "run-1")
    for processes in (2, 3):
        fork(processes, laser.train, table, tmp_path / f"run-{processes}")
        same(tmp_path / "run-1", tmp_path / f"run-{processes}")


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_and_another_number_resumes_it(tmp_path):
    table = make_table(tmp_path, "vowels", training={"iterations": 12, "batch_size": 4}, checkpoint={"every": 1})
    table["split"] = {"train": 12, "dev": 0}
    config = write_toml(tmp_path / "run.toml", table)
    process = launch(2, "train", config, "--out", tmp_path / "run")
    records = tmp_path / "run" / "steps.jsonl"
    deadline = time.monotonic() + 120
    while not (records.exists() and len(records.read_text().splitlines()) > 4):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(worker_of(process.pid, rank=1), signal.SIGKILL)
    code, _, _ = finish(process, timeout=120)
    assert code != 0
    assert not (tmp_path / "run" / "summary.json").exists()
    done = len(steps(tmp_path / "run"))
    assert done < 36
    fork(3, laser.resume, tmp_path / "run")
    laser.train(table, tmp_path / "whole")
    assert [r["selection"]["arms"] for r in steps(tmp_path / "run")][: done - 1] == [
        r["selection"]["arms"] for r in steps(tmp_path / "whole")
    ][: done - 1]
    assert len(steps(tmp_path / "run")) == len(steps(tmp_path / "whole")) == 36


@pytest.mark.slow
def test_an_error_is_reported_once_and_all_processes_end(tmp_path):
    (tmp_path / "broken.py").write_text("def broken(prompts, responses):\n    raise RuntimeError('down')\n")
    table = make_table(tmp_path, rewards={"max_failures": 1})
    table["rewards"] = {
        "models": [{"type": "function", "name": "broken", "function": f"{tmp_path}/broken.py:broken"}],
    }
    code, _, err = finish(launch(2, "train", write_toml(tmp_path / "run.toml", table), "--out", tmp_path / "run"))
    assert code != 0
    assert err.count("laser: error: no reward model is left") == 1


@pytest.mark.slow
def test_processes_unpickle_nothing(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'RANK' in os.environ:\n"
        "    def hook(event, args):\n"
        "        if event == 'pickle.find_class':\n"
        f"            print(args, file=open({str(tmp_path / 'found')!r}, 'a'))\n"
        "    sys.addaudithook(hook)\n"
        f"    open({str(tmp_path / 'hooked')!r}, 'a').write('x')\n"
    )
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", path)
    table = make_table(tmp_path, "vowels", training={"iterations": 1, "batches_per_iteration": 2, "batch_size": 4})
    code, _, err = finish(launch(2, "train", write_toml(tmp_path / "run.toml", table), "--out", tmp_path / "run"))
    assert code == 0, err[-2000:]
    assert (tmp_path / "hooked").read_text() == "xx"
    assert not (tmp_path / "found").exists(), (tmp_path / "found").read_text()

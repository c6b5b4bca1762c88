"""Runs of several real processes: the same choices and losses as one process, no pickles between them,
and no hang when one dies."""

import os
import signal
import time

import pytest

import laser
from disks import can_mount, small_disk
from laser.core.errors import ConfigError, LaserError, LostProcessError
from laser.parallel.passes import longest_wait
from laser.parallel.ranks import joined
from processes import ENVIRONMENT, begin, finish, fork, launch, same, worker_of
from runs import make_table, steps
from suites import write_toml


@pytest.mark.slow
@pytest.mark.parametrize(
    "sections",
    [
        {"training": {"loss": "nll+dpo", "sampling": "per_iteration"}},
        {"training": {"loss": "kto", "granularity": "per_prompt", "optimizer_steps": 2}},
        {"selector": {"type": "online_ensemble"}, "training": {"batch_size": 2}},
        {"policy": {"shard": True}, "training": {"batch_size": 2}},
    ],
    ids=["per-iteration", "kto-per-prompt", "ensemble-with-fewer-prompts-than-processes", "sharded-with-fewer-prompts"],
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


def leave(rank_that_is_gone):
    with joined() as ranks:
        assert ranks.broadcast("the work") == "the work"
        if ranks.rank == rank_that_is_gone:
            os._exit(0)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_gone_at_the_last_exchange_ends_no_other(rank):
    fork(2, leave, rank)


STOPS = """
import os, signal
calls = []

def stops(prompts, responses):
    calls.append(responses)
    if os.environ.get("RANK") == "1" and len(calls) == 4:
        os.kill(os.getpid(), signal.SIGSTOP)
    return [len(text) for text in responses]
"""


def train_until_lost(table, out, wait):
    os.environ["LASER_DDP_TIMEOUT"] = wait
    try:
        laser.train(table, out)
    except LostProcessError as error:
        (out / "said").write_text(str(error))


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_run_with_a_sentence_and_it_resumes(tmp_path):
    (tmp_path / "stops.py").write_text(STOPS)
    table = make_table(tmp_path, training={"batch_size": 4}, checkpoint={"every": 1}, split={"dev": 0})
    table["rewards"] = {"models": [{"type": "function", "name": "stops", "function": f"{tmp_path}/stops.py:stops"}]}
    waiting, hanging = begin(2, train_until_lost, table, tmp_path / "run", "5")
    try:
        waiting.join(100)
        assert hanging.is_alive()
    finally:
        hanging.kill()
        waiting.kill()
    said = (tmp_path / "run" / "said").read_text()
    assert "another process of the run hangs or is slow: it did not answer for 5 seconds" in said
    assert "resume the run, with more seconds in LASER_DDP_TIMEOUT" in said
    assert len(steps(tmp_path / "run")) == 3
    laser.resume(tmp_path / "run")
    laser.train(table, tmp_path / "whole")
    same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("wait", ["", "soon", "0", "nan", "inf", "-1"])
def test_a_wait_that_is_not_in_seconds_is_refused(monkeypatch, wait):
    monkeypatch.setenv("LASER_DDP_TIMEOUT", wait)
    with pytest.raises(ConfigError, match=r"LASER_DDP_TIMEOUT is .*; set it to"):
        longest_wait()


def train_on(table, out):
    """The error of a process, next to the disk of its run."""
    try:
        laser.train(table, out)
    except LaserError as error:
        (out.parent.parent / f"said-{os.environ['RANK']}").write_text(str(error))


@pytest.mark.slow
def test_a_full_disk_of_the_main_process_ends_all_processes_and_the_run_resumes(tmp_path):
    if not can_mount(tmp_path):
        pytest.skip("only root may mount a small file system")
    table = make_table(tmp_path, "vowels", training={"batch_size": 4}, checkpoint={"every": 1}, split={"dev": 0})
    run = tmp_path / "disk" / "run"
    with small_disk(tmp_path / "disk", 300 * 1024) as grow:
        fork(2, train_on, table, run)
        assert "No space left on device" in (tmp_path / "said-0").read_text()
        assert "another process of the run is gone" in (tmp_path / "said-1").read_text()
        assert steps(run)
        grow(64 * 2**20)
        laser.resume(run)
        laser.train(table, tmp_path / "whole")
        same(run, tmp_path / "whole")


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
def test_an_error_of_one_process_alone_is_reported_by_it(tmp_path):
    """As of a file that is missing on one machine: the others only see that it is gone."""
    alone = "import os\n\nif os.environ.get('RANK') == '1':\n    raise OSError('no space here')\n"
    (tmp_path / "alone.py").write_text(
        f"{alone}\n\ndef alone(prompts, responses):\n    return [0.0] * len(responses)\n"
    )
    table = make_table(tmp_path)
    table["rewards"]["models"] += [{"type": "function", "name": "alone", "function": f"{tmp_path}/alone.py:alone"}]
    code, _, err = finish(launch(2, "train", write_toml(tmp_path / "run.toml", table), "--out", tmp_path / "run"))
    assert code != 0
    assert err.count("no space here") == 1, err
    assert "laser: error: reward model 'alone'" in err


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

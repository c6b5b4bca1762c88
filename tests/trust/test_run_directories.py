"""Run directories that are damaged, from another version, or a stranger's: a sentence, or the same result."""

import json
import os
import random
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest

import laser
from counted import count, times
from laser.analysis.report import write_report
from laser.commands.best_of_n import best_of_n
from laser.commands.label import label
from laser.config import parse_config
from laser.core.errors import ConfigError, LaserError, RunDirectoryError
from laser.core.outputs import results_file
from laser.core.types import Response
from laser.training import signature
from laser.training.checkpoint import Cursor, _own_digest, load_checkpoint, newest_checkpoint, save_checkpoint
from laser.training.pending import PendingResponses
from laser.training.progress import Progress
from laser.wiring import build_contexts
from laser.wiring.selection import build_selector
from runs import FUNCTIONS, essence, make_table, same_adapter


class Part:
    """Something with a state, without a model behind it."""

    def __init__(self, seed=0):
        self.state = {"values": np.random.default_rng(seed).normal(size=(7, 5)), "count": seed, "text": "ä" * 9}
        self.loaded = None

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.loaded = state


NAMES = ("policy", "optimizer", "selector")


def make_checkpoints(folder):
    """Two checkpoints with different states; the cursors tell them apart."""
    for step in (1, 2):
        digests = {"steps": f"{step:064d}"}
        cursor = Cursor(0, step, num_records=step, metric=0.5 / step, record_digests=digests)
        save_checkpoint(folder, cursor, {name: Part(step) for name in NAMES}, keep=2)
    return folder


def load(folder):
    """The cursor, and whether every part holds the state of its step."""
    parts, notes = {name: Part() for name in NAMES}, []
    cursor = load_checkpoint(folder, parts, notes.append)
    right = Part(cursor.step).state
    for part in parts.values():
        assert np.array_equal(part.loaded["values"], right["values"])
        assert {key: part.loaded[key] for key in ("count", "text")} == {"count": cursor.step, "text": right["text"]}
    return cursor, notes


def damage(content, rng):
    """Flip one bit, cut the end off, or leave a hole of zeros."""
    kind = rng.choice(["flip", "flip", "cut", "zeros"])
    if kind == "cut":
        return content[: rng.randrange(len(content))]
    position = rng.randrange(len(content))
    if kind == "zeros":
        end = min(len(content), position + 16)
        return content[:position] + bytes(end - position) + content[end:]
    return content[:position] + bytes([content[position] ^ (1 << rng.randrange(8))]) + content[position + 1 :]


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_every_file_of_a_checkpoint_damaged_anywhere_leads_to_the_one_before(tmp_path):
    pristine = make_checkpoints(tmp_path / "pristine")
    assert load(pristine)[0].step == 2
    rng, tried = random.Random(0), 0
    for file in files_of(pristine / "00000-000002"):
        content = file.read_bytes()
        for _ in range(times(10)):
            count("damaged checkpoints")
            folder = tmp_path / "damaged"
            shutil.copytree(pristine, folder)
            harmed = damage(content, rng)
            (folder / file.relative_to(pristine)).write_bytes(harmed)
            cursor, notes = load(folder)
            same = file.name == "manifest.json" and harmed.split() == content.split()
            assert cursor.step == (2 if same or harmed == content else 1), (file.name, harmed)
            assert cursor.step == 2 or "00000-000002 is damaged (checksums differ)" in notes[0]
            shutil.rmtree(folder)
            tried += 1
    assert tried == times(10) * (2 * len(NAMES) + 1)


def test_every_value_of_a_manifest_is_under_its_checksum(tmp_path):
    """Bits that turn a number into another leave valid JSON behind."""
    folder = make_checkpoints(tmp_path / "c")
    path = folder / "00000-000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, value in manifest["cursor"].items():
        other = {"steps": "0" * 64} if name == "record_digests" else not value if isinstance(value, bool) else value + 1
        path.write_text(json.dumps({**manifest, "cursor": {**manifest["cursor"], name: other}}))
        assert load(folder)[0].step == 1, name
    path.write_text(json.dumps({**manifest, "sha256": {}}))
    assert load(folder)[0].step == 1


def test_missing_files_too_and_with_none_intact_it_is_said(tmp_path):
    pristine = make_checkpoints(tmp_path / "pristine")
    for file in files_of(pristine / "00000-000002"):
        folder = tmp_path / file.name
        shutil.copytree(pristine, folder)
        (folder / file.relative_to(pristine)).unlink()
        assert load(folder)[0].step == 1
    for path in pristine.glob("*/policy.json"):
        path.write_text("{}")
    with pytest.raises(RunDirectoryError, match=r"every checkpoint .* is damaged \(checksums differ\)"):
        load(pristine)
    assert newest_checkpoint(pristine, ["selector"]).name == "00000-000002"  # that part of it is intact
    assert newest_checkpoint(pristine, ["policy"]) is None


@pytest.mark.parametrize("format", [1, 3])
def test_another_version_is_named(tmp_path, format):
    folder = make_checkpoints(tmp_path / "c")
    path = folder / "00000-000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["manifest_sha256"]  # the first format had none
    path.write_text(json.dumps({**manifest, "format": format}))
    with pytest.raises(RunDirectoryError, match=rf"has checkpoint format {format}, this version reads 2"):
        load(folder)


def test_a_later_damaged_checkpoint_does_not_push_out_new_ones(tmp_path):
    folder = make_checkpoints(tmp_path / "c")
    (folder / "00000-000002" / "policy.json").write_text("{}")
    parts = {name: Part(5) for name in NAMES}
    save_checkpoint(folder, Cursor(0, 1), parts, keep=1)
    assert [path.name for path in folder.iterdir()] == ["00000-000001"]


def replies(seed):
    rng = np.random.default_rng(seed)
    return [[[Response((1, 2, seed), f"text {seed}", tuple(rng.normal(size=3)), True)] * 2]]


def test_pending_responses_are_checked_and_kept_as_long_as_a_checkpoint_needs_them(tmp_path):
    for iteration in range(4):
        PendingResponses(tmp_path, iteration, keep=2).keep(replies(iteration))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iteration-00002", "iteration-00003"]
    rng = random.Random(1)
    for file in files_of(tmp_path / "iteration-00002"):
        content = file.read_bytes()
        for _ in range(times(10)):
            count("damaged pending responses")
            file.write_bytes(harmed := damage(content, rng))
            pending = PendingResponses(tmp_path, 2)
            if harmed == content:
                continue
            assert not pending.load(may_be_missing=True)  # they are sampled again
            with pytest.raises(RunDirectoryError, match="missing or damaged, and the checkpoint needs it"):
                pending.load(may_be_missing=False)
        file.write_bytes(content)
    assert PendingResponses(tmp_path, 2).load(may_be_missing=False)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was stopped in its second iteration, and the same run left alone."""
    folder = tmp_path_factory.mktemp("killed")
    table = make_table(folder, "vowels", training={"sampling": "per_iteration"}, checkpoint={"every": 1})
    laser.train(table, folder / "whole")
    asked = []

    def stop():
        asked.append(True)
        return len(asked) == 6

    with pytest.raises(laser.core.errors.StoppedError, match="stopped after 5 batches, all saved"):
        laser.train(table, folder / "run", stop=stop)
    return folder


@pytest.mark.slow
def test_a_stopped_run_continues_to_the_same_result(killed, tmp_path):
    shutil.copytree(killed / "run", tmp_path / "run")
    laser.resume(tmp_path / "run")
    assert essence(tmp_path / "run") == essence(killed / "whole")
    assert same_adapter(tmp_path / "run", killed / "whole")


@pytest.mark.slow
def test_damage_anywhere_in_a_run_directory_is_a_sentence_or_harmless(killed, tmp_path):
    rng, outcomes = random.Random(2), {"refused": 0, "same": 0}
    for file in files_of(killed / "run"):
        if file.name == ".lock" or file.parent.parent.name == "checkpoints":  # other tests cover those
            continue
        for _ in range(times(2)):
            count("damaged run directories")
            run = tmp_path / "run"
            shutil.copytree(killed / "run", run)
            (run / file.relative_to(killed / "run")).write_bytes(damage(file.read_bytes(), rng))
            try:
                laser.resume(run)
            except LaserError:
                outcomes["refused"] += 1
            else:
                assert essence(run) == essence(killed / "whole"), file.name
                assert same_adapter(run, killed / "whole"), file.name
                outcomes["same"] += 1
            shutil.rmtree(run)
    assert outcomes["refused"] >= 8


def test_records_that_changed_are_refused(killed, tmp_path):
    shutil.copytree(killed / "run", tmp_path / "run")
    path = tmp_path / "run" / "steps.jsonl"
    path.write_text(path.read_text().replace('"bandit_rewards": [0', '"bandit_rewards": [1', 1))
    with pytest.raises(RunDirectoryError, match=r"steps\.jsonl has changed since the checkpoint"):
        laser.resume(tmp_path / "run")


EVIL = """
from pathlib import Path
Path({marker!r}).touch()

def score(prompts, responses):
    return [0.0 + i for i, _ in enumerate(responses)]
"""


@pytest.fixture
def foreign(tmp_path):
    """A run directory that a stranger made: everything in it fits, and its reward function leaves a mark."""
    (tmp_path / "evil.py").write_text(EVIL.format(marker=str(tmp_path / "marker")))
    table = make_table(
        tmp_path,
        training={"iterations": 1, "batches_per_iteration": 2},
        split={"dev": 0},
        checkpoint={"every": 1, "log_contexts": True},
    )
    table["rewards"]["models"].append({"type": "function", "name": "evil", "function": f"{tmp_path}/evil.py:score"})
    asked = []

    def stop():
        asked.append(True)
        return len(asked) == 2

    key = signature._state_folder() / "signing-key"
    kept = key.read_bytes() if key.exists() else None
    key.unlink(missing_ok=True)  # the stranger has a different key
    with pytest.raises(laser.core.errors.StoppedError):
        laser.train(table, tmp_path / "run", stop=stop)
    key.unlink()
    if kept is not None:
        key.write_bytes(kept)
    (tmp_path / "marker").unlink()
    return tmp_path, table


def test_resuming_a_strangers_run_executes_nothing(foreign):
    folder, table = foreign
    with pytest.raises(RunDirectoryError) as caught:
        laser.resume(folder / "run")
    words = str(caught.value)
    assert "was not started by your laser here" in words
    assert f"resuming it would: run {folder}/evil.py:score" in words
    assert "--trust" in words
    assert not (folder / "marker").exists()
    other = {**table, "seed": 77}
    with pytest.raises(ConfigError, match="seed is 77, but the run was started with 3"):
        laser.resume(folder / "run", config=laser.parse_config(other))
    assert not (folder / "marker").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["config", "trust"])
def test_the_user_can_vouch_for_it(foreign, how):
    folder, table = foreign
    vouch = {"config": laser.parse_config(table)} if how == "config" else {"trust": True}
    laser.resume(folder / "run", **vouch)
    assert (folder / "marker").exists()


@pytest.mark.slow
def test_reading_a_strangers_run_executes_nothing(foreign):
    folder, table = foreign
    write_report(folder / "run")
    frozen = {**table, "selector": {"type": "frozen", "run": str(folder / "run")}}
    config = laser.parse_config(frozen)
    build_selector(config, build_contexts(config, dim=32))
    command = [sys.executable, "-m", "laser.cli.main", "simulate", "--replay", str(folder / "run")]
    done = subprocess.run([*command, "--selector", "ucb1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (folder / "marker").exists()


def test_an_edited_configuration_is_no_longer_ones_own(killed, tmp_path):
    shutil.copytree(killed / "run", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace(f"{killed}/scores.py:vowels", f"{tmp_path}/scores.py:vowels"))
    (tmp_path / "scores.py").write_text(FUNCTIONS)
    with pytest.raises(RunDirectoryError, match=r"or its config\.json has changed since"):
        laser.resume(tmp_path / "run")


def test_remote_code_servers_and_keys_are_named(tmp_path):
    config = {
        "policy": {"model": "some/model", "trust_remote_code": True},
        "rewards": {"models": [{"url": "http://far", "api_key_env": "MY_TOKEN"}, {"factory": "/x.py:make"}]},
        "generation": {"engine": "transformers", "server": {"url": "http://unused"}},
    }
    assert signature.powers(config) == [
        "run code that some/model brings",
        "send the key in MY_TOKEN to http://far",
        "run /x.py:make",
    ]


class TestKey:
    """The key that signs runs."""

    @pytest.fixture(autouse=True)
    def fresh_state(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        self.path = tmp_path / "state" / "laser" / "signing-key"

    def test_signatures_hold_for_what_was_signed_alone(self):
        config, provenance = {"seed": 1, "x": [1.5, None]}, {"reward_models": {"a": "b"}, "laser": "0"}
        signed = provenance | {"signature": signature.sign(config, provenance)}
        assert signature.is_ours(config, signed)
        assert signature.is_ours(json.loads(json.dumps(config)), {**signed, "laser": "another"})
        assert not signature.is_ours({**config, "seed": 2}, signed)
        assert not signature.is_ours(config, {**signed, "reward_models": {"a": "c"}})
        for wrong in (None, "", 7, "0" * 64, [signed["signature"]]):
            assert not signature.is_ours(config, {**signed, "signature": wrong})
        self.path.unlink()
        assert not signature.is_ours(config, signed)
        signature.sign(config, provenance)
        assert not signature.is_ours(config, signed)

    def test_the_key_is_for_its_user_alone_and_is_not_in_the_run(self):
        signature.sign({}, {})
        assert stat.S_IMODE(self.path.stat().st_mode) == 0o600
        assert len(self.path.read_bytes()) == 32
        assert [path.name for path in self.path.parent.iterdir()] == ["signing-key"]

    def test_without_a_place_for_a_key_nothing_is_signed(self, monkeypatch, tmp_path):
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
        assert signature.sign({}, {}) is None
        assert not signature.is_ours({}, {"signature": None})

    def test_processes_that_begin_at_once_agree_on_a_key(self):
        code = "from laser.training.signature import sign; print(sign({}, {}))"
        processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(4)]
        assert len({process.communicate(timeout=60)[0] for process in processes}) == 1


@pytest.mark.parametrize("value", [None, 5, "text", [1], {"a": 1}, True])
@pytest.mark.parametrize(
    "place", ["run.json:reward_models", "run.json:signature", "config.json:policy", "config.json:seed"]
)
def test_values_of_other_types_are_a_sentence(killed, tmp_path, place, value):
    shutil.copytree(killed / "run", tmp_path / "run")
    name, key = place.split(":")
    content = json.loads((tmp_path / "run" / name).read_text())
    (tmp_path / "run" / name).write_text(json.dumps({**content, key: value}))
    with pytest.raises(LaserError):
        laser.resume(tmp_path / "run")


@pytest.mark.parametrize("cursor", [None, 3, [], {"iteration": "0"}, {"iteration": 0, "step": [1]}, {"unknown": 1}])
def test_a_forged_manifest_with_other_types_is_a_sentence(tmp_path, cursor):
    folder = make_checkpoints(tmp_path / "c")
    path = folder / "00000-000002" / "manifest.json"
    manifest = {**json.loads(path.read_text()), "cursor": cursor}
    del manifest["manifest_sha256"]
    path.write_text(json.dumps({**manifest, "manifest_sha256": _own_digest(manifest)}))
    with pytest.raises(RunDirectoryError, match=r"cursor in .* is invalid"):
        load(folder)


def test_a_reward_function_may_change_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moving.py").write_text(
        "import os\n\ndef score(prompts, responses):\n    os.chdir('/')\n    return [len(x) + 0.0 for x in responses]\n"
    )
    table = make_table(tmp_path, training={"iterations": 1, "batches_per_iteration": 2}, split={"dev": 0})
    table["rewards"]["models"] = [{"type": "function", "name": "moving", "function": f"{tmp_path}/moving.py:score"}]
    result = laser.train(table, "run")
    assert result.path == tmp_path / "run"
    assert (tmp_path / "run" / "summary.json").is_file()


class Moving(Progress):
    """A progress display that changes the working directory after every batch."""

    def batch(self, record):
        os.chdir("/")


def test_results_stay_where_out_was_when_the_working_directory_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse_config(make_table(tmp_path, "vowels", selector={"type": "random"}, split={"train": 4, "test": 2}))
    report = label(config, "labels", progress=Moving())
    assert report.num_pairs > 0
    assert (tmp_path / "labels" / "summary.json").is_file()
    monkeypatch.chdir(tmp_path)
    best_of_n(config, "best", {"random": config}, note=lambda _: os.chdir("/"))
    assert (tmp_path / "best" / "results.json").is_file()
    monkeypatch.chdir(tmp_path)
    assert results_file("results.json") == tmp_path / "results.json"

"""Trackers receive every batch once, and no secrets."""

import importlib.util
import json
import math

import numpy as np
import pytest
from accelerate.tracking import GeneralTracker

from laser.commands.train import resume, train
from laser.config import parse_config
from laser.core.errors import ConfigError, RunDirectoryError
from laser.training.progress import Progress
from laser.training.tracking import Tracking, batch_numbers, evaluation_numbers, read_marks
from laser.wiring.tracking import flatten
from runs import Notes, make_table, steps


class StopAfter(Progress):
    def __init__(self, num_batches):
        self.left = num_batches

    def batch(self, record):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_tensorboard_has_every_batch_once_after_a_kill_and_no_key(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    table = make_table(tmp_path, "vowels", tracking={"to": ["tensorboard"]})
    table["rewards"]["models"].append(
        {"type": "http", "name": "away", "url": "http://127.0.0.1:9", "api_key_env": "JUDGE_KEY"}
    )
    table["selector"] = {"type": "sequential", "order": ["vowels", "likelihood"]}
    with pytest.raises(KeyboardInterrupt):
        train(table, tmp_path / "run", progress=StopAfter(3))  # one batch past its checkpoint
    resume(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    records = list(enumerate(steps(tmp_path / "run"), 1))
    for name, key in (("train/loss", "loss"), ("train/pairs", "pairs")):
        wanted = [(number, record[key]) for number, record in records if record[key] is not None]
        assert [event.step for event in events.Scalars(name)] == [number for number, _ in wanted]
        assert [event.value for event in events.Scalars(name)] == pytest.approx([value for _, value in wanted])
    assert len(events.Scalars("train/pairs")) == 6
    assert [event.step for event in events.Scalars("dev/metric")] == [0, 3, 6]
    assert [event.value for event in events.Scalars("chosen/vowels")] == [1, 0, 1, 0, 1, 0]
    written = b"".join(file.read_bytes() for file in (tmp_path / "run" / "tensorboard").rglob("*") if file.is_file())
    assert b"learning_rate" in written
    assert b"secret" not in written
    assert b"JUDGE_KEY" not in written


def records_of(data, block=2**15, header=7):
    """Records of a LevelDB log, the format of an offline run: blocks of pieces, each behind checksum, length, kind."""
    place, record = header, b""  # the file begins with a header
    while place + header <= len(data):
        if block - place % block < header:  # no room for another piece: padding
            place += block - place % block
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + header : place + header + length]
        place += header + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def read_wandb(folder):
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for file in folder.rglob("*.wandb"):
        for data in records_of(file.read_bytes()):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                rows.append((json.loads(items["_step"]), json.loads(items.get("train/pairs", "null"))))
    return rows


def read_mlflow(folder):
    from mlflow import MlflowClient

    client = MlflowClient()
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert len(runs) == 1, "the resumed run continues the tracker's"
    return [(metric.step, metric.value) for metric in client.get_metric_history(runs[0].info.run_id, "train/pairs")]


def read_trackio(folder):
    import sqlite3

    rows = []
    for file in folder.rglob("*.db"):
        with sqlite3.connect(file) as connection:
            rows += connection.execute("select step, metrics from metrics order by step").fetchall()
    return [(step, json.loads(metrics).get("train/pairs")) for step, metrics in rows]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "read"), [("wandb", read_wandb), ("mlflow", read_mlflow), ("trackio", read_trackio)])
def test_the_real_tracker_has_every_batch_once_after_an_interruption(tmp_path, monkeypatch, name, read):
    """Each in its offline mode; they are not dependencies: pip install wandb mlflow trackio."""
    folder = tmp_path / "told"
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TRACKIO_DIR", str(folder))  # read while it is imported
    pytest.importorskip(name)
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    table = make_table(tmp_path, "vowels", tracking={"to": [name]})
    with pytest.raises(KeyboardInterrupt):
        train(table, tmp_path / "run", progress=StopAfter(3))
    resume(tmp_path / "run")
    told = [row for row in read(folder if name == "trackio" else tmp_path / "run") if row[1] is not None]
    wanted = [(number, record["pairs"]) for number, record in enumerate(steps(tmp_path / "run"), 1)]
    assert sorted(told) == wanted


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="mlflow is installed")
def test_a_missing_library_is_a_sentence_before_anything_is_written(tmp_path):
    table = make_table(tmp_path, tracking={"to": ["mlflow"]})
    with pytest.raises(ConfigError, match="pip install mlflow"):
        train(table, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"tracking\.to\.0: .*'wandb'.*, got 'comet'"):
        parse_config(make_table(tmp_path, tracking={"to": ["comet"]}))


class Recorder(GeneralTracker):
    name, requires_logging_directory, tracker = "recorder", False, None

    def __init__(self, fails_at=math.inf):
        super().__init__()
        self.told, self.fails_at, self.finished = {}, fails_at, False

    def log(self, values, step=None, **kwargs):
        if step >= self.fails_at:
            raise ConnectionError("no route")
        assert step not in self.told
        self.told[step] = values

    def finish(self):
        self.finished = True


RECORD = {
    "iteration": 1,
    "step": 2,
    "loss": 1.5,
    "loss_parts": {"nll": 0.5, "dpo": float("nan")},
    "grad_norm": 0.25,
    "pairs": 7,
    "score_margin": None,
    "bandit_rewards": np.array([0.0, np.nan, 1.0]),
    "bandit_losses": np.array([1.0, 2.0, 6.0]),
    "bandit_signals": None,
    "selection": {"weights": np.array([[1.0, 0], [0, 1.0], [0, 1.0]]), "probabilities": np.full((3, 2), 0.5)},
    "scored": {"a": 4, "b": 8},
    "dropped": {"ties": 1},
    "tokens": {"sampled": 9, "trained": 6},
    "seconds": {"score": 0.5},
}
EVALUATION = {"batches": 6, "accuracy": 0.5, "by_category": {"x": 0.25}}


def test_numbers_of_a_batch():
    """Rewards 0 and 1 of three (one unknown): mean 0.5. Arm b has two of three rows."""
    moments = {"a": {"mean": 2.0, "std": 0.5}, "b": {"mean": -1.0, "std": None}}
    record = {**RECORD, "bandit_signals": np.array([np.nan]), "distributions": {"score_moments": moments}}
    assert dict(batch_numbers(record, ["a", "b"])) == {
        "train/loss": 1.5,
        "train/loss_nll": 0.5,
        "train/grad_norm": 0.25,
        "train/pairs": 7,
        "bandit/reward": 0.5,
        "bandit/loss": 3.0,
        "chosen/a": pytest.approx(1 / 3),
        "chosen/b": pytest.approx(2 / 3),
        "probability/a": 0.5,
        "probability/b": 0.5,
        "rewards/a/mean": 2.0,
        "rewards/a/std": 0.5,
        "rewards/b/mean": -1.0,
        "asked/a": 4,
        "asked/b": 8,
        "dropped/ties": 1,
        "tokens/sampled": 9,
        "tokens/trained": 6,
        "seconds/score": 0.5,
    }
    assert dict(evaluation_numbers(EVALUATION)) == {"dev/metric": 0.5, "dev/x": 0.25}


def test_a_tracker_that_fails_is_left_out_and_the_others_continue(tmp_path):
    notes, good, bad = Notes(), Recorder(), Recorder(fails_at=6)
    record = {**RECORD, "bandit_signals": []}
    tracking = Tracking(notes, [bad, good], tmp_path / "marks.json", ["a", "b"])
    tracking.started(iterations=2, batches_per_iteration=3, iteration=1, step=0)
    for step in (0, 1, 2, 2):  # the last batch is sent again
        tracking.batch({**record, "step": step})
    assert list(good.told) == [4, 5, 6]
    assert list(bad.told) == [4, 5]
    assert notes.notes == ["tracker recorder failed (no route); the run continues without it"]
    tracking.finish()
    assert (good.finished, bad.finished) == (True, False)
    again = Recorder()
    resumed = Tracking(notes, [again], tmp_path / "marks.json", ["a", "b"])
    resumed.started(iterations=2, batches_per_iteration=3, iteration=1, step=1)
    for step in (1, 2):
        resumed.batch({**record, "step": step})
    assert again.told == {}
    assert json.loads((tmp_path / "marks.json").read_text()) == {"batches": 6}


def test_a_configuration_is_sent_by_path_without_names_of_keys():
    config = {"a": {"b": 1, "c": None}, "models": [{"name": "x", "api_key_env": "KEY", "url": "u"}, 3]}
    assert flatten(config) == {"a.b": 1, "models.x.name": "x", "models.x.url": "u", "models.1": 3}


@pytest.mark.parametrize(
    "marks", [{"batches": "3"}, {"batches": None}, {"evaluations": [1]}, {"ids": ["a"]}, {"ids": {"wandb": 3}}]
)
def test_marks_of_other_types_are_a_sentence(tmp_path, marks):
    (tmp_path / "tracking.json").write_text(json.dumps(marks))
    with pytest.raises(RunDirectoryError, match=r"tracking\.json does not hold .*; delete it, then resume"):
        read_marks(tmp_path / "tracking.json")

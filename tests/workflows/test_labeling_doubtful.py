"""`laser label` leaves out the pairs that training would leave out: by its probe, or by the selector's run."""

import json
import shutil
from pathlib import Path

import pytest

import laser
from laser.config import parse_config
from laser.core.errors import ConfigError
from laser.core.state import load_state
from laser.training.checkpoint import newest_checkpoint
from laser.wiring.learned import frozen_filter
from runs import make_table

THRESHOLD = 1.445
"""Half way between the highest score of a rejected response, 0.98 of "ab", and the lowest of a chosen one, 1.91."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The table of a run that labeled pairs taught to trust `vowels`; the scores of `short` do not separate."""
    folder = tmp_path_factory.mktemp("doubtful")
    rows = [{"id": str(row), "prompt": f"question {row}", "category": "ab"[row % 2]} for row in range(12)]
    pairs = [
        {"prompt": str(row), "chosen": "aa" + "b" * row, "rejected": "a" + "b" * (row + 1), "category": category}
        for row in range(8)
        for category in "ab"
    ]
    for name, table in (("prompts", rows), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    table = make_table(folder, "vowels", "short", split={"train": 12, "dev": 0}, training={"granularity": "per_prompt"})
    table |= {
        "seed": 5,
        "data": {"type": "file", "train": f"{folder}/prompts.jsonl"},
        "rewards": {"models": table["rewards"]["models"][1:]},
        "selector": {"type": "linucb", "alpha": 0.1, "ridge": 0.05},
        "signal": {"type": "probe", "labels": "pairs", "pairs": f"{folder}/pairs.jsonl"},
    }
    laser.train(parse_config(table), folder / "run")
    return table


@pytest.fixture
def frozen(trained):
    """Configuration of a job with that run's selector, with sections replaced."""
    table = {name: section for name, section in trained.items() if name != "signal"}
    run = trained["signal"]["pairs"].replace("pairs.jsonl", "run")
    return lambda **sections: parse_config({**table, "selector": {"type": "frozen", "run": run}, **sections})


OFF = {"type": "probe", "drop_doubtful": False}


def rows(folder):
    return [json.loads(line) for path in sorted(folder.glob("part-*")) for line in path.read_text().splitlines()]


def is_doubtful(row):
    return row["reward_model"] == "vowels" and row["chosen_score"] < THRESHOLD


@pytest.mark.slow
def test_pairs_below_the_thresholds_of_the_run_are_left_out_and_counted(frozen, tmp_path):
    everything = laser.label(frozen(signal=OFF), tmp_path / "everything")
    report = laser.label(frozen(), tmp_path / "pairs")
    kept = [row for row in rows(tmp_path / "everything") if not is_doubtful(row)]
    num_doubtful = everything.num_pairs - len(kept)
    assert rows(tmp_path / "pairs") == kept
    assert (everything.left_out["doubtful"], report.left_out["doubtful"]) == (0, num_doubtful)
    assert num_doubtful > 0 < len([row for row in kept if row["reward_model"] == "vowels"])
    words = f"{num_doubtful} pairs whose chosen response scores as wrong responses of the probe do"
    assert any(words in line for line in report.sentences())
    assert report.notes == ()


@pytest.mark.slow
def test_shards_leave_out_the_same_pairs(frozen, tmp_path):
    whole = laser.label(frozen(), tmp_path / "whole")
    for shard in ("1/2", "2/2"):
        laser.label(frozen(), tmp_path / "shards", shard=shard)
    key = json.dumps
    assert sorted(rows(tmp_path / "shards"), key=key) == sorted(rows(tmp_path / "whole"), key=key)
    total = json.loads((tmp_path / "shards" / "summary.json").read_text())["left_out"]
    assert total["doubtful"] == whole.left_out["doubtful"] > 0


@pytest.mark.slow
def test_a_probe_of_the_job_itself_leaves_out_pairs_too(trained, tmp_path):
    everything = laser.label(parse_config({**trained, "signal": {**trained["signal"], **OFF}}), tmp_path / "everything")
    report = laser.label(parse_config(trained), tmp_path / "pairs")
    kept = [row for row in rows(tmp_path / "everything") if not is_doubtful(row)]
    assert rows(tmp_path / "pairs") == kept
    assert report.left_out["doubtful"] == everything.num_pairs - len(kept) > 0


def test_a_run_without_thresholds_leaves_out_nothing(trained, frozen):
    """A run without a probe has none; of one that trained on all pairs, they do not count."""
    folder = frozen().selector.run
    for signal in ({"type": "none"}, {**trained["signal"], "drop_doubtful": False}):
        run = f"{folder}-{signal['type']}"
        shutil.copytree(folder, run)
        path = Path(run, "config.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "signal": signal}))
        found = frozen_filter(frozen(selector={"type": "frozen", "run": run}), {"a"})
        assert (found.thresholds, found.notes) == ({}, ())
    assert frozen_filter(frozen(), {"a"}).thresholds["a"] == pytest.approx(
        {"vowels": THRESHOLD, "short": -float("inf")}
    )


@pytest.mark.slow
def test_thresholds_that_do_not_apply_are_named(frozen, tmp_path):
    """Scores in another unit, and categories that the probe did not have."""
    models = frozen().model_dump(mode="json")["rewards"]["models"]
    other = frozen(rewards={"models": [{**models[0], "factor": 0.5, "cost": 1}, {**models[1], "cost": 1}]})
    report = laser.label(other, tmp_path / "pairs")
    assert report.left_out["doubtful"] == 0
    [note] = report.notes
    assert f"vowels has other settings here than in {other.selector.run}" in note
    assert note in report.sentences()
    [note] = frozen_filter(frozen(), {"b", "c", "d"}).notes
    assert note.endswith("has no thresholds for c, d: no doubtful pair is left out there")


@pytest.mark.slow
def test_a_job_is_not_continued_with_other_thresholds(frozen, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(frozen().selector.run, copy)
    config = frozen(selector={"type": "frozen", "run": str(copy)})
    laser.label(config, tmp_path / "pairs", shard="1/2")
    table = {**parse_config(json.loads((copy / "config.json").read_text())).model_dump(mode="json"), "signal": OFF}
    (copy / "config.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError, match="selector changed since the first batches"):
        laser.label(config, tmp_path / "pairs", shard="2/2")


@pytest.mark.slow
def test_a_frozen_selector_trains_with_a_probe_of_its_own(trained, frozen, tmp_path):
    """Nothing is learned, and doubtful pairs are left out."""
    laser.train(frozen(signal=trained["signal"]), tmp_path / "run")
    state = load_state(newest_checkpoint(tmp_path / "run" / "checkpoints", ("signal",)) / "signal")
    assert state["thresholds"]["a"]["vowels"] == pytest.approx(THRESHOLD)
    steps = [json.loads(line) for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    assert sum(step["dropped"]["doubtful"] for step in steps) > 0

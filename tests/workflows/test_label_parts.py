"""Large labeling jobs: parts, shards, and processes that are killed."""

import json
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kills import Killer, exit_code, label_in_parts
from laser.commands import label_files, label_parts
from laser.commands.label import label
from laser.config import parse_config
from laser.core.errors import ConfigError, DataError, RewardModelError, RunDirectoryError
from laser.core.files import make_folder
from processes import FORKS
from runs import make_table


@pytest.fixture
def table(tmp_path):
    split = {"train": 12, "dev": 0}
    table = make_table(tmp_path, "vowels", "short", split=split, selector={"type": "fixed", "arm": "vowels"})
    table["rewards"]["models"] = table["rewards"]["models"][1:]
    return table


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(label_files, "PART_PROMPTS", 4)


def rows(folder):
    lines = [line for path in sorted(folder.glob("part-*")) for line in path.read_text().splitlines()]
    return sorted((json.loads(line) for line in lines), key=lambda row: (row["prompt_id"], row["chosen_score"]))


def summary(folder, name="summary.json"):
    return json.loads((folder / name).read_text())


def test_a_part_is_one_file_and_one_record(table, tmp_path, small_parts):
    out = tmp_path / "pairs"
    label(parse_config(table), out)
    parts = [f"part-00000{number}.jsonl" for number in range(3)]
    records = [f".part-00000{number}.json" for number in range(3)]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*parts, *records, ".label.lock", "label.json", "summary.json"]
    )
    counted = [json.loads((out / name).read_text()) for name in records]
    assert [one["prompts"] for one in counted] == [4, 4, 4]
    assert sum(one["pairs"] for one in counted) == summary(out)["pairs"] == len(rows(out))


def test_parts_of_ten_thousand_prompts():
    folder = label_files.LabelFolder(Path("pairs"), "jsonl", label_files.Shard())
    parts = [part.steps for part in folder.parts(25_001, 16)]
    assert [steps.start for steps in parts] == [0, 625, 1250]
    assert parts[-1].stop == 1563
    assert [part.steps for part in folder.parts(7, 20_000)] == [range(1)]


@pytest.mark.slow
def test_shards_in_one_folder_make_the_rows_of_one_process(table, tmp_path):
    config = parse_config(table)
    whole = label(config, tmp_path / "whole")
    reports = [label(config, tmp_path / "shards", shard=f"{index}/3") for index in (2, 3, 1)]
    assert rows(tmp_path / "shards") == rows(tmp_path / "whole")
    assert sum(report.num_pairs for report in reports) == whole.num_pairs
    assert all(report.num_prompts < whole.num_prompts for report in reports)
    total = summary(tmp_path / "shards")
    assert (total["pairs"], total["prompts"], total["chosen"]) == (whole.num_pairs, 12, whole.chosen)
    assert total["left_out"] == whole.left_out
    assert total["usage"]["vowels"]["responses"] == whole.usage["vowels"]["responses"] > 0
    assert not list((tmp_path / "whole").glob("*of*"))


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1/0", "a/4", "3", "1/100000", "-1/4"])
def test_a_shard_that_does_not_exist_is_refused(table, tmp_path, shard):
    with pytest.raises(ConfigError, match=r"(there is no shard|--shard is) .*; give I/N"):
        label(parse_config(table), tmp_path / "pairs", shard=shard)
    assert not (tmp_path / "pairs").exists()


@pytest.mark.slow
def test_shards_of_different_jobs_do_not_share_a_folder(table, tmp_path):
    config, out = parse_config(table), tmp_path / "pairs"
    label(config, out, shard="1/3")
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(ConfigError, match="another configuration"):
        label(parse_config({**table, "seed": 4}), out, shard="2/3")
    with pytest.raises(ConfigError, match="another configuration"):
        label(config, out, shard="2/3", format="parquet")
    for other in ("2/4", None):
        with pytest.raises(ConfigError, match="holds a job of 3 shards, not"):
            label(config, out, shard=other)
    (tmp_path / "scores.py").write_text((tmp_path / "scores.py").read_text() + "\n# another\n")
    with pytest.raises(ConfigError, match="reward models changed since"):
        label(config, out, shard="2/3")
    assert sorted(path.name for path in out.iterdir()) == before
    with pytest.raises(DataError, match="shard 99999/99999 has none of the 12 prompts; use fewer shards"):
        label(config, tmp_path / "other", shard="99999/99999")


def test_a_shard_may_have_no_pair_but_not_for_want_of_scores(table, tmp_path):
    """Its prompts may all give ties, and the job still has a summary; without scores something is broken."""
    function = f"{tmp_path}/scores.py"
    table["selector"], out = {"type": "fixed", "arm": "only"}, tmp_path / "pairs"
    table["rewards"]["models"] = [{"type": "function", "name": "only", "function": f"{function}:constant"}]
    for shard in ("1/2", "2/2"):
        assert label(parse_config(table), out, shard=shard).num_pairs == 0
    assert summary(out)["prompts"] == 12
    assert summary(out)["left_out"]["ties"] > 0
    table["rewards"]["models"][0]["function"] = f"{function}:silent"
    with pytest.raises(RewardModelError, match="gave no pair"):
        label(parse_config(table), tmp_path / "other", shard="1/2")
    assert not list((tmp_path / "other").glob("summary*"))


def test_two_processes_do_not_label_one_shard(table, tmp_path):
    config, out = parse_config(table), tmp_path / "pairs"
    label(config, out, shard="1/2")
    left = out / f".part-00001-of-00002-000000.jsonl.{16 * 'a'}.tmp"
    left.write_text("of a killed process")
    (out / ".part-00001-of-00002-000000.json").unlink()
    with label_files.LabelFolder(out, "jsonl", label_files.Shard(1, 2)).locked():
        assert not left.exists()
        with pytest.raises(RunDirectoryError, match=r"another process works on .*/pairs; wait for it or stop it"):
            label(config, out, shard="1/2")
        label(config, out, shard="2/2")
    label(config, out, shard="1/2")
    assert summary(out)["prompts"] == 12


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        (".part-00001-of-00002-000000.json", "remove it to label its prompts again"),
        ("summary-00001-of-00002.json", "run the command of its shard again"),
        ("label-00001-of-00002.json", "choose a new --out"),
    ],
)
def test_a_record_that_is_cut_short_is_named_with_the_cure(table, tmp_path, name, cure):
    config, out = parse_config(table), tmp_path / "pairs"
    label(config, out, shard="1/2")
    (out / name).write_text((out / name).read_text()[:20])
    with pytest.raises(RunDirectoryError, match=f"{name} is damaged .*; {cure}"):
        label(config, out, shard="1/2" if name.startswith(".") else "2/2")
    if name.startswith("."):
        (out / name).unlink()
    if not name.startswith("label"):
        assert label(config, out, shard="1/2").num_prompts > 0


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "count"), [("select", 1), ("sample", 2), ("score", 4), ("embed", 6)])
def test_a_job_that_is_killed_continues_to_the_same_files(table, tmp_path, small_parts, phase, count):
    """A random selector, so that a job which forgot its draws would choose other reward models."""
    config, out = parse_config({**table, "selector": {"type": "random"}}), tmp_path / "again"
    label(config, tmp_path / "whole")
    process = FORKS.Process(target=label_in_parts, args=(config, out, 4, Killer(phase, count)))
    process.start()
    assert exit_code(process) == -9
    label(config, out)
    for path in (tmp_path / "whole").glob("part-*"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())


def test_the_slurm_script_labels_the_shard_of_its_task(tmp_path):
    (tmp_path / "python").write_text('#!/bin/bash\necho "$OMP_NUM_THREADS $*"\n')
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "8"}
    script = Path(__file__).parents[2] / "configs" / "slurm" / "label.sbatch"
    done = subprocess.run(["bash", script, "run.toml", "out", "64"], env=environment, capture_output=True, text=True)
    assert done.stdout == "8 -m laser label run.toml --out out --shard 3/64\n"


@pytest.mark.slow
def test_a_damaged_part_is_named_and_made_again(table, tmp_path, small_parts):
    config, out = parse_config(table), tmp_path / "pairs"
    label(config, out)
    path = out / "part-000001.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(
        RunDirectoryError, match=r"part-000001.jsonl is damaged .*; remove it to label its prompts again"
    ):
        label(config, out)
    path.unlink()
    label(config, out)
    assert path.read_bytes() == whole


@pytest.mark.slow
def test_a_damaged_batch_is_named_and_made_again(table, tmp_path, small_parts, monkeypatch):
    """The process is killed in the second part, and the file system loses the end of a batch."""
    config, out = parse_config(table), tmp_path / "pairs"
    whole = label(config, tmp_path / "whole")
    write = label_parts.Part.write_batch

    def killed(part, step, rows, record):
        write(part, step, rows, record)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(label_parts.Part, "write_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            label(config, out)
    (batch,) = (out / ".part-000001").iterdir()
    content = batch.read_bytes()
    for damage in (content[:-9], content[:20], content.partition(b"\n")[2], b""):
        batch.write_bytes(damage)
        with pytest.raises(
            RunDirectoryError, match=r"00000002.jsonl is damaged .*; remove it to label its prompts again"
        ):
            label(config, out)
    batch.unlink()
    assert label(config, out).num_pairs == whole.num_pairs
    assert rows(out) == rows(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("selector", ["fixed", "ensemble"])
def test_no_context_is_computed_for_a_selector_that_reads_none(table, tmp_path, monkeypatch, selector):
    if selector == "ensemble":
        table["selector"] = {"type": "ensemble"}
    config = parse_config(table)
    with monkeypatch.context() as patched:
        patched.setattr("laser.commands.label.without_unread", lambda config: config)
        label(config, tmp_path / "with")
    monkeypatch.setattr("laser.policy.policy.Policy.embed", None)
    label(config, tmp_path / "without")
    assert rows(tmp_path / "without") == rows(tmp_path / "with")


def test_a_folder_of_an_earlier_version_is_refused(table, tmp_path):
    out = tmp_path / "pairs"
    out.mkdir()
    config = parse_config(table)
    (out / "label.json").write_text(json.dumps({"config": config.model_dump(mode="json"), "format": "jsonl"}))
    (out / ".part-000000.json").write_text("{}")
    with pytest.raises(ConfigError, match="earlier version of laser; choose a new --out"):
        label(config, out)


def test_a_folder_that_several_writers_make_at_once_is_made_once(tmp_path):
    """As the writers of a Ray job do with the folder of a part."""
    folders = [tmp_path / str(number) for number in range(200)]
    together = threading.Barrier(8, timeout=30)

    def make(_):
        for folder in folders:
            together.wait()
            assert make_folder(folder) == folder

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    assert all(folder.is_dir() for folder in folders)

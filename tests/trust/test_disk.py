"""Disks that are full or read-only while a run writes: a sentence, nothing lost, the same result once there is room."""

import contextlib
import os
import random

import pytest

import laser
from counted import count, times
from disks import can_mount, read_only, small_disk, small_files
from kills import same_run
from laser.commands.label import label
from laser.config import parse_config
from laser.core.errors import RunDirectoryError
from laser.training.checkpoint import newest_checkpoint
from laser.training.progress import Progress
from runs import make_table, steps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run on a disk with room, and its table; every checkpoint is kept."""
    folder = tmp_path_factory.mktemp("whole")
    table = make_table(folder, "vowels", checkpoint={"every": 1, "keep": 100}, split={"dev": 2})
    laser.train(table, folder / "whole")
    return folder / "whole", table


def used(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def continue_run(run, table):
    """Resume the run, or begin it where the disk was full before it had a configuration."""
    laser.resume(run) if (run / "config.json").is_file() else laser.train(table, run)


@pytest.mark.parametrize("seed", range(times(2)))
def test_a_full_disk(whole, tmp_path, seed):
    """The size is drawn between nothing and what the run needs, so that another file meets the end every time."""
    if not can_mount(tmp_path):
        pytest.skip("only root may mount a small file system")
    count("full disks")
    path, table = whole
    size = random.Random(seed).randrange(16 * 1024, int(0.9 * used(path)))
    with small_disk(tmp_path / "disk", size) as grow:
        run = tmp_path / "disk" / "run"
        with pytest.raises(RunDirectoryError, match=r"No space left on device|choose another --out"):
            laser.train(table, run)
        before = newest_checkpoint(run / "checkpoints", ["policy", "optimizer", "selector"])
        assert before is None or len(steps(run)) >= int(before.name[6:])
        assert not list(run.glob("checkpoints/.*"))  # no half-written checkpoint takes up room
        grow(10 * used(path))
        continue_run(run, table)
        assert same_run(run, path)


@pytest.mark.parametrize("size", [2_000, 20_000])
def test_files_that_may_not_grow(whole, tmp_path, size):
    path, table = whole
    with small_files(size), pytest.raises(RunDirectoryError, match="cannot write to"):
        laser.train(table, tmp_path / "run")
    continue_run(tmp_path / "run", table)
    assert same_run(tmp_path / "run", path)


class Freezer(Progress):
    """Makes a folder read-only when the run is about to write its n-th checkpoint."""

    def __init__(self, stack, folder, count):
        self._stack, self._folder, self._left = stack, folder, count

    def phase(self, name, *, iteration, step):
        self._left -= name == "checkpoint"
        if self._left == 0:
            self._stack.enter_context(read_only(self._folder))
            self._left = -1


@pytest.mark.parametrize("count", [2, 4])
def test_a_folder_that_becomes_read_only(whole, tmp_path, count):
    if os.geteuid() == 0 and not can_mount(tmp_path):
        pytest.skip("for root nothing is read-only without mounts")
    path, table = whole
    run = tmp_path / "run"
    with contextlib.ExitStack() as stack:
        progress = Freezer(stack, run / "checkpoints", count)
        with pytest.raises(RunDirectoryError, match=r"cannot write to .*checkpoints .*continue with --resume"):
            laser.train(table, run, progress=progress)
        assert newest_checkpoint(run / "checkpoints", ["policy"]) is not None
        with pytest.raises(RunDirectoryError, match=r"cannot write to|cannot use"):
            laser.resume(run)  # still read-only
    laser.resume(run)
    assert same_run(run, path)


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_labels_on_a_full_disk(tmp_path, format):
    if not can_mount(tmp_path):
        pytest.skip("only root may mount a small file system")
    config = parse_config(make_table(tmp_path, "vowels", "short", split={"train": 24, "dev": 0}))
    label(config, tmp_path / "whole", format=format)
    with small_disk(tmp_path / "disk", 24 * 1024) as grow:
        out = tmp_path / "disk" / "pairs"
        with pytest.raises(RunDirectoryError, match=r"cannot write to .*No space left.*run the command again"):
            label(config, out, format=format)
        parts = sorted(path.name for path in out.glob("part-*"))
        grow(10 * used(tmp_path / "whole"))
        label(config, out, format=format)
        whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("part-*")}
        assert parts < sorted(whole)
        assert {path.name: path.read_bytes() for path in out.glob("part-*")} == whole

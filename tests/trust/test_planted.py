"""Links, FIFOs and folders that someone planted inside a folder of laser's: refused at once, and nothing is touched."""

import json
import os
import shutil

import pytest

import laser
from laser.analysis.follow import Watch
from laser.analysis.report import write_report
from laser.commands.best_of_n import best_of_n, standard_methods
from laser.commands.label import label
from laser.config import load_config, parse_config
from laser.core.errors import LaserError, RunDirectoryError, StoppedError
from laser.core.files import atomic_write, is_leftover, open_regular, read_json, replacing, replacing_folder
from laser.core.state import load_state, save_state
from laser.data.files import load_file
from runs import essence, make_table

PRECIOUS = "precious\n"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped in its second iteration, and the same run left alone."""
    folder = tmp_path_factory.mktemp("stopped")
    table = make_table(
        folder, "vowels", training={"sampling": "per_iteration"}, checkpoint={"every": 1}, split={"dev": 2}
    )
    laser.train(table, folder / "whole")
    asked = []

    def stop():
        asked.append(True)
        return len(asked) == 6

    with pytest.raises(StoppedError):
        laser.train(table, folder / "run", stop=stop)
    return folder


@pytest.fixture
def run(stopped, tmp_path):
    shutil.copytree(stopped / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def victim(tmp_path):
    folder = tmp_path / "victim"
    folder.mkdir()
    for name in ("file", "policy.json", "adapter_config.json", "README.md", "done", "responses.json"):
        (folder / name).write_text(PRECIOUS)
    return folder


def refusal(work):
    """What laser says if it refuses to do something; empty if it does it."""
    try:
        work()
    except LaserError as error:
        return str(error)
    return ""


def untouched(victim):
    return {path.read_text() for path in victim.iterdir()} == {PRECIOUS} and len(list(victim.iterdir())) == 6


def replace(path, make):
    """Put something else where a file or folder is or would be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)


FILES = (".lock", "config.json", "run.json", "steps.jsonl", "evaluations.jsonl", "summary.json")
INNER = ("checkpoints/*/policy.json", "checkpoints/*/policy.safetensors", "checkpoints/*/manifest.json")
PENDING = ("responses/iteration-00001/responses.json", "responses/iteration-00001/done")
FOLDERS = ("checkpoints", "checkpoints/00099-000000", "responses", "responses/iteration-00001", "adapter")


def planted(run, name):
    """The path with the newest checkpoint in the place of the star."""
    newest = max((path.name for path in (run / "checkpoints").iterdir()), default="")
    return run / name.replace("*", newest)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FILES, *INNER, *PENDING, *FOLDERS])
@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder"])
def test_a_resumed_run_touches_nothing_that_was_planted(stopped, run, victim, name, kind):
    """It is refused with a sentence, or the planted thing is passed over or replaced and the result is the same."""
    is_folder = name in FOLDERS
    make = {
        "link": lambda path: path.symlink_to(victim if is_folder else victim / "file"),
        "dangling": lambda path: path.symlink_to(victim / "new"),
        "fifo": os.mkfifo,
        "folder": lambda path: path.write_text("") if is_folder else path.mkdir(),
    }[kind]
    replace(planted(run, name), make)
    said = refusal(lambda: laser.resume(run))
    assert "\n" not in said
    assert said or essence(run) == essence(stopped / "whole")
    assert untouched(victim)


@pytest.mark.parametrize("name", [".lock", "steps.jsonl", "evaluations.jsonl"])
def test_a_hard_link_is_not_written_through(run, victim, name):
    content = (run / name).read_bytes()
    (victim / "file").write_bytes(content)
    replace(run / name, lambda path: path.hardlink_to(victim / "file"))
    with pytest.raises(RunDirectoryError, match="hard link"):
        laser.resume(run)
    assert (victim / "file").read_bytes() == content


@pytest.mark.slow
def test_a_new_run_empties_nothing(stopped, tmp_path, victim):
    table = load_config_table(stopped)
    for name in (".lock", "run.json"):
        out = tmp_path / f"out{name}"
        out.mkdir()
        (out / name).symlink_to(victim / "file")
        if name == ".lock":
            with pytest.raises(RunDirectoryError, match="is a link"):
                laser.train(table, out)
        else:
            laser.train(table, out)
            assert not (out / name).is_symlink()
    assert untouched(victim)


def load_config_table(stopped):
    return parse_config(json.loads((stopped / "run" / "config.json").read_text()))


def test_a_link_that_the_user_names_is_followed(stopped, run, tmp_path):
    (tmp_path / "elsewhere").symlink_to(run)
    laser.resume(tmp_path / "elsewhere")
    assert essence(run) == essence(stopped / "whole")


def test_what_a_killed_process_was_writing_is_removed(run):
    (run / ".steps.jsonl.0123456789abcdef.tmp").write_text("half")
    laser.resume(run)
    assert not [path for path in run.iterdir() if is_leftover(path.name)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.json", "part-000000.jsonl", ".part-000000.json", "summary.json"])
def test_labels_replace_planted_links(stopped, tmp_path, victim, name):
    config, out = load_config_table(stopped), tmp_path / "pairs"
    label(config, out)
    before = (out / "part-000000.jsonl").read_bytes()
    replace(out / name, lambda path: path.symlink_to(victim / "file"))
    if not refusal(lambda: label(config, out)):
        assert (out / "part-000000.jsonl").read_bytes() == before
    assert untouched(victim)


@pytest.mark.slow
def test_best_of_n_replaces_planted_links(stopped, tmp_path, victim):
    table = json.loads((stopped / "run" / "config.json").read_text())
    config = parse_config({**table, "split": {**table["split"], "test": 4}})
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").symlink_to(victim / "file")
    (out / f".config.json.{'0' * 16}.tmp").symlink_to(victim / "file")
    best_of_n(config, out, standard_methods(config))
    assert untouched(victim)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["link", "fifo"])
@pytest.mark.parametrize("name", ["config.json", "steps.jsonl", "evaluations.jsonl", "report", "report.html"])
def test_looking_at_a_run_neither_hangs_nor_follows(stopped, tmp_path, victim, kind, name):
    run = tmp_path / "run"
    shutil.copytree(stopped / "whole", run)
    target = victim if name == "report" else victim / "file"
    replace(run / name, os.mkfifo if kind == "fifo" else lambda path: path.symlink_to(target))
    for look in (lambda: write_report(run, pictures=run / "report"), lambda: Watch(run).look()):
        assert "\n" not in refusal(look)
    assert untouched(victim)


class TestInputs:
    """Files that the user names may be links; FIFOs and devices are refused at once."""

    @pytest.fixture(params=["fifo", "device"])
    def endless(self, request, tmp_path):
        path = tmp_path / "input.jsonl"
        if request.param == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        return path

    def test_of_a_configuration(self, endless):
        with pytest.raises(LaserError, match="not a regular file"):
            load_config(endless)

    def test_of_prompts(self, endless):
        with pytest.raises(LaserError):
            load_file(endless)

    def test_a_link_is_followed(self, tmp_path):
        (tmp_path / "real.jsonl").write_text('{"prompt": "a"}\n')
        (tmp_path / "input.jsonl").symlink_to("real.jsonl")
        assert len(load_file(tmp_path / "input.jsonl")) == 1


class TestWriting:
    """Whole or absent, under names that cannot be foreseen."""

    def test_a_link_in_the_place_of_the_file_is_replaced(self, tmp_path, victim):
        (tmp_path / "a.json").symlink_to(victim / "file")
        atomic_write(tmp_path / "a.json", b"{}")
        assert read_json(tmp_path / "a.json") == {}
        save_state(tmp_path / "a", {"n": 1})
        assert load_state(tmp_path / "a") == {"n": 1}
        assert untouched(victim)

    def test_an_error_leaves_the_old_file_and_nothing_else(self, tmp_path):
        (tmp_path / "a").write_text("old")
        for way in (replacing, replacing_folder):
            with pytest.raises(ZeroDivisionError), way(tmp_path / "a"):
                raise ZeroDivisionError
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]

    def test_permissions_follow_the_umask(self, tmp_path):
        before = os.umask(0o027)
        try:
            atomic_write(tmp_path / "a", b"")
        finally:
            os.umask(before)
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640

    def test_names_differ_every_time(self, tmp_path):
        with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as other:
            assert one != other
            assert is_leftover(one.name)

    def test_appending_creates_and_keeps(self, tmp_path):
        for _ in range(2):
            with open_regular(tmp_path / "a", "ab") as file:
                file.write(b"x")
        assert (tmp_path / "a").read_bytes() == b"xx"

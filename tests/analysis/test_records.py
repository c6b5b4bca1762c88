"""Records of runs as they are found on disk: whole, half-written, damaged; and text that must not act."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laser.analysis.records import parse_evaluation, parse_step, read_run, read_summary
from laser.analysis.shown import markup, one_line, visible
from laser.core.errors import RunDirectoryError
from written import NAMES, evaluation, step, typical, write_run


def test_a_whole_run_is_read(tmp_path):
    run = read_run(write_run(tmp_path, typical(), [evaluation(0, 20)]))
    assert run.names == NAMES
    assert run.batches == tuple(range(1, 13))
    assert (len(run.evaluations), run.damage, run.finished) == (1, (), False)
    assert run.setting("selector.type") == "linucb"
    assert run.setting("selector.type.no") is None
    assert run.setting("signal.type", "none") == "none"


def test_a_line_that_is_being_written_is_not_damage(tmp_path):
    run = read_run(write_run(tmp_path, typical(3), tail='{"iteration": 0, "st'))
    assert (len(run.steps), run.damage) == (3, ())


def test_a_damaged_line_is_named_left_out_and_leaves_a_gap(tmp_path):
    lines = [json.dumps(one).encode() for one in typical(9)]
    lines[1] = lines[1][:40] + b"\xff" + lines[1][41:]
    lines[3] = lines[3][:-7]
    lines[5] = lines[5].replace(b'"loss"', b'"lOss"')
    lines[7] = lines[7].replace(b'"good"', b'"gooc"').replace(b'"bad"', b'"bae"')
    write_run(tmp_path, [])
    (tmp_path / "steps.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    run = read_run(tmp_path)
    assert run.batches == (1, 3, 5, 7, 9)
    assert [(one.file, one.line) for one in run.damage] == [("steps.jsonl", line) for line in (2, 4, 6, 8)]
    assert [one.why for one in run.damage][:3] == ["not UTF-8", "not JSON", "loss: field required"]
    assert "is not a reward model of config.json" in run.damage[3].why


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"loss": float("nan")}, "loss: input should be a finite number"),
        ({"pairs": -1}, "pairs: input should be greater than or equal to 0"),
        ({"seconds": {"train": float("inf")}}, "finite"),
        ({"selection": {"weights": [[1.0]], "categories": [{}], "charged": []}}, "does not have 2 reward models"),
        ({"selection": {"weights": [[1.0, 0]], "categories": [], "charged": []}}, "differ in length"),
        ({"bandit_rewards": []}, "selection.charged and bandit_rewards differ in length"),
        ({"quarantined": {"ugly": "x"}}, "'ugly' is not a reward model"),
        ({"example": 3}, "example"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        parse_step(json.dumps(step(0, **changed)).encode(), NAMES)


def test_deeply_nested_lines_are_damage_and_not_a_crash():
    with pytest.raises(ValueError, match="not JSON"):
        parse_evaluation(b"[" * 200_000)


def test_any_flipped_bit_is_read_or_refused_and_never_crashes(tmp_path):
    """Every bit of a line in turn, a tenth of them: the reader gives a step or refuses."""
    line = json.dumps(step(0)).encode()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.choice(8 * len(line), size=len(line), replace=False):
        flipped = bytearray(line)
        flipped[place // 8] ^= 1 << (place % 8)
        try:
            parse_step(bytes(flipped), NAMES)
        except ValueError:
            refused += 1
    assert refused > 0.3 * len(line)


@pytest.mark.parametrize("config", ["{", "[]", "{}", '{"rewards": {"models": [1]}}', '{"rewards": 3}'])
def test_a_damaged_configuration_is_a_sentence(tmp_path, config):
    write_run(tmp_path, typical(2))
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(RunDirectoryError, match=r"config\.json"):
        read_run(tmp_path)


SUMMARY = {
    "num_batches": 2,
    "metric_before": None,
    "metric_after": 0.5,
    "scored": {"good": 3},
    "tokens": {},
    "seconds": {"train": 1.5},
    "reward_models": {"good": {"calls": 3}},
}


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", *(json.dumps({**SUMMARY, key: "many"}) for key in SUMMARY), "[" * 100_000]
)
def test_a_damaged_summary_is_a_sentence_where_it_is_needed_and_left_out_elsewhere(tmp_path, content):
    write_run(tmp_path, typical(2))
    (tmp_path / "summary.json").write_text(content)
    run = read_run(tmp_path)
    assert (run.summary, run.finished) == (None, True)
    with pytest.raises(RunDirectoryError, match=r"summary\.json"):
        read_summary(tmp_path)


def test_a_summary_says_what_reward_models_were_used_for(tmp_path):
    (write_run(tmp_path, typical(2)) / "summary.json").write_text(json.dumps(SUMMARY))
    assert read_run(tmp_path).summary == SUMMARY
    assert read_summary(tmp_path) == SUMMARY


@pytest.mark.parametrize("name", ["steps.jsonl", "evaluations.jsonl", "config.json", "summary.json"])
@pytest.mark.parametrize("kind", ["link", "FIFO", "folder"])
def test_links_fifos_and_folders_in_a_run_are_refused_at_once(tmp_path, name, kind):
    """A FIFO without a writer would hold a reader forever; a link would show a file that is not part of the run."""
    path = write_run(tmp_path / "run", typical(2), [evaluation(0, 1)])
    (path / "summary.json").write_text(json.dumps(SUMMARY))
    whole = path / name
    whole.rename(tmp_path / "elsewhere")
    if kind == "link":
        whole.symlink_to(tmp_path / "elsewhere")
    elif kind == "FIFO":
        os.mkfifo(whole)
    else:
        whole.mkdir()
    with pytest.raises(RunDirectoryError, match=name.replace(".", r"\.")):
        read_summary(path) if name == "summary.json" else read_run(path)


def test_control_sequences_and_direction_marks_are_written_out():
    assert visible("a\x1b[31mb\x07") == "a\\x1b[31mb\\x07"
    assert visible("\u202eevil\u2066") == "\\u202eevil\\u2066"
    assert visible("\ud800") == "\\ud800"
    assert visible("\x9b2J\u2028") == "\\x9b2J\\u2028"
    assert visible("Zürich 東京 ну 👩‍💻 a\nb\tc") == "Zürich 東京 ну 👩‍💻 a\nb\tc"
    assert markup('<script>"&\x1b') == "&lt;script&gt;&quot;&amp;\\x1b"


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.text())
def test_visible_text_is_safe_whatever_it_was(text):
    shown = visible(text)
    shown.encode()
    assert not any(ord(character) < 32 and character not in "\n\t" for character in shown)
    assert not any(0x7F <= ord(character) <= 0x9F for character in shown)
    assert visible(shown) == shown
    line = one_line(text, 20)
    assert len(line) <= 20
    assert "\n" not in line

"""What `laser label` leaves out is counted and named, a resume keeps it, and a start that fails claims nothing."""

import json

import pytest

from laser.cli import label as cli
from laser.commands.label import label
from laser.config import parse_config
from laser.core.errors import ConfigError, DataError, RewardModelError, RunDirectoryError
from runs import make_table
from suites import write_toml

DOWN = "def down(prompts, responses):\n    raise RuntimeError('no answer from the judge')\n"
SAMPLER = (
    "from laser.extend import TransformersGenerator\n\ndef make(policy):\n    return TransformersGenerator(policy)\n"
)


def with_models(folder, *names, **sections):
    """A table whose pool holds only functions; `down` raises whenever it is asked."""
    table = make_table(folder, *(name for name in names if name != "down"), **sections)
    table["split"] = {"train": 6, "dev": 0}
    table["rewards"] = {"models": table["rewards"]["models"][1:]}
    if "down" in names:
        (folder / "down.py").write_text(DOWN)
        model = {"type": "function", "name": "down", "function": f"{folder}/down.py:down"}
        table["rewards"]["models"].append(model)
    return table


def parts(folder):
    return {path.name: path.read_text() for path in folder.glob("part-*")}


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_everything_left_out_is_counted(tmp_path):
    """6 prompts x 3 pairs: ties, pairs that could not be drawn and pairs written make 18; cut prompts are counted."""
    rows = [{"id": str(i), "prompt": f"{i} " + "long " * (200 * (i < 2))} for i in range(6)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = with_models(tmp_path, "short", selector={"type": "fixed", "arm": "short"}) | {"seed": 7}
    table["data"] = {"type": "file", "train": str(tmp_path / "prompts.jsonl")}
    table["policy"]["overlong"] = "cut_middle"
    report = label(parse_config(table), tmp_path / "pairs")
    left_out = report.left_out
    assert report.num_pairs + left_out["ties"] + left_out["missing_pairs"] + left_out["unscored"] == 18
    assert left_out["ties"] > 0
    assert left_out["prompts_without_pairs"] == 6 - report.num_prompts
    assert left_out["prompts_cut"] == 2
    assert left_out["tokens_cut"] > 1000
    assert report.usage["short"]["responses"] > 0
    assert summary(tmp_path / "pairs")["left_out"] == left_out
    assert any("prompts cut that way" in line and "pairs of equal score" in line for line in report.sentences())


def test_a_reward_model_that_raises_is_named_and_the_others_continue(tmp_path):
    table = with_models(tmp_path, "vowels", "down", selector={"type": "sequential"})
    report = label(parse_config(table), tmp_path / "pairs")
    assert report.num_pairs == report.chosen["vowels"] > 0
    assert report.failed.keys() == {"down"}
    assert "no answer from the judge" in report.failed["down"]
    assert report.usage["down"]["failures"] == 3
    assert any(line.startswith("failed: down: ") for line in report.sentences())
    assert summary(tmp_path / "pairs")["failed"] == report.failed


@pytest.mark.slow
@pytest.mark.parametrize("redone", [1, 3, 5])
def test_a_resume_keeps_the_counts_the_quarantine_and_the_choices(tmp_path, redone, monkeypatch):
    """On the way one reward model goes into quarantine and the selector chooses again; a resume knows of both."""
    monkeypatch.setattr("laser.commands.label_files.PART_PROMPTS", 1)
    table = with_models(tmp_path, "vowels", "short", "constant", "down", selector={"type": "random"}) | {"seed": 5}
    table["training"]["batch_size"] = 1
    config = parse_config(table)
    whole = label(config, tmp_path / "whole")
    assert whole.failed.keys() == {"down"}
    label(config, tmp_path / "again")
    for path in sorted((tmp_path / "again").glob(".part-??????.json"))[6 - redone :]:
        path.unlink()
    again = label(config, tmp_path / "again")
    assert parts(tmp_path / "again") == parts(tmp_path / "whole")
    for report in (again, whole):
        for counts in report.usage.values():
            del counts["loads"]  # a job that resumes loads again what was resident
    assert (again.left_out, again.usage, again.failed) == (whole.left_out, whole.usage, whole.failed)


def test_no_pair_at_all_is_an_error_that_says_why(tmp_path):
    config = parse_config(with_models(tmp_path, "silent"))
    with pytest.raises(RewardModelError, match=r"6 prompts gave no pair.*silent: \d+ of \d+ responses without"):
        label(config, tmp_path / "pairs")
    assert summary(tmp_path / "pairs")["pairs"] == 0
    (tmp_path / "scores.py").write_text(
        "def silent(prompts, responses):\n    return [sum(map(ord, text)) for text in responses]"
    )
    assert label(config, tmp_path / "pairs").num_pairs > 0


def test_a_start_that_fails_claims_nothing(tmp_path):
    bad = with_models(tmp_path, "vowels")
    good = {**bad, "split": {"train": 4, "dev": 0}}
    with pytest.raises(DataError, match="training prompts"):
        label(parse_config({**bad, "split": {"train": 0, "dev": 4}}), tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()
    label(parse_config(good), tmp_path / "pairs")
    with pytest.raises(ConfigError, match="another configuration"):
        label(parse_config(bad), tmp_path / "pairs")
    with pytest.raises(RunDirectoryError, match="is a file"):
        label(parse_config(good), tmp_path / "scores.py")


def test_the_command_says_what_was_left_out(tmp_path, capsys):
    table = with_models(tmp_path, "vowels", "silent", "down", selector={"type": "sequential"})
    cli.label(write_toml(tmp_path / "run.toml", table), [], tmp_path / "pairs")
    shown = capsys.readouterr().out
    assert "labeling: 3 batches" in shown
    assert "batch 3 of 3" in shown
    assert "training:" not in shown
    assert "left out: silent: " in shown
    assert "failed: down: " in shown


@pytest.mark.slow
def test_a_resume_refuses_what_changed_behind_the_configuration(tmp_path, monkeypatch):
    """The configuration names files: other prompts or other code under the same names make other labels."""
    monkeypatch.setattr("laser.commands.label_files.PART_PROMPTS", 2)
    table = with_models(tmp_path, "vowels", "short", selector={"type": "sequential"})
    rows = [json.dumps({"prompt": f"question {number}", "answer": "old"}) + "\n" for number in range(6)]
    (tmp_path / "prompts.jsonl").write_text("".join(rows))
    table["data"] = {"type": "file", "train": str(tmp_path / "prompts.jsonl")}
    (tmp_path / "sampler.py").write_text(SAMPLER)
    table["generation"] |= {"engine": "python", "factory": f"{tmp_path / 'sampler.py'}:make"}
    config = parse_config(table)
    label(config, tmp_path / "pairs")
    sorted((tmp_path / "pairs").glob(".part-*.json"))[-1].unlink()
    for file, old, new, words in (
        ("prompts.jsonl", "question", "query", r"prompts changed since the first batches of .*; restore them"),
        ("prompts.jsonl", "old", "new", "prompts changed since"),
        ("prompts.jsonl", "}", ', "level": 2}', "prompts changed since"),  # reward functions read it
        ("scores.py", "def ", "# another\ndef ", "reward models changed since"),
        ("sampler.py", "def ", "# another\ndef ", "generator changed since"),
    ):
        content = (tmp_path / file).read_text()
        (tmp_path / file).write_text(content.replace(old, new))
        with pytest.raises(ConfigError, match=words):
            label(config, tmp_path / "pairs")
        (tmp_path / file).write_text(content)
    assert label(config, tmp_path / "pairs").num_pairs > 0

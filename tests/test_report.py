"""The report: complete, self-contained, and nothing in it that a model wrote is markup."""

import json
import re
from html.parser import HTMLParser

import pytest

from laser.analysis.report import write_report
from laser.errors import RunDirectoryError


def make_run(folder, *, text="<script>alert(1)</script>", batches=12):
    names = ["a", "b & c"]
    (folder / "config.json").write_text(json.dumps({"rewards": {"models": [{"name": name} for name in names]}}))
    with (folder / "steps.jsonl").open("w") as file:
        for step in range(batches):
            arm = step % 2
            record = {
                "category": "maths",
                "selection": {
                    "weights": [[1.0 - arm, float(arm)]],
                    "categories": [{"maths": 4}],
                    "charged": [names[arm]],
                },
                "bandit_rewards": [0.25 + 0.5 * arm],
                "loss": 0.7 - 0.01 * step,
                "pairs": 10,
                "dropped": {"ties": 1, "empty_responses": 0},
                "scored": {"a": 5, "b & c": 3},
                "tokens": {"sampled": 100},
                "seconds": {"sample": 1.0, "train": 2.0},
                "example": {
                    "prompt": text, "chosen": text, "rejected": "no", "scores": [1.0, 0.5], "reward_model": names[arm]
                },
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
        file.write('{"half a li')  # a run that is being written
    rows = [
        {"batches": 0, "accuracy": 0.5, "by_category": {"maths": 0.5}, "num_prompts": 40, "interval": [0.35, 0.65]},
        {"batches": 12, "accuracy": 0.8, "by_category": {"maths": 0.8}, "num_prompts": 40, "interval": [0.65, 0.9]},
    ]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.extend(attributes)


def test_the_report_says_in_words_who_was_useful_where(tmp_path):
    make_run(tmp_path)
    page = write_report(tmp_path).read_text()
    assert "Dev accuracy went from 50.0% to 80.0% (95% interval 65.0% to 90.0% on 40 prompts: more than chance" in page
    assert "For maths, a was chosen most (50% of 48 prompts)." in page
    assert "Mean bandit reward: b &amp; c 0.75, a 0.25." in page


def test_it_is_one_page_without_network_or_script(tmp_path):
    make_run(tmp_path)
    page = write_report(tmp_path, tmp_path / "page.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert tags.tags.count("svg") == 5
    assert not {"script", "img", "link", "iframe"} & set(tags.tags)
    loaded = [value for name, value in tags.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith("#") for value in loaded)
    assert "&lt;script&gt;" in page
    assert "currentColor" in page
    assert "prefers-color-scheme: dark" in page
    assert re.search(r'name="viewport"', page)


def test_runs_that_cannot_be_reported_are_named(tmp_path):
    with pytest.raises(RunDirectoryError, match="holds no run"):
        write_report(tmp_path)
    make_run(tmp_path, batches=0)
    with pytest.raises(RunDirectoryError, match="has not finished a batch"):
        write_report(tmp_path)

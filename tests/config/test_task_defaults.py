"""What a task sets where the configuration is silent, and that the resolved configuration shows it."""

import pytest

from laser.config import load_config, parse_config
from laser.core.errors import ConfigError
from laser.data.tasks import TASKS

BASE = {
    "policy": {"model": "org/model"},
    "rewards": {"models": [{"type": "loglik", "name": "a", "model": "org/rm"}]},
}


def parse(name, **sections):
    data = {"type": "task", "name": name, **sections.pop("data", {})}
    return parse_config({**BASE, "data": data, **sections})


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_accepted_and_its_choices_are_visible(name):
    task, config = TASKS[name], parse(name)
    table = config.model_dump(mode="json")
    factor = len(task.categories) if task.sizes.per_category else 1
    train = task.sizes.train * factor if task.sizes.train is not None else None
    assert [table["split"][part] for part in ("train", "dev", "test")] == [
        train,
        task.sizes.dev * factor,
        task.sizes.test * factor,
    ]
    assert table["split"]["shrink"] is True
    assert table["split"]["batching"] == ("by_category" if task.by_category else "shuffled")
    assert table["data"]["answer_type"] == task.answer_type
    assert table["data"]["limit"] == task.limit
    assert (table["data"]["categories"] or []) == list(task.categories)
    assert table["policy"]["overlong"] == ("cut_middle" if task.cut else "refuse")
    if task.metric is not None:
        assert (table["evaluation"]["answer"], table["evaluation"]["metric"]) == (task.answer, task.metric)
    assert parse_config(table) == config


def test_what_the_user_writes_stays():
    config = parse(
        "leval_few_shot",
        data={"answer_type": "text", "limit": 3, "categories": ["x"]},
        split={"dev": 7, "batching": "by_category"},
        evaluation={"metric": "f1"},
        policy={"model": "m", "overlong": "refuse"},
    )
    assert (config.data.answer_type, config.data.limit, config.data.categories) == ("text", 3, ("x",))
    assert (config.split.dev, config.split.train, config.split.batching) == (7, 3500, "by_category")
    assert config.split.shrink is False
    assert (config.evaluation.metric, config.evaluation.answer) == ("f1", "whole")
    assert config.policy.overlong == "refuse"


def test_wildchat_counts_by_category_and_names_the_paper_s_classifier():
    assert parse("wildchat").split.train == 5 * 3500
    two = parse("wildchat", data={"categories": ["coding", "math"]})
    assert (two.split.train, two.split.dev, two.split.test) == (7000, 1000, 2000)
    assert two.data.classifier == "valpy/prompt-classification"
    assert parse("wildchat", data={"category_field": "label"}).data.classifier is None
    assert parse("wildchat", data={"path": "chats.jsonl"}).data.classifier is None


def test_paths_start_at_the_file_s_folder_and_names_stay_names(tmp_path):
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "run.toml").write_text(
        'data = {type = "task", name = "gsm8k", path = "gsm8k"}\npolicy = {model = "m"}\n'
        '[[rewards.models]]\ntype = "loglik"\nname = "a"\nmodel = "m"\n'
    )
    data = load_config(tmp_path / "run.toml").data
    assert (data.name, data.path) == ("gsm8k", str(tmp_path / "gsm8k"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"name": "gsm8"}, r"there is no task 'gsm8'; did you mean 'gsm8k'\? `laser tasks` lists them"),
        ({"name": "gsm8k", "template": "Q:"}, r"data\.template has neither \{input\} nor \{context\}"),
        ({"name": "gsm8k", "pth": "x"}, r"unknown key 'data\.pth'; did you mean 'path'"),
        ({"name": "gsm8k", "limit": 0}, r"data\.limit: input should be greater"),
    ],
)
def test_mistakes_are_named(data, words):
    with pytest.raises(ConfigError, match=words):
        parse_config({**BASE, "data": {"type": "task", **data}})

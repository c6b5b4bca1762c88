"""Local paths in a configuration start at its folder; the schema, not a list, says which fields are paths."""

import re
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from laser.config.judge import JudgeConfig, load_judge
from laser.config.load import parse_config
from laser.config.paths import absolute_paths
from laser.config.schema import RunConfig
from laser.config.section import Local
from laser.config.suite import SuiteConfig, load_suite
from suites import write_toml

NOT_LOCAL = {
    "SuiteConfig.name": "a name; the file's name is its default",
    "SuiteConfig.folder": "set by load_suite, absolute",
    "SuiteConfig.base": "a section, whose file load_suite reads",
    "TrackingConfig.name": "a name; the folder's name is its default",
    "HttpReward.path": "a path on the server",
    "JudgeReward.api_key_env": "a variable",
    "HttpReward.api_key_env": "a variable",
    "ServedLogLikelihoodReward.api_key_env": "a variable",
    "JudgeConfig.api_key_env": "a variable",
    "ServerConfig.api_key_env": "a variable",
}


def leaves(annotation: Any) -> list[Any]:
    """Marks, sections and plain types inside an annotation."""
    inner = [leaf for argument in get_args(annotation) for leaf in leaves(argument)]
    return inner or [annotation]


def fields(section: type[BaseModel], table: Any) -> dict[str, tuple[Any, str, list[Any]]]:
    """Fields below a section by name: how to write one in a table, its description, and what it is made of."""
    found = {}
    for name, field in section.model_fields.items():
        parts = [*field.metadata, *leaves(field.annotation)]
        kind = section.model_fields.get("type")
        own = {} if kind is None else {"type": kind.default}

        def place(value, name=name, own=own):
            return table({**own, name: value})

        found[f"{section.__name__}.{name}"] = (place, field.description or "", parts)
        listed = str(field.annotation).startswith("tuple")
        for part in parts:
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= fields(part, lambda value, place=place, listed=listed: place([value] if listed else value))
    return found


FIELDS = {root: fields(root, lambda value: value) for root in (RunConfig, JudgeConfig, SuiteConfig)}
LOCAL = [
    (root, name, place, part.what)
    for root, found in FIELDS.items()
    for name, (place, _, parts) in found.items()
    for part in parts
    if isinstance(part, Local)
]


def innermost(table: Any) -> Any:
    """The value of the one field that a table of `fields` sets."""
    while not isinstance(table, str):
        table = table[0] if isinstance(table, list) else next(v for k, v in table.items() if k != "type")
    return table


def test_the_schema_has_paths():
    assert {name for _, name, _, _ in LOCAL} >= {
        "JsonlData.train", "TaskData.path", "FrozenSelector.run", "JudgeReward.cache", "FunctionReward.function",
        "PythonReward.factory", "PolicyConfig.model", "ServerConfig.adapter_folder", "SuiteConfig.oracle",
    }  # fmt: skip


@pytest.mark.parametrize(("root", "name", "place", "what"), LOCAL, ids=[f"{r.__name__}-{n}" for r, n, _, _ in LOCAL])
def test_every_local_path_starts_at_the_configurations_folder(tmp_path, root, name, place, what):
    (tmp_path / "there").write_text("")
    tail = ":made" if what == "function" else ""
    given = place(f"there{tail}")
    assert innermost(absolute_paths(given, tmp_path, root)) == f"{tmp_path}/there{tail}"
    assert innermost(given) == f"there{tail}"
    assert innermost(absolute_paths(place(f"/a/b{tail}"), tmp_path, root)) == f"/a/b{tail}"
    if what == "source":
        assert innermost(absolute_paths(place("org/model"), tmp_path, root)) == "org/model"
        assert innermost(absolute_paths(place("package:there"), tmp_path, root)) == "package:there"


def test_every_text_that_speaks_of_a_path_is_one():
    speaks = {
        name: any(isinstance(part, Local) for part in parts)
        for found in FIELDS.values()
        for name, (_, description, parts) in found.items()
        if str in parts and re.search(r"\b(paths?|folders?|files?|directory)\b", description, re.IGNORECASE)
    }
    assert {name for name, local in speaks.items() if not local} == NOT_LOCAL.keys()


def test_a_served_models_name_is_not_a_folder(tmp_path):
    (tmp_path / "served").mkdir()
    served = {"name": "j", "type": "judge", "url": "http://h:1", "model": "served", "cache": "replies.sqlite"}
    table = {"policy": {"model": "served"}, "data": {"type": "embedded"}, "rewards": {"models": [served]}}
    config = parse_config(table, base_dir=tmp_path)
    assert config.policy.model == str(tmp_path / "served")
    assert config.rewards.models[0].model == "served"
    assert config.rewards.models[0].cache == str(tmp_path / "replies.sqlite")


def test_a_patch_on_a_reward_model_by_name(tmp_path):
    given = {"rewards": {"models": {"a": {"cache": "x"}, "*": {"function": "f.py:g"}, "b": 3}}}
    models = absolute_paths(given, tmp_path, RunConfig)["rewards"]["models"]
    assert models == {"a": {"cache": f"{tmp_path}/x"}, "*": {"function": f"{tmp_path}/f.py:g"}, "b": 3}


def test_a_suites_judge_keeps_its_replies_where_its_file_says(tmp_path):
    (tmp_path / "judges").mkdir()
    (tmp_path / "judges" / "one.toml").write_text('url = "http://h:1"\nmodel = "m"\ncache = "c.sqlite"\n')
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'seeds = 1\nmetric = "win_rate"\njudge = "judges/one.toml"\noracle = "o.json"\n'
        "[base.policy]\nmodel = 'm'\n[methods.a]\n"
    )
    read = load_suite(suite)
    assert read.judge is not None
    assert read.judge.cache == str(tmp_path / "judges" / "c.sqlite")
    assert read.oracle == str(tmp_path / "o.json")
    assert load_suite(suite, ["oracle=other.json"]).oracle == str(tmp_path / "other.json")
    assert load_judge(tmp_path / "judges" / "one.toml").cache == read.judge.cache


def test_a_patch_without_a_type_has_that_of_what_it_is_laid_over(tmp_path):
    for folder in (tmp_path, tmp_path / "below"):
        (folder / "served").mkdir(parents=True)
    models = [
        {"name": "judge", "type": "judge", "url": "http://h:1", "model": "m"},
        {"name": "own", "type": "loglik", "model": "org/m"},
    ]
    renamed = {"rewards": {"models": {name: {"model": "served"} for name in ("judge", "own", "other")}}}
    base = {"data": {"type": "task", "name": "gsm8k"}, "rewards": {"models": models}}
    write_toml(tmp_path / "below" / "suite.toml", {"seeds": 1, "base": base, "methods": {"below": renamed}})
    top = {"extends": "below/suite.toml", "methods": {"top": {**renamed, "data": {"name": "served"}}}}
    methods = load_suite(write_toml(tmp_path / "suite.toml", top)).methods
    for name, folder in (("below", tmp_path / "below"), ("top", tmp_path)):
        served = {arm: one["model"] for arm, one in methods[name].sections["rewards"]["models"].items()}
        assert served == {"judge": "served", "own": str(folder / "served"), "other": "served"}
    assert methods["top"].sections["data"] == {"name": "served"}

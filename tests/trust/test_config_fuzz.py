"""Configurations of any shape: a valid one, or one sentence; never a traceback."""

import contextlib
import copy

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from counted import count, times
from laser.config import load_config, parse_config
from laser.config.schema import RunConfig
from laser.core.errors import ConfigError

MINIMAL = {
    "policy": {"model": "org/policy"},
    "data": {"type": "embedded"},
    "rewards": {
        "models": [
            {"type": "loglik", "name": "first", "model": "org/first"},
            {"type": "function", "name": "second", "function": "scores.py:score"},
            {"type": "judge", "name": "third", "model": "m", "url": "http://127.0.0.1:1"},
        ]
    },
}
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(10**400),
    st.sampled_from(["\x00", "~", "~no-user/x", "a" * 5000, "\ud800", "/", ".", "package:", "package:x/../..", "run:",
                     "x.py:f", "auto", "http://u:p@h", "linucb", "python", "frozen", "file", "paper", "recommended"]),
)  # fmt: skip
KEYS = st.sampled_from(
    [
        *RunConfig.model_fields,
        *"type name model models function factory url path alpha arm order window train dev test prior run".split(),
    ]
) | st.text(max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def places(node, path=()):
    """Every place of a nested table at which something can be put or taken away."""
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


@st.composite
def tables(draw):
    table = copy.deepcopy(MINIMAL)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(sorted(places(table), key=str)))
        node = table
        for key in path[:-1]:
            node = node[key]
        target = node[path[-1]] if path else table
        if isinstance(target, dict):
            target[draw(KEYS)] = draw(VALUES)
        elif path:
            node[path[-1]] = draw(VALUES)
    return table


@pytest.mark.slow
@settings(max_examples=times(200), deadline=None)
@given(tables())
def test_any_table_is_a_configuration_or_a_sentence(table):
    count("configuration tables")
    before = repr(table)
    with contextlib.suppress(ConfigError):
        config = parse_config(table)
        assert parse_config(config.model_dump(mode="json")) == config
    assert repr(table) == before  # the caller's table is left alone


NASTY = (
    "",
    "\x00",
    "~no-user-here/x",
    "a" * 5000,
    "a/" * 3000,
    "\ud800",
    "package:",
    "package:x/../..",
    "{run:",
    10**5000,
)
FIELDS = [
    ("policy", "model"), ("policy", "revision"), ("policy", "device"), ("data", "type"), ("data", "name"),
    ("data", "train"), ("data", "path"), ("selector", "type"), ("selector", "run"), ("selector", "factory"),
    ("rewards", "models", 0, "model"), ("rewards", "models", 0, "name"), ("rewards", "models", 1, "function"),
    ("rewards", "models", 2, "url"), ("rewards", "models", 2, "cache"), ("rewards", "models", 2, "api_key_env"),
    ("generation", "factory"), ("generation", "server", "adapter_folder"), ("seed",), ("preset",),
]  # fmt: skip


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_every_field_takes_every_nasty_value_with_a_sentence(path):
    for value in [*NASTY, None, [], {}, [[]], [{}], True, -1, float("nan"), ["x"], {"type": []}]:
        if path[-1] == "type" and isinstance(value, int) and value > 1:
            continue  # pydantic makes it a word, and tells the interpreter that it cannot
        table = copy.deepcopy(MINIMAL)
        node = table
        for key in path[:-1]:
            node = node.setdefault(key, {}) if isinstance(node, dict) else node[key]
        node[path[-1]] = value
        for kind in ("task", "file", "hub"):
            if path[0] == "data" and path[-1] != "type":
                table["data"]["type"] = kind
            count("configuration values")
            with contextlib.suppress(ConfigError):
                parse_config(table)


def test_a_key_where_its_variables_name_belongs_is_not_repeated():
    table = copy.deepcopy(MINIMAL)
    table["rewards"]["models"][2]["api_key_env"] = "sk-very-secret"
    with pytest.raises(ConfigError, match="api_key_env") as caught:
        parse_config(table)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://me:very-secret@host", "https://host?key=very-secret", "https://host#very-secret"]
)
@pytest.mark.parametrize("place", ["rewards", "server"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(url, place):
    table = copy.deepcopy(MINIMAL)
    if place == "rewards":
        table["rewards"]["models"][2]["url"] = url
    else:
        table["generation"] = {"engine": "vllm", "server": {"url": url}}
    with pytest.raises(ConfigError, match="api_key_env") as caught:
        parse_config(table)
    assert "secret" not in str(caught.value)


OVERRIDES = st.lists(
    st.builds(
        "{}{}{}".format,
        st.lists(KEYS | st.sampled_from(["0", "first", "", "rewards", "models"]), max_size=4).map(".".join),
        st.sampled_from(["=", "", " = "]),
        st.text(max_size=6) | st.sampled_from(["{}", "[]", "[[1]]", "none", "1e999", "nan", "0x", "'''", "1" * 5000]),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=times(100), deadline=None)
@given(OVERRIDES)
@example(["rewards.models=[[1]]", "rewards.models.0.x=1"])
@example(["rewards.models=[1, 2]", "rewards.models.name.x=1"])
@example(["policy.model=" + "a" * 5000])
def test_any_override_is_applied_or_a_sentence(overrides):
    count("configuration overrides")
    with contextlib.suppress(ConfigError):
        load_config(None, overrides)


@settings(max_examples=times(100), deadline=None)
@given(
    st.binary(max_size=40)
    | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))
    | st.sampled_from([b"a=" + b"[" * 5000, b"a=" + b"1" * 5000, b"a={" * 3000, b"\x00", b"[a]\n[a]"])
)
def test_any_file_is_read_or_a_sentence(tmp_path_factory, content):
    count("configuration files")
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        load_config(path)

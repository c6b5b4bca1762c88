"""Every field of the configuration has an effect: with another value the code does something else.

What the code does is observed, not searched for in the source: which functions of laser are called with which plain
arguments, and what comes out, while a configuration is built, planned or run. Each field is tried where code outside
`config/` reads it first. A field that nothing uses is found whatever its name, and so is one that is read in vain.
"""

import contextlib
import functools
import json
import sys
from collections import Counter
from dataclasses import dataclass
from types import UnionType
from typing import Literal, Union, get_args, get_origin

import pytest
from pydantic import Field
from rich.console import Console
from transformers import LlamaForSequenceClassification

import laser
from laser.bandits.context import ContextPreparer
from laser.commands.plan import print_plan
from laser.config import data, evaluation, parse_config, rewards, schema, selection, servers, tracking
from laser.config.load import union_members
from laser.config.section import Section
from laser.core.errors import LaserError
from laser.wiring import build, build_pool, build_selector, build_splits
from laser.wiring.selection import build_feedback
from runs import essence, make_table
from tiny import make_model, make_prompt, make_tokenizer

MODULES = (schema, data, evaluation, rewards, selection, servers, tracking)
WRITES_THE_CONFIGURATION = ("laser.config", "laser.core.files", "laser.training.signature")
ELSEWHERE = {
    "RunConfig.preset": "the defaults that it stands for are filled in before anything reads; tests/config",
    "TrackingConfig.project": "read for wandb, MLflow and trackio alone; tests/training/test_tracking.py",
    "TrackingConfig.name": "shown by wandb, MLflow and trackio alone; tests/training/test_tracking.py",
    "PolicyConfig.shard_group": "one process holds it all; tests/sharding_checks.py",
    "PolicyConfig.shard_offload": "one process holds it all; tests/sharding_checks.py",
    "LogLikelihoodReward.shard": "one process holds it all; tests/training/test_sharded_runs.py",
    "TrainingConfig.convergence_patience": "needs several checks; tests/training/test_loop_knobs.py",
}


def concrete():
    """Sections that a configuration can hold, without their common bases."""
    found = [
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Section) and value.__module__ == module.__name__
    ]
    return [one for one in found if not any(one in other.__mro__[1:] for other in found)]


def is_section(annotation):
    """Whether a field holds sections, whose own fields are tried."""
    parts = [annotation, *get_args(annotation), *(part for one in get_args(annotation) for part in get_args(one))]
    return any(isinstance(part, type) and issubclass(part, Section) for part in parts)


FIELDS = sorted(
    f"{one.__name__}.{name}"
    for one in concrete()
    for name, field in one.model_fields.items()
    if name != "type" and not is_section(field.annotation)
)


def is_plain(value):
    if isinstance(value, tuple | list):
        return len(value) < 100 and all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str)


def of_laser(name):
    return name.startswith("laser.") and not name.startswith(WRITES_THE_CONFIGURATION)


@contextlib.contextmanager
def reads():
    """Yields a set that receives (field, identity of its section) for each reading outside the configuration."""
    read = set()

    def getattribute(self, name):
        kind = type(self)
        if name in kind.model_fields and of_laser(sys._getframe(1).f_globals.get("__name__", "")):
            read.add((f"{kind.__name__}.{name}", id(self)))
        return object.__getattribute__(self, name)

    Section.__getattribute__ = getattribute
    try:
        yield read
    finally:
        del Section.__getattribute__


@contextlib.contextmanager
def calls():
    """Yields a Counter of the calls of functions of laser, each with its plain arguments."""
    seen = Counter()

    def watch(frame, event, _):
        if event == "call" and of_laser(frame.f_globals.get("__name__", "")):
            code, given = frame.f_code, frame.f_locals
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            plain = tuple((name, repr(given[name])) for name in names if name in given and is_plain(given[name]))
            seen[(code.co_filename, code.co_qualname, plain)] += 1

    sys.setprofile(watch)
    try:
        yield seen
    finally:
        sys.setprofile(None)


@dataclass
class Scenario:
    """A configuration and what is done with it."""

    table: dict
    action: object

    def observe(self, table):
        """The calls, and what came out: a value that can be compared, or the sentence of an error."""
        with calls() as seen:
            try:
                config = parse_config(table)
                result = self.action(config)
            except LaserError as error:
                result = str(error)
        return seen, result

    @functools.cached_property
    def default(self):
        """What is observed with the configuration unchanged, and the calls that differ from time to time."""
        (first, result), (second, _) = self.observe(self.table), self.observe(self.table)
        return first, result, {call for call in first.keys() | second.keys() if first[call] != second[call]}

    def is_changed(self, table):
        before, result, varying = self.default
        seen, found = self.observe(table)
        calls_differ = any(before[call] != seen[call] for call in (before.keys() | seen.keys()) - varying)
        return found != result or calls_differ


def places(value, path=()):
    """(path, section) of every section of a configuration."""
    if isinstance(value, Section):
        yield path, value
        for name in type(value).model_fields:
            yield from places(getattr(value, name), (*path, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def with_value(table, path, value):
    """A copy of a table with one value replaced; sections that it lacks are made."""
    if not path:
        return value
    key, *rest = path
    if isinstance(table, list):
        return [with_value(item, rest, value) if index == key else item for index, item in enumerate(table)]
    return {**table, key: with_value(table.get(key, {}), rest, value)}


OTHER = {
    "DevGainSignal.prompts": [2],
    "FixedSelector.arm": ["vowels"],
    "HttpReward.path": ["/other"],
    "LoraConfig.target_modules": [["q_proj"]],
    "PairwiseReward.question": ["{prompt} {first} {second}"],
    "PolicyConfig.chat_template": ["plain"],
    "PolicyConfig.device": ["cuda:7"],
    "ProbeSignal.prompts_per_category": [1],
    "SequentialSelector.order": [["vowels"]],
    "TaskData.name": ["strategyqa"],
    "TaskData.template": ["{input}"],
    "TextMetricReward.target": [5],
    "TextMetricReward.model": ["nowhere"],
}
PER_MINUTE = 10**6  # a low limit would make the test wait


def others(section, name, value):
    """Values to try instead of a field's, the first that is valid."""
    yield from OTHER.get(f"{type(section).__name__}.{name}", [])
    if name.endswith("_per_minute"):
        yield PER_MINUTE
    kinds = flattened(type(section).model_fields[name].annotation)
    for kind in kinds:
        if get_origin(kind) is Literal:
            yield from (one for one in get_args(kind) if one != value)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value - 1, value * 0.5, value * 0.9 + 0.01)
    elif isinstance(value, tuple):
        yield from (list(value[:-1]), list(value[::-1]), [*value, *value])
    elif isinstance(value, str):
        yield from (f"{value}2", "cuda:7", "http://127.0.0.1:8")
    yield from (
        3,
        0.5,
        2.5,
        True,
        "other",
        "en",
        "other.py:make",
        "{response}",
        "http://127.0.0.1:8",
        ["other"],
        {"other": 1},
    )


def flattened(annotation):
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in flattened(part)]
    return [annotation]


def kinds(annotated):
    return list(union_members(annotated))


def type_of(section):
    return section.model_fields["type"].default


# Where fields are tried, cheap ones first.


def describe(built):
    """What of the built objects does not go through a call: the chat template."""
    return str(built.parts.policy.tokenizer.chat_template)


def build_and_evaluate(config):
    built = build(config)
    built.parts.signal.prepare(
        0, built.parts.selector, lambda prompts: built.parts.contexts(built.parts.embedder.embed(prompts))
    )
    if built.evaluate is not None:
        built.evaluate()
    return describe(built)


def score(config):
    scores = build_pool(config).score(0, [make_prompt("hello", answer="yes")], [["yes", "no"]])
    return [row.tolist() for row in scores]


def train(config, folder):
    path = folder / f"run-{len(list(folder.iterdir()))}"
    laser.train(config, path)
    return essence(path)


def fine_tune(config, folder):
    path = folder / f"sft-{len(list(folder.iterdir()))}"
    laser.sft(config, path)
    return [json.loads(line)["loss"] for line in (path / "losses.jsonl").read_text().splitlines()]


def best_of_n(config, folder):
    results = laser.best_of_n(config, folder / f"best-{len(list(folder.iterdir()))}", {"laser": config})
    return str(results["laser"])


def plan(config):
    print_plan(config, Console(quiet=True))


def reward_models(folder, base):
    """One section of every type, and of the variants that read other fields."""
    classifier = folder / "classifier"
    config = make_model().config
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(classifier)
    make_tokenizer().save_pretrained(classifier)
    server = {"url": "http://127.0.0.1:9", "retries": 0, "timeout": 0.1}
    (folder / "made.py").write_text(
        "from laser.rewards.function import FunctionRM\n\n"
        "def make():\n    return FunctionRM(lambda prompts, responses: [1.0] * len(responses), 'made')\n"
    )
    yield {"type": "function", "function": f"{folder}/scores.py:short"}
    yield {"type": "loglik", "model": base, "reference": base, "template": "plain"}
    yield {"type": "classifier", "model": str(classifier), "template": "pair"}
    yield {"type": "classifier", "model": str(classifier), "family": "python", "factory": "nowhere.py:make"}
    yield {"type": "pairwise", "model": base, "family": "pair_lm", "answers": ["A", "B"]}
    yield {"type": "similarity", "model": base}
    yield {"type": "python", "factory": f"{folder}/made.py:make"}
    several = {**server, "url": None, "urls": ["http://127.0.0.1:9", "http://127.0.0.1:8"]}
    yield {"type": "http", **server}
    yield {"type": "http", **several}
    yield {"type": "judge", **several, "model": "served"}
    yield {"type": "vllm_loglik", **several, "model": "served", "tokenizer": base, "template": "plain"}
    yield {"type": "http", **server, "format": "vllm_classify", "model": "served"}
    yield {"type": "judge", **server, "model": "served"}
    yield {"type": "vllm_loglik", **server, "model": "served", "tokenizer": base, "template": "plain"}
    yield {"type": "text_metric", "metric": "length", "unit": "tokens", "tokenizer": base}
    yield {"type": "text_metric", "metric": "length", "prefer": "target", "target": 3}
    yield {"type": "text_metric", "metric": "format", "pattern": "x"}
    yield {"type": "text_metric", "metric": "distinct_ngrams"}
    yield {"type": "text_metric", "metric": "language", "language": "en"}
    yield {"type": "text_metric", "metric": "perplexity_step", "model": base}
    yield {"type": "text_metric", "metric": "faithfulness_step", "model": base}
    yield {"type": "text_metric", "metric": rewards.REFERENCE_METRICS[0], "model": base}


def scenarios(folder):
    table = make_table(
        folder,
        "vowels",
        "short",
        split={"train": 8, "dev": 2},
        generation={"num_responses": 3, "max_new_tokens": 4},
        training={"iterations": 2, "batches_per_iteration": 2, "pairs_per_prompt": 2},
        checkpoint={"every": 1, "keep": 9},
        evaluation={},
        context={},
    )
    base = str(folder / "base")
    needed = {"fixed": {"arm": "short"}, "classifier": {"path": "nowhere"}, "frozen": {"run": "nowhere"}}
    needed |= {"python": {"factory": "nowhere.py:make"}, "bayesian_router": {"prior": "nowhere"}}
    variants = [
        {"type": "bayesian_router"},
        {"type": "forgetting", "rule": "decay"},
        {"type": "forgetting", "rule": "window"},
    ]
    variants += [{"type": "forgetting", "rule": "discount"}, {"type": "sequential", "order": ["short", "vowels"]}]
    all_selectors = [{"type": kind, **needed.get(kind, {})} for kind in map(type_of, kinds(selection.SelectorConfig))]
    for selector in variants + all_selectors:
        yield (
            {**table, "selector": selector},
            lambda config: bool(build_selector(config, ContextPreparer(4), batches_per_iteration=lambda: 3)),
        )
    for kind in map(type_of, kinds(selection.Feedback)):
        yield (
            {**table, "feedback": {"type": kind, **needed.get(kind, {})}},
            lambda config: bool(build_feedback(config.feedback)),
        )
    for section in reward_models(folder, base):
        yield {**table, "rewards": {"models": [{"name": "one", **section}]}}, score
    for given in (
        {"type": "file", "train": "nowhere.jsonl"},
        {"type": "hub", "name": "nowhere"},
        {"type": "task", "name": "gsm8k", "path": "nowhere"},
    ):
        yield {**table, "data": given}, lambda config: bool(build_splits(config))
    rows = "".join(f'{{"prompt": "question {row}"}}\n' for row in range(8))
    (folder / "few.jsonl").write_text(rows)
    few = {"type": "file", "train": str(folder / "few.jsonl")}
    yield (
        {**table, "data": few, "split": {"train": 8, "dev": 8, "shrink": True}},
        lambda config: len(build_splits(config).train),
    )
    yield {**table, "data": {"type": "embedded"}}, build_and_evaluate
    for context in ({"source": "encoder", "encoder": base}, {"source": "category", "categories": ["sums", "words"]}):
        yield {**table, "context": context}, build_and_evaluate
    for server in ({}, {"urls": ["http://127.0.0.1:9", "http://127.0.0.1:8"]}):
        yield {**table, "generation": {**table["generation"], "engine": "vllm", "server": server}}, build_and_evaluate
    engine = {"engine": "python", "factory": "nowhere.py:make"}
    yield {**table, "generation": {**table["generation"], **engine}}, build_and_evaluate
    yield table, functools.partial(train, folder=folder)
    silent = folder / "silent.py"
    silent.write_text("from laser.training.signals import NoSignal\n\ndef make(pool):\n    return NoSignal()\n")
    needed["python"] = {"factory": f"{silent}:make"}
    for kind in map(type_of, kinds(selection.SignalConfig)):
        signal = {"type": kind, **needed.get(kind, {})}
        short = {**table["training"], "iterations": 1, "batches_per_iteration": 1}
        changed = {**table, "signal": signal, "training": short, "split": {"train": 40, "dev": 8}}
        yield changed, functools.partial(train, folder=folder)
    agreement = {"rewards": {**table["rewards"], "combine": "agreement"}, "selector": {"type": "ensemble"}}
    yield {**table, **agreement}, functools.partial(train, folder=folder)
    yield {**table, "tracking": {"to": ["tensorboard"]}}, functools.partial(train, folder=folder)
    yield (
        {**table, "best_of_n": {}, "split": {**table["split"], "test": 4}},
        functools.partial(best_of_n, folder=folder),
    )
    sampled = {**table, "sft": {"epochs": 1}, "evaluation": {"temperature": 0.8}}
    yield sampled, functools.partial(fine_tune, folder=folder)
    yield table, plan


@pytest.fixture(scope="session")
def readers(tmp_path_factory):
    """The scenarios that read a field, each with the path of the section that it is in."""
    found = {}
    for table, action in scenarios(tmp_path_factory.mktemp("fields")):
        config, scenario = parse_config(table), Scenario(table, action)
        with reads() as read, contextlib.suppress(LaserError):
            action(config)
        where = list(places(config))
        for field, identity in sorted(read):
            kind = [place for place in where if type(place[1]).__name__ == field.partition(".")[0]]
            same = [place for place in kind if id(place[1]) == identity]
            if same or len(kind) == 1:  # a copy of the only section of its kind counts as it
                found.setdefault(field, []).append((scenario, *(same or kind)[0]))
    return found


def changed(scenario, path, section, name):
    """The scenario's table with the first valid other value of a field; None if no valid one is known."""
    value = getattr(section, name)
    for other in others(section, name, value):
        table = with_value(scenario.table, [*path, name], other)
        with contextlib.suppress(LaserError):
            parsed = dict(places(parse_config(table)))[path]
            if getattr(parsed, name) != value:
                return table
    return None


@pytest.fixture(scope="session")
def cwd(tmp_path_factory):
    """One folder for what relative paths name; the same for all fields, whose observations are compared."""
    return tmp_path_factory.mktemp("cwd")


@pytest.mark.slow
@pytest.mark.parametrize("field", FIELDS)
def test_another_value_has_an_effect(readers, field, cwd, monkeypatch):
    monkeypatch.chdir(cwd)
    if field in ELSEWHERE:
        pytest.skip(ELSEWHERE[field])
    assert field in readers, f"{field} is documented but nothing reads it"
    tables = [(one[0], changed(*one, field.partition(".")[2])) for one in readers[field]]
    assert any(table for _, table in tables), f"no other value of {field} is known; add one to OTHER"
    assert any(one.is_changed(table) for one, table in tables if table), f"{field} is read in vain"


class Invented(schema.TrainingConfig):
    text: str = Field("", description="A field that no code of laser knows.")


def test_a_field_that_nothing_reads_is_found():
    with reads() as read:
        assert Invented().text == ""  # the reading of a test does not count
    assert "Invented.text" not in dict(read)


def test_a_field_that_is_read_in_vain_is_found(tmp_path):
    table = make_table(tmp_path, "vowels")
    vain = Scenario(table, lambda config: bool(config.generation.top_p) and None)
    assert not vain.is_changed({**table, "generation": {**table["generation"], "top_p": 0.5}})

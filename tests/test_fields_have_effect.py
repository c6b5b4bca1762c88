"""Every field of the configuration has an effect: code outside `config/` reads it while it builds, plans or runs.

Reads are observed, not searched for in the source, so a field that nothing uses is found whatever its name.
"""

import contextlib
import sys

import pytest
from pydantic import Field
from rich.console import Console
from transformers import LlamaForSequenceClassification

import laser
from laser.bandits.context import ContextPreparer
from laser.commands.plan import print_plan
from laser.config import RunConfig, parse_config, rewards, schema, selection, tracking
from laser.config.load import union_members
from laser.config.section import Section
from laser.core.errors import LaserError
from laser.training.loop import draw_batches
from laser.wiring import build, build_pool, build_selector, build_splits
from laser.wiring.selection import build_feedback
from laser.wiring.tracking import _make
from runs import make_table
from tiny import make_model, make_prompt, make_tokenizer

MODULES = (schema, rewards, selection, tracking)
BY_THE_CONFIGURATION = {("RunConfig", "preset")}  # the defaults that it stands for are filled in before anything reads


@contextlib.contextmanager
def observed():
    """Yields a set that receives (section, field) for each field that code outside the configuration reads."""
    read = set()

    def getattribute(self, name):
        kind = type(self)
        reader = sys._getframe(1).f_globals.get("__name__", "")
        if name in kind.model_fields and reader.startswith("laser.") and not reader.startswith("laser.config"):
            read.update((base.__name__, name) for base in kind.__mro__ if name in getattr(base, "model_fields", {}))
        return object.__getattribute__(self, name)

    Section.__getattribute__ = getattribute
    try:
        yield read
    finally:
        del Section.__getattribute__


SECTIONS = [
    value
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, Section) and value.__module__ == module.__name__
]
FIELDS = {(one.__name__, name) for one in SECTIONS for name in one.model_fields if name != "type"}


def with_sections(table, **sections):
    return parse_config({**table, **{name: {**table.get(name, {}), **value} for name, value in sections.items()}})


def kinds(annotated):
    return {member.model_fields["type"].default: member for member in union_members(annotated)}


def build_selectors(table):
    needed = {"fixed": {"arm": "short"}, "classifier": {"path": "nowhere"}, "frozen": {"run": "nowhere"}}
    needed["python"] = {"factory": "nowhere.py:make"}
    needed["bayesian_router"] = {"prior": "nowhere"}
    for kind in kinds(selection.SelectorConfig):
        with contextlib.suppress(LaserError):
            build_selector(
                parse_config({**table, "selector": {"type": kind, **needed.get(kind, {})}}), ContextPreparer(4)
            )
    build_selector(parse_config({**table, "selector": {"type": "bayesian_router"}}), ContextPreparer(4))
    build_selector(parse_config({**table, "selector": {"type": "forgetting", "rule": "decay"}}), ContextPreparer(4))


def build_feedbacks(table):
    needed = {"python": {"factory": "nowhere.py:make"}}
    for kind in kinds(selection.Feedback):
        with contextlib.suppress(LaserError):
            build_feedback(parse_config({**table, "feedback": {"type": kind, **needed.get(kind, {})}}).feedback)


def run_signals(table, folder):
    code = "from laser.training.signals import NoSignal\n\ndef make(pool):\n    return NoSignal()\n"
    (folder / "silent.py").write_text(code)
    needed = {"python": {"factory": f"{folder}/silent.py:make"}}
    for kind in kinds(selection.SignalConfig):
        signal = {"type": kind, **needed.get(kind, {})}
        short = {**table["training"], "iterations": 1, "batches_per_iteration": 1}
        laser.train({**table, "signal": signal, "training": short}, folder / f"signal-{kind}")


def reward_models(folder, base):
    """One section of every type, and of the variants that read other fields."""
    classifier = folder / "classifier"
    config = make_model().config
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(classifier)
    make_tokenizer().save_pretrained(classifier)
    server = {"url": "http://127.0.0.1:9", "retries": 0, "timeout": 0.1}
    yield {"type": "loglik", "model": base, "reference": base, "template": "plain"}
    yield {"type": "classifier", "model": str(classifier), "template": "pair"}
    yield {"type": "classifier", "model": str(classifier), "family": "python", "factory": "nowhere.py:make"}
    yield {"type": "pairwise", "model": base, "family": "pair_lm", "answers": ["A", "B"]}
    yield {"type": "similarity", "model": base}
    (folder / "made.py").write_text(
        "from laser.rewards.function import FunctionRM\n\n"
        "def make():\n    return FunctionRM(lambda prompts, responses: [1.0] * len(responses), 'made')\n"
    )
    yield {"type": "python", "factory": f"{folder}/made.py:make"}
    yield {"type": "http", **server}
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


def score_with(table, section):
    config = parse_config({**table, "rewards": {"models": [{"name": "one", **section}]}})
    with contextlib.suppress(LaserError):
        build_pool(config).score(0, [make_prompt("hello", answer="yes")], [["yes", "no"]])


def read_data(table, folder):
    missing = {
        "file": {"train": "nowhere.jsonl"},
        "hub": {"name": "nowhere"},
        "task": {"name": "gsm8k", "path": "nowhere"},
    }
    for kind, values in missing.items():
        with contextlib.suppress(LaserError):
            build_splits(parse_config({**table, "data": {"type": kind, **values}}))
    rows = "".join(f'{{"prompt": "question {row}"}}\n' for row in range(8))
    (folder / "few.jsonl").write_text(rows)
    few = {"type": "file", "train": str(folder / "few.jsonl")}
    build_splits(parse_config({**table, "data": few, "split": {"train": 8, "dev": 8, "shrink": True}}))


@pytest.mark.slow
def test_every_field_is_read(tmp_path):
    table = make_table(tmp_path, "short", tracking={"to": ["tensorboard"]})
    base = str(tmp_path / "base")
    with observed() as fields:
        laser.train(with_sections(table, training={"sampling": "per_iteration"}), tmp_path / "run")
        agreement = with_sections(table, rewards={"combine": "agreement"}, selector={"type": "ensemble"})
        laser.train(agreement, tmp_path / "agreement")
        print_plan(with_sections(table), Console(quiet=True))
        build_selectors(table)
        build_feedbacks(table)
        run_signals({**table, "split": {"train": 40, "dev": 8}}, tmp_path)
        for section in reward_models(tmp_path, base):
            score_with(table, section)
        read_data(table, tmp_path)
        with contextlib.suppress(LaserError):
            build(with_sections(table, generation={"engine": "vllm"}))
        with contextlib.suppress(LaserError):
            build(with_sections(table, generation={"engine": "python", "factory": "nowhere.py:make"}))
        bench = with_sections(table, split={"test": 4})
        laser.best_of_n(bench, tmp_path / "best", {"laser": bench})
        _make("mlflow", with_sections(table), tmp_path, None)  # not installed, so it cannot be started
    assert FIELDS - fields == BY_THE_CONFIGURATION, "documented, but nothing reads it"


def test_a_field_that_nothing_reads_is_found():
    class Invented(schema.TrainingConfig):
        text: str = Field("", description="No code knows this field.")

    with observed() as fields:
        section = Invented()
        draw_batches(RunConfig.model_construct(training=section, split=schema.SplitConfig(), seed=0), [], 0)
        assert section.text == ""  # the test's own reading does not count
        assert section.model_dump() == Invented().model_dump()  # nor does writing or comparing a whole section
    assert ("Invented", "batch_size") in fields
    assert ("Invented", "text") not in fields

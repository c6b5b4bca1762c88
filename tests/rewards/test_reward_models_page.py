"""docs/reward-models.md: its family runs as shown, its tables are complete, and pools of every kind train."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import laser
from hub_layouts import HIDDEN, llama3_tokenizer, llama_backbone, random_tensors, save_checkpoint
from laser.commands.plan import measure_reward_model
from laser.config import parse_config
from laser.config import rewards as section_of
from laser.core.errors import RewardModelError
from laser.rewards.families.table import FAMILIES
from laser.wiring.scorers import build_classifier
from runs import make_table, steps
from tiny import make_prompt, save_model

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reward-models.md").read_text()


def section(source, factory, **options):
    return section_of.ClassifierReward(
        name="mean", model=source, family="python", factory=factory, device="cpu", precision="fp32", **options
    )


def mean_pooled(folder):
    backbone, head = llama_backbone(), random_tensors({"reward.weight": (1, HIDDEN)})
    return backbone, head, save_checkpoint(folder, backbone, head, "MeanPooledModel")


def test_the_example_family_scores_as_it_says(tmp_path):
    backbone, head, source = mean_pooled(tmp_path / "mean-pooled-rm")
    (shown,) = [
        tomllib.loads(text)["rewards"]["models"][0]
        for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
        if "factory" in text
    ]
    table = {"policy": {"model": "x"}, "data": {"type": "embedded"}}
    model = {**shown, "model": source, "device": "cpu", "precision": "fp32"}
    (parsed,) = parse_config({**table, "rewards": {"models": [model]}}, base_dir=ROOT / "examples").rewards.models
    rm = build_classifier(parsed)
    prompt, texts = make_prompt("2+2="), ["4", "four or so"]
    for text, score in zip(texts, rm.score([prompt], [texts])[0], strict=True):
        messages = [*map(dict, prompt.messages), {"role": "assistant", "content": text}]
        rendered = llama3_tokenizer().apply_chat_template(messages, tokenize=False)
        ids = llama3_tokenizer()(rendered, add_special_tokens=False, return_tensors="pt")["input_ids"]
        mean = backbone(ids).last_hidden_state[0].mean(dim=0)
        assert score == pytest.approx((head["reward.weight"] @ mean).item(), abs=1e-4)
    assert sum(tensor.numel() for tensor in rm._tensors()) > HIDDEN  # the pool can move it


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def load(c, o):\n    return 3\n", "returned a int without modules, window, scores"),
        (
            "class M:\n    modules, window, scores = [], 9, None\n\ndef load(c, o):\n    return M()\n",
            "modules without weights; use type = 'python'",
        ),
        ("def load(c, o):\n    raise KeyError('weight')\n", "raised KeyError: 'weight'"),
        ("def lod(c, o):\n    pass\n", "has no function 'load'"),
    ],
)
def test_broken_families_are_named(tmp_path, code, words):
    source = mean_pooled(tmp_path / "rm")[2]
    (tmp_path / "family.py").write_text(code)
    with pytest.raises(RewardModelError, match=words):
        build_classifier(section(source, f"{tmp_path}/family.py:load"))


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ("torch.zeros(len(rows), 1)", r"scored 1 rows with \(1, 1\); return one number each"),
        ("[0.0] * len(rows)", "scored 1 rows with list"),
        ("rows[5]", "raised IndexError"),
    ],
)
def test_broken_scores_are_named(tmp_path, scores, words):
    source = mean_pooled(tmp_path / "rm")[2]
    (tmp_path / "family.py").write_text(
        "import torch\n\nclass Model:\n    modules = [torch.nn.Linear(2, 1)]\n    window = 99\n"
        f"    def scores(self, rows):\n        return {scores}\n\ndef load(checkpoint, outputs):\n    return Model()\n"
    )
    rm = build_classifier(section(source, f"{tmp_path}/family.py:load"))
    with pytest.raises(RewardModelError, match=words):
        rm.score([make_prompt("a")], [["b"]])


def test_the_page_names_every_family_metric_and_kind():
    rows = " ".join(line for line in PAGE.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`([a-z_]+)`", rows))
    assert {*FAMILIES, "python"} <= named
    assert set(section_of.TextMetricReward.model_fields["metric"].annotation.__args__) <= named
    kinds = section_of.RewardModelConfig.__args__[0].__args__
    assert {kind.model_fields["type"].default for kind in kinds} <= named


@pytest.fixture
def pool(tmp_path):
    lm = str(save_model(tmp_path / "lm", scale=0.15, context=400))
    head = random_tensors({"v_head.weight": (1, HIDDEN)})
    value = save_checkpoint(tmp_path / "value", llama_backbone(), head, "AtheneForSequenceClassification")
    return [
        {"type": "classifier", "name": "value", "model": value, "overflow": "cut_prompt", "max_context": 60},
        {"type": "pairwise", "name": "pairs", "model": lm, "question": "{prompt} A {first} B {second}"},
        {"type": "text_metric", "name": "fluent", "metric": "perplexity_chain", "model": lm},
        {"type": "text_metric", "name": "length", "metric": "length", "unit": "characters"},
        {"type": "loglik", "name": "loglik", "model": lm, "overflow": "cut_prompt"},
    ]


@pytest.mark.slow
def test_a_pool_of_every_kind_trains(tmp_path, pool):
    table = make_table(
        tmp_path,
        training={"iterations": 1, "batches_per_iteration": 5},
        generation={"max_new_tokens": 24},  # enough that some responses end early: equal lengths are ties
        split={"train": 12, "dev": 2},
    )
    order = [model["name"] for model in pool]
    table["rewards"] = {"models": pool}
    table["selector"] = {"type": "sequential", "order": order, "switch": "batch"}
    laser.train(table, tmp_path / "run")
    records = steps(tmp_path / "run")
    assert [record["selection"]["arms"][0] for record in records] == list(range(5))
    assert all(record["pairs"] > 0 for record in records)
    usage = json.loads((tmp_path / "run" / "summary.json").read_text())["reward_models"]
    assert usage["value"]["too_long"] == usage["value"]["responses"] - usage["value"]["unscored"] > 0
    assert usage["length"]["too_long"] == 0


def test_sizes_are_planned_for(pool):
    base = {"policy": {"model": "x"}, "data": {"type": "embedded"}, "rewards": {"models": pool}}
    sizes = {model.name: measure_reward_model(model) for model in parse_config(base).rewards.models}
    assert sizes["length"].num_parameters == 0
    assert sizes["value"].num_parameters >= sum(p.numel() for p in llama_backbone().parameters())
    assert sizes["fluent"].num_bytes > 0
    assert np.isfinite(sizes["pairs"].num_bytes)


def test_a_checkpoint_in_the_hubs_cache_is_read_there(tmp_path, monkeypatch):
    """Heads of a hub id come from the snapshot that from_pretrained has fetched."""
    from huggingface_hub import constants

    from laser.lm.tensors import read_tensors

    snapshot = tmp_path / "models--org--rm" / "snapshots" / "abc"
    head = random_tensors({"v_head.weight": (1, HIDDEN)})
    save_checkpoint(snapshot, llama_backbone(), head, "AtheneForSequenceClassification")
    (tmp_path / "models--org--rm" / "refs").mkdir()
    (tmp_path / "models--org--rm" / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = read_tensors("org/rm", ["v_head."])
    assert list(found) == ["v_head.weight"]
    torch.testing.assert_close(found["v_head.weight"], head["v_head.weight"])

"""Prompts labeled by a sequence classifier."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from laser.config import parse_config
from laser.core.errors import ModelError
from laser.lm.labels import PromptLabels
from laser.wiring.data import build_splits
from runs import make_table
from task_files import lines
from tiny import make_tokenizer


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    config = BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        pad_token_id=2,
        id2label={0: "creative writing", 1: "coding", 2: "linguistics"},
        label2id={"creative writing": 0, "coding": 1, "linguistics": 2},
    )
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.mul_(40)
        model.classifier.weight.mul_(40)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


TEXTS = [f"{word} {'x' * number}" for word in ("sum", "poem", "tale", "fix") for number in (0, 5, 300)]


def test_labels_do_not_depend_on_batching_and_long_texts_are_cut(source):
    together, small = PromptLabels(source, device="cpu"), PromptLabels(source, device="cpu", max_batch_tokens=70)
    labels = together(TEXTS)
    assert labels == small(TEXTS) == [together([text])[0] for text in TEXTS]
    assert len(set(labels)) > 1
    assert set(labels) <= {"creative writing", "coding", "linguistics"}


def test_wildchat_through_a_classifier_of_the_configuration(source, tmp_path):
    rows = [{"conversation": [{"role": "user", "content": f"{text} {i}"}]} for i, text in enumerate(TEXTS * 4)]
    path = lines(tmp_path / "chats.jsonl", rows)
    expected = PromptLabels(source, device="cpu")([row["conversation"][0]["content"] for row in rows])
    names = {"creative writing": "creative", "coding": "coding"}
    wanted = sorted({names[label] for label in expected if label in names})
    data = {"type": "task", "name": "wildchat", "path": str(path), "classifier": source, "categories": wanted}
    table = {**make_table(tmp_path, "vowels"), "data": data}
    del table["split"]
    splits = build_splits(parse_config(table))
    counts = [prompt.category for part in (splits.train, splits.dev, splits.test) for prompt in part]
    usable = sum(label in names for label in expected)
    assert usable - 3 <= len(counts) <= usable
    assert set(counts) == set(wanted)


def test_a_missing_classifier_is_named(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        PromptLabels(str(tmp_path / "none"))

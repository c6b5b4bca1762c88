"""Contexts from a sentence encoder, from the category, or from nothing."""

import numpy as np
import pytest

import laser
from laser.config import parse_config
from laser.core.errors import ConfigError
from laser.training.embedders import CategoryEmbedder, ConstantEmbedder
from laser.wiring import build_embedder
from runs import make_table, steps
from tiny import make_prompt, save_model


def test_categories_are_one_hot_and_unlisted_ones_share_a_feature():
    prompts = [make_prompt("x", category=category) for category in ("b", "a", "c", "d")]
    assert CategoryEmbedder(["a", "b"]).embed(prompts).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]]


def test_no_context_is_a_constant():
    assert ConstantEmbedder().embed([make_prompt("x"), make_prompt("y")]).tolist() == [[1.0], [1.0]]


def test_a_sentence_encoder_embeds_each_prompt_alone_and_cuts_what_is_too_long(tmp_path):
    encoder = str(save_model(tmp_path / "base", context=64))
    config = parse_config(make_table(tmp_path, context={"source": "encoder", "encoder": encoder}))
    embedder = build_embedder(config.context)
    prompts = [make_prompt(text) for text in ("short", "long " * 40, " ", "short")]
    together = embedder.embed(prompts)
    assert together.shape == (4, embedder.context_dim) == (4, 32)
    assert np.array_equal(together, np.concatenate([embedder.embed([prompt]) for prompt in prompts]))
    assert np.linalg.norm(together, axis=1) == pytest.approx([1, 1, 0, 1])
    assert np.array_equal(together[0], together[3])


def test_the_policy_is_needed_where_it_is_the_source(tmp_path):
    with pytest.raises(ConfigError, match="needs a policy; set it to 'encoder'"):
        build_embedder(parse_config(make_table(tmp_path)).context)


@pytest.mark.slow
def test_a_run_with_categories_as_contexts(tmp_path):
    context = {"source": "category", "categories": ["addition"]}
    training = {"iterations": 1, "batches_per_iteration": 2}
    table = make_table(tmp_path, "vowels", context=context, training=training, checkpoint={"log_contexts": True})
    laser.train(table, tmp_path / "run")
    rows = [row for step in steps(tmp_path / "run") for row in step["selection"]["contexts"]]
    assert all(len(row) == 2 and sum(row) == pytest.approx(1) for row in rows)

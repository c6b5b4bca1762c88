"""A selector that learned elsewhere is taken only where its arms and contexts mean the same."""

import json
import shutil

import numpy as np
import pytest

import laser
from laser.bandits.baselines import Frozen
from laser.commands.train_classifier import train_classifier
from laser.config import parse_config
from laser.core.errors import ConfigError, RunDirectoryError
from laser.core.state import load_state
from laser.wiring import build_contexts, build_selector
from laser.wiring import learned as learned_elsewhere
from runs import FUNCTIONS, make_table
from tiny import save_model

DIM = 32  # of the tiny policy's hidden states
CHANGED = FUNCTIONS.replace("0.01", "0.02")


def selector_of(table):
    config = parse_config(table)
    contexts = build_contexts(config, dim=DIM)
    return build_selector(config, contexts), contexts


def rewritten(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with two reward models, and a classifier for the same pool."""
    folder = tmp_path_factory.mktemp("elsewhere")
    table = make_table(folder, "vowels", "short", training={"iterations": 1}, split={"dev": 0})
    laser.train(table, folder / "run")
    texts = [("aeiou aeiou", "xy"), ("x", "xxxx yyyy")]
    pairs = [{"id": f"{n}{c}", "prompt": f"say {n}", "chosen": c, "rejected": r} for n in range(8) for c, r in texts]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    train_classifier(parse_config(table), folder / "pairs.jsonl", folder / "router")
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of everything, at another path."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def frozen(folder):
    return {**make_table(folder, "vowels", "short"), "selector": {"type": "frozen", "run": str(folder / "run")}}


ROUTED = [("classifier", "path"), ("bayesian_router", "prior")]


@pytest.fixture(params=ROUTED, ids=[kind for kind, _ in ROUTED])
def routed(request, folder):
    kind, key = request.param
    return {**make_table(folder, "vowels", "short"), "selector": {"type": kind, key: str(folder / "router")}}


class TestFrozen:
    """The selector of another run."""

    @pytest.mark.slow
    def test_the_same_reward_models_at_another_path_or_behind_noise_will_do(self, frozen):
        models = frozen["rewards"]["models"]
        frozen["rewards"] = {
            "models": [{**models[0], "noise": 0.4}, {**models[1], "corruption": "inverted"}, models[2]]
        }
        selector, _ = selector_of(frozen)
        assert isinstance(selector, Frozen)
        assert selector.state_dict()["pulls"].sum() == 3

    def test_reward_models_of_the_same_name_and_other_code_or_weights_will_not(self, frozen, folder):
        (folder / "scores.py").write_text(CHANGED)
        with pytest.raises(ConfigError, match="reward model 'vowels' has other weights or code here than in"):
            selector_of(frozen)
        (folder / "scores.py").write_text(FUNCTIONS)
        save_model(folder / "other", scale=0.3)
        frozen["rewards"]["models"][0]["model"] = str(folder / "other")
        with pytest.raises(ConfigError, match="reward model 'likelihood' has other weights or code"):
            selector_of(frozen)

    def test_a_run_that_does_not_say_what_its_reward_models_were_is_refused(self, frozen, folder):
        rewritten(folder / "run" / "run.json", reward_models=None)
        with pytest.raises(RunDirectoryError, match="damaged or of another version; train it again"):
            selector_of(frozen)

    def test_another_random_projection_is_refused(self, frozen, folder):
        path = folder / "run" / "config.json"
        context = {**json.loads(path.read_text())["context"], "projection": 4}
        rewritten(path, context=context)
        with pytest.raises(ConfigError, match=r"projection of seed 3, and here .* seed 8; set seed = 3"):
            selector_of({**frozen, "context": {"projection": 4}, "seed": 8})

    def test_a_state_of_another_version_is_not_blamed_on_the_policy(self, frozen, monkeypatch):
        monkeypatch.setattr(learned_elsewhere, "load_state", lambda stem: {**load_state(stem), "version": 99})
        with pytest.raises(RunDirectoryError, match=r"saved by another version of laser: .* use the laser that wrote"):
            selector_of(frozen)


class TestRouter:
    """What `laser train-classifier` saved."""

    def test_it_serves_the_configuration_it_was_trained_for(self, routed):
        selector, _ = selector_of(routed)
        chosen = selector.select(np.random.default_rng(0).normal(size=(5, DIM)))
        np.testing.assert_allclose(chosen.probabilities_MK.sum(axis=1), 1.0)

    @pytest.mark.parametrize(
        ("section", "values", "words"),
        [
            ("context", {"normalization": "l2"}, "context.normalization = 'none', and here it is 'l2'"),
            ("context", {"scale": 0.5}, "context.scale = 1.0, and here it is 0.5"),
            ("policy", {"system_prompt": "be brief"}, "policy.system_prompt = None, and here it is 'be brief'"),
        ],
    )
    def test_other_contexts_are_refused(self, routed, section, values, words):
        routed[section] = {**routed.get(section, {}), **values}
        with pytest.raises(ConfigError, match=f"{words}: train it again with this configuration"):
            selector_of(routed)

    def test_another_policy_is_refused(self, routed, folder):
        routed["policy"] = {**routed["policy"], "model": str(save_model(folder / "other", scale=0.3))}
        with pytest.raises(ConfigError, match=r"policy\.model = 'folder:"):
            selector_of(routed)

    def test_other_reward_models_are_refused(self, routed, folder):
        (folder / "scores.py").write_text(CHANGED)
        with pytest.raises(ConfigError, match="reward model 'vowels' has other weights or code"):
            selector_of(routed)
        routed["rewards"] = {"models": routed["rewards"]["models"][:2]}
        with pytest.raises(ConfigError, match="is for the pool likelihood, vowels, short"):
            selector_of(routed)

    @pytest.mark.parametrize("content", ["{}", "{", "[]", '{"names": "abc", "dim": "x"}'])
    def test_a_damaged_description_is_reported_with_the_cure(self, routed, folder, content):
        (folder / "router" / "router.json").write_text(content)
        with pytest.raises(ConfigError, match="another version or is damaged; train it again with laser train-class"):
            selector_of(routed)

    def test_another_version_is_reported_with_the_cure(self, routed, folder):
        rewritten(folder / "router" / "router.json", version=99)
        with pytest.raises(ConfigError, match="was made by another version or is damaged"):
            selector_of(routed)

    @pytest.mark.parametrize("content", ["{}", "{"])
    def test_damaged_weights_are_reported_with_the_cure(self, routed, folder, content):
        for name in ("classifier", "prior"):
            (folder / "router" / f"{name}.json").write_text(content)
            (folder / "router" / f"{name}.safetensors").write_bytes(b"no weights")
        with pytest.raises(ConfigError, match="was made by another version or is damaged"):
            selector_of(routed)

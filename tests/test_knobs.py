"""A value other than the default reaches the object that it is for; `test_fields_have_effect.py` covers every field."""

import pytest

from laser.bandits.context import ContextPreparer
from laser.config import parse_config
from laser.training.loop import draw_batches
from laser.wiring import build, build_selector
from tiny import make_model, make_tokenizer, save_model


@pytest.fixture
def table(tmp_path):
    base = str(save_model(tmp_path / "base", scale=0.15))
    (tmp_path / "scores.py").write_text(
        "def score(prompts, responses):\n    return [len(text) for text in responses]\n"
    )
    return {
        "policy": {"model": base, "max_context": 450},
        "generation": {"num_responses": 5, "max_new_tokens": 6},
        "data": {"type": "embedded"},
        "split": {"train": 8, "dev": 4},
        "rewards": {
            "models": [
                {"type": "loglik", "name": "a", "model": base},
                {"type": "function", "name": "b", "function": f"{tmp_path}/scores.py:score"},
            ]
        },
    }


def with_value(table, path, value):
    section, _, name = path.rpartition(".")
    if not section:
        return parse_config({**table, name: value})
    return parse_config({**table, section: {**table.get(section, {}), name: value}})


@pytest.mark.parametrize(
    ("path", "value"),
    [("training.batch_size", 2), ("training.batches_per_iteration", 5), ("split.batching", "by_category")],
)
def test_batch_knobs(table, path, value):
    from laser.data.embedded import generate

    prompts = generate(40)
    default = draw_batches(parse_config(table), prompts, 0)
    assert draw_batches(with_value(table, path, value), prompts, 0) != default


@pytest.mark.parametrize(
    ("selector", "kind"),
    [
        ({"type": "linucb"}, "LinUCB"),
        ({"type": "forgetting"}, "ForgettingLinUCB"),
        ({"type": "thompson"}, "LinearThompson"),
        ({"type": "bayesian_router"}, "LinearThompson"),
        ({"type": "neural_ucb"}, "NeuralUCB"),
        ({"type": "exp3"}, "Exp3"),
        ({"type": "ucb1"}, "UCB1"),
        ({"type": "epsilon_greedy"}, "EpsilonGreedy"),
        ({"type": "fixed", "arm": "b"}, "Fixed"),
        ({"type": "random"}, "UniformRandom"),
        ({"type": "sequential", "order": ["b", "a"]}, "Sequential"),
        ({"type": "ensemble"}, "UniformEnsemble"),
        ({"type": "online_ensemble"}, "MultiplicativeWeights"),
    ],
)
def test_every_selector_is_built(table, selector, kind):
    built = build_selector(parse_config({**table, "selector": selector}), ContextPreparer(4))
    assert type(built).__name__ == kind
    assert built.num_arms == 2


LEARNER = {
    "training.learning_rate": 0.5,
    "training.warmup_steps": 9,
    "training.max_grad_norm": 0.01,
    "training.epochs": 3,
    "training.optimizer_steps": 4,
    "training.max_batch_tokens": 77,
    "training.weight_decay": 0.2,
}


def learner_state(config):
    learner = build(config).parts.learner
    public = (learner._learning_rate, learner._warmup_steps, learner._max_grad_norm, learner._epochs)
    decay = learner._optimizer.param_groups[0]["weight_decay"]
    return (*public, learner._optimizer_steps, learner._budget.tokens, decay)


@pytest.mark.slow
@pytest.mark.parametrize("path", LEARNER)
def test_learner_knobs(table, path):
    changed = learner_state(with_value(table, path, LEARNER[path]))
    assert LEARNER[path] in changed
    assert changed != learner_state(parse_config(table))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("loss", "kto", "kto"), ("beta", 0.7, "0.7"), ("nll_weight", 0.2, "0.2"), ("reference", "initial", "base")],
)
def test_objective_knobs(table, name, value, words):
    learner = build(with_value(table, f"training.{name}", value)).parts.learner
    assert words in f"{learner.objective} {learner._reference}"


def test_warmup_scales_the_first_steps():
    from laser.core.types import Pair, Response
    from laser.policy.policy import Policy
    from laser.training.learner import Learner
    from laser.training.losses import Objective

    responses = [[Response((40, 2), "a", (), True), Response((50, 51, 2), "b", (), True)]]
    moved = {}
    for warmup in (0, 4):
        policy = Policy(make_model(), make_tokenizer(), lora_rank=2)
        learner = Learner(policy, Objective("dpo"), learning_rate=1e-2, warmup_steps=warmup)
        learner.learn([[5, 6, 7]], responses, [Pair(0, 0, 1, 1.0, 0.0)])
        moved[warmup] = max(
            float(p.detach().abs().max()) for n, p in policy._adapter("policy").items() if "lora_B" in n
        )
    assert moved[4] == pytest.approx(moved[0] / 4, rel=1e-3)

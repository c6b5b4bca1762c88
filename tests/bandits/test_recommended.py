"""The selector of the preset `recommended` in a simulated run: losses of four reward models, no probe."""

import numpy as np

from laser.config import parse_config
from laser.wiring import build_contexts, build_selector
from laser.wiring.selection import build_feedback
from runs import make_table

K, DIM, BATCHES = 4, 16, 40


def config_of(tmp_path, **changes):
    table = {**make_table(tmp_path, *[f"arm{arm}" for arm in range(1, K)]), "preset": "recommended"}
    for section in ("selector", "feedback", "context"):
        table.pop(section, None)
    return parse_config({**table, "signal": {"type": "none"}, **changes})


def run(config, seed):
    """Arms chosen, one a batch, where the loss of arm k is 0.6 + 0.1 k on average and falls over the run."""
    config = config.model_copy(update={"seed": seed})
    prepare = build_contexts(config, dim=DIM)
    selector, feedback = build_selector(config, prepare), build_feedback(config.feedback)
    generator = np.random.default_rng(seed)
    direction, arms = generator.normal(size=DIM), []
    for batch in range(BATCHES):
        contexts = prepare(direction + 0.05 * generator.normal(size=(1, DIM)))
        selection = selector.select(contexts)
        arm = selection.arms_M
        loss = (0.6 + 0.1 * arm) * (1 - 0.3 * batch / BATCHES) + 0.03 * generator.normal(size=1)
        selector.update(selection.id, feedback.scale(loss, arm))
        arms.append(int(arm[0]))
    return arms


def test_every_arm_is_tried_once_and_the_best_one_wins(tmp_path):
    runs = [run(config_of(tmp_path), seed) for seed in range(20)]
    assert all(set(arms[:K]) == set(range(K)) for arms in runs)
    assert np.mean([np.mean(np.array(arms[K:]) == 0) for arms in runs]) > 0.6


def test_without_the_first_pulls_most_runs_leave_an_arm_untried(tmp_path):
    """What the preset guards against: the bound of an untried arm is below that of the arm that came first."""
    linucb = {"type": "linucb", "forced_pulls": 0}
    runs = [run(config_of(tmp_path, selector=linucb), seed) for seed in range(20)]
    assert np.mean([len(set(arms)) < K for arms in runs]) > 0.5
    assert np.mean([np.mean(np.array(arms[K:]) == 0) for arms in runs]) < 0.5


def test_what_a_probe_has_taught_is_not_tried_again(tmp_path):
    """A probe teaches through the selector itself, an arm at a time; one that it could not measure is still tried."""
    config = config_of(tmp_path)
    prepare = build_contexts(config, dim=DIM)
    selector = build_selector(config, prepare)
    rows = prepare(np.random.default_rng(0).normal(size=(8, DIM)))
    for arm, accuracy in ((0, 0.4), (1, 0.9), (2, 0.5)):
        selection = selector.select(rows, np.arange(K) == arm)
        selector.update(selection.id, np.full(8, accuracy))
    first = selector.select(rows[:1])
    assert first.arms_M.tolist() == [3]
    selector.update(first.id, np.array([0.2]))
    assert selector.select(rows[:1]).arms_M.tolist() == [1]


def test_fields_that_the_user_sets_stay(tmp_path):
    assert config_of(tmp_path).selector.forced_pulls == 1
    assert config_of(tmp_path, selector={"forced_pulls": 3}).selector.forced_pulls == 3
    assert config_of(tmp_path, preset="paper").selector.forced_pulls == 0

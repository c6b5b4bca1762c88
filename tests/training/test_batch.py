"""One batch of Algorithm 1 on real parts."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from laser.config import parse_config
from laser.core.types import Batch
from laser.policy import policy as policy_module
from laser.training.batch import run_batch, sample
from laser.training.loop import draw_batches
from laser.training.progress import PhaseClock, Progress
from laser.wiring import build
from runs import make_table


def make_batches(tmp_path, **sections):
    config = parse_config(make_table(tmp_path, "vowels", "short", **sections))
    built = build(config)
    prompts = built.splits.train
    batches = [
        Batch(0, step, [prompts[index] for index in drawn])
        for step, drawn in enumerate(draw_batches(config, prompts, 0))
    ]
    return config, built.parts, batches


def clock(batch):
    return PhaseClock(Progress(), iteration=batch.iteration, step=batch.step)


@pytest.mark.slow
@pytest.mark.parametrize("bandit_loss", ["train", "decrease"])
def test_a_prompt_is_rendered_once_per_batch(tmp_path, monkeypatch, bandit_loss):
    config, parts, batches = make_batches(tmp_path, training={"bandit_loss": bandit_loss})
    rendered = []
    encode_prompt = policy_module.encode_prompt
    monkeypatch.setattr(
        policy_module, "encode_prompt", lambda *args, **named: rendered.append(args) or encode_prompt(*args, **named)
    )
    for batch in batches:
        run_batch(parts, config, batch, clock(batch))
        assert len(rendered) == len(batch.prompts)
        rendered.clear()


@pytest.mark.slow
def test_responses_that_are_given_are_used_and_none_are_sampled(tmp_path):
    config, parts, batches = make_batches(tmp_path)
    kept = sample(parts, config, batches[0])
    sampled = run_batch(parts, config, batches[0], clock(batches[0]))
    config, parts, batches = make_batches(tmp_path)
    parts.generator.generate = None
    given = run_batch(parts, config, batches[0], clock(batches[0]), kept)
    assert given["loss"] == sampled["loss"]
    np.testing.assert_array_equal(given["bandit_rewards"], sampled["bandit_rewards"])


def test_states_do_not_change_with_the_weights_they_were_taken_from(tmp_path):
    """Nor do weights change with the state they were restored from."""
    config, parts, batches = make_batches(tmp_path, training={"learning_rate": 1e-2})
    run_batch(parts, config, batches[0], clock(batches[0]))
    owners = (parts.policy, parts.learner)
    states = [owner.state_dict() for owner in owners]
    copies = [{name: np.array(value) for name, value in state.items()} for state in states]
    for owner, state in zip(owners, states, strict=True):
        owner.load_state_dict(state)
    run_batch(parts, config, batches[1], clock(batches[1]))
    for owner, state, before in zip(owners, states, copies, strict=True):
        assert any(not np.array_equal(value, before[name]) for name, value in owner.state_dict().items())
        for name, value in state.items():
            np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_the_page_on_design_shows_the_lines_of_the_function_in_their_order():
    page = (Path(__file__).parents[2] / "docs" / "design.md").read_text()
    shown = [line.partition("  #")[0].strip() for line in re.search(r"```python\n(.*?)```", page, re.S)[1].splitlines()]
    lines = [line.strip() for line in inspect.getsource(run_batch).splitlines()]
    assert len(shown) > 8
    assert [line for line in lines if line in shown] == shown

"""Reward models that hang, die and come back, swallow memory, or return nonsense: the run continues without them."""

import asyncio
import json
import re
import threading
import time
from contextvars import ContextVar
from fractions import Fraction

import numpy as np
import pytest
import torch

import laser
from laser.config import parse_config
from laser.core.errors import RewardModelError
from laser.rewards import growth
from laser.rewards.custom import CustomRM
from laser.rewards.function import FunctionRM
from laser.rewards.pool import Arm, QuarantinedError, RewardPool
from laser.rewards.quarantine import Quarantine
from laser.rewards.user_code import UserCode
from laser.wiring import build_pool
from runs import Notes, make_table, steps
from servers import serving
from tiny import make_prompt

PROMPTS, RESPONSES = [make_prompt("x")], [["a", "bb"]]


def pool_of(score, **options):
    """A pool of one reward model that the user wrote, and one that works."""

    class Own:
        def score(self, prompts, responses):
            return score(responses)

        def release(self):
            pass

    class Fine(Own):
        def score(self, prompts, responses):
            return [np.arange(len(row), dtype=float) for row in responses]

    return RewardPool([Arm("own", Own), Arm("fine", Fine)], max_resident=2, quarantine=Quarantine(2, **options))


@pytest.mark.parametrize(
    "given",
    [
        [["1.5", "2"]],
        [[None, "2"]],
        [["good", "bad"]],
        [[b"1", b"2"]],
        [[1 + 2j, 0]],
        [[[1], [2]]],
        [[1]],
        [[1, 2], [3, 4]],
        [],
        None,
        7,
        [{"a": 1}],
        [[10**400, 1]],
        [[1, [2, 3]]],
        [[np.datetime64("2020"), np.datetime64("2021")]],
    ],
)
def test_nonsense_counts_as_failure_and_never_as_a_score(given):
    pool = pool_of(lambda responses: given, max_failures=2)
    with pytest.raises(RewardModelError, match="reward model 'own'"):
        pool.score(0, PROMPTS, RESPONSES)
    assert pool.available_K.tolist() == [False, True]
    assert pool.score(1, PROMPTS, RESPONSES)[0].tolist() == [0, 1]


@pytest.mark.parametrize("given", [[[True, 2]], [[np.float32(1), Fraction(4, 2)]], [(1, 2)], np.array([[1, 2]])])
def test_numbers_of_any_kind_are_scores(given):
    assert pool_of(lambda responses: given).score(0, PROMPTS, RESPONSES)[0].tolist() == [1, 2]


def test_none_means_no_opinion():
    scores = pool_of(lambda responses: [[None, 2]]).score(0, PROMPTS, RESPONSES)[0]
    assert np.isnan(scores[0])
    assert scores[1] == 2


def score(function, *, timeout=None, code=None):
    code = code or UserCode("reward function 'f'", timeout=timeout)
    return FunctionRM(function, "f", code=code).score(PROMPTS, RESPONSES)


def raising(error):
    def function(prompts, responses):
        raise error

    return function


@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RecursionError(),
        SystemExit(0),
        OSError(24, "too many files"),
        asyncio.CancelledError(),
        GeneratorExit(),
        pytest.fail.Exception("no"),
        BaseExceptionGroup("several", [SystemExit(0)]),
    ],
)
def test_whatever_a_function_raises_is_its_failure(error, timeout):
    with pytest.raises(RewardModelError, match=f"'f' raised {type(error).__name__}"):
        score(raising(error), timeout=timeout)


def test_numbers_beyond_floats_are_infinite_and_long_nonsense_is_shortened():
    assert score(lambda prompts, responses: [10**400, -(10**400)])[0].tolist() == [np.inf, -np.inf]
    with pytest.raises(RewardModelError) as caught:
        score(lambda prompts, responses: ["x" * 10**6, "y"])
    assert len(str(caught.value)) < 300


def test_a_function_that_hangs_holds_one_thread_and_never_runs_twice_at_once():
    gate, running, most = threading.Event(), [], []

    def hangs(prompts, responses):
        running.append(1)
        most.append(len(running))
        gate.wait(20)
        running.pop()
        return [1.0, 2.0]

    before, code = threading.active_count(), UserCode("reward function 'f'", timeout=0.05)
    for _ in range(4):  # as when it leaves quarantine: built afresh each time
        with pytest.raises(RewardModelError, match=r"took longer than 0\.05 s"):
            score(hangs, code=code)
    assert threading.active_count() == before + 1
    gate.set()
    code.timeout = 5.0
    assert score(hangs, code=code)[0].tolist() == [1, 2]
    assert max(most) == 1


class Hanging:
    """A custom reward model that hangs until its gate opens, and must not be touched meanwhile."""

    def __init__(self, gate):
        self.gate, self.running, self.calls = gate, 0, []

    def score(self, prompts, responses):
        self.running += 1
        assert self.running == 1
        self.gate.wait(20)
        self.running -= 1
        return [np.arange(len(row), dtype=float) for row in responses]

    def release(self):
        self.calls.append(("release", self.running))

    def park(self):
        self.calls.append(("park", self.running))

    def unpark(self):
        self.calls.append(("unpark", self.running))


def test_a_custom_reward_model_that_hangs_is_left_out_and_used_again_once_it_answers():
    gate, before = threading.Event(), threading.active_count()
    hanging, code = Hanging(gate), UserCode("reward model 'own'", timeout=0.05)
    arms = [Arm("own", lambda: CustomRM(hanging, "own", code)), Arm("fine", lambda: Hanging(gate))]
    pool = RewardPool(arms, quarantine=Quarantine(2, max_failures=2, recovery_batches=1))
    with pytest.raises(QuarantinedError, match=r"reward model 'own' took longer than 0\.05 s; .* raise its timeout"):
        pool.score(0, PROMPTS, RESPONSES)
    assert hanging.calls == []
    assert threading.active_count() == before + 1
    gate.set()
    while code.busy:
        time.sleep(0.01)
    assert pool.score(1, PROMPTS, RESPONSES)[0].tolist() == [0, 1]
    while not pool.available_K[0]:
        pool.quarantine.next_batch()
    code.timeout = 20.0
    assert pool.score(0, PROMPTS, RESPONSES)[0].tolist() == [0, 1]
    pool.release_all()
    assert hanging.calls == [("release", 0)]


@pytest.mark.parametrize("timeout", [None, 0, 5.0])
def test_a_call_with_a_time_limit_is_as_one_without(timeout):
    code = UserCode("it", timeout=timeout)
    variable = ContextVar("variable", default="default")
    variable.set("set")
    with torch.no_grad():
        assert code.call(lambda: (torch.is_grad_enabled(), variable.get())) == (False, "set")
    with pytest.raises(RewardModelError, match="it raised KeyError: 'mine'"):
        code.call(lambda: {}["mine"])
    assert (code.call(threading.get_ident) == threading.get_ident()) == (not timeout)


HANGING = """
import time

class Slow:
    def score(self, prompts, responses):
        time.sleep(3)
    def release(self): pass
    def park(self): pass
    def unpark(self): pass

def make():
    return Slow()

def slow(prompts, responses):
    time.sleep(3)
"""


@pytest.mark.parametrize(
    "kind", [{"type": "python", "factory": "f.py:make"}, {"type": "function", "function": "f.py:slow"}]
)
def test_a_call_has_a_time_limit_only_where_one_is_set(tmp_path, kind):
    (tmp_path / "f.py").write_text(HANGING)
    spec = {name: str(tmp_path / value) if name != "type" else value for name, value in kind.items()}
    table = make_table(tmp_path)
    table["rewards"]["models"] = [{"name": "slow", **spec}, {"name": "patient", "timeout": 0.05, **spec}]
    config = parse_config(table)
    assert config.rewards.models[0].timeout is None
    with pytest.raises(RewardModelError, match=r"'patient' took longer than 0\.05 s"):
        build_pool(config).score(1, PROMPTS, RESPONSES)


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_is_left_out_and_used_again(tmp_path):
    """It hangs up, then hangs, then works again; the run never stops, and its arm earns nothing meanwhile."""

    def answer(path, payload, number):
        if number in (3, 4):
            return "hang up"
        if number == 5:
            time.sleep(1.0)
        return {"scores": [float(len(text)) + 0.01 * i for i, text in enumerate(payload["responses"])]}

    with serving(answer) as server:
        table = make_table(
            tmp_path,
            selector={"type": "sequential"},
            split={"dev": 0},
            training={"iterations": 1, "batches_per_iteration": 18},
        )
        http = {"type": "http", "name": "server", "url": server.url, "retries": 0, "timeout": 0.4}
        table["rewards"] = {"models": [*table["rewards"]["models"], http], "max_failures": 2, "recovery_batches": 3}
        laser.train(table, tmp_path / "run")
    records = steps(tmp_path / "run")
    out = [number for number, record in enumerate(records) if "server" in record["quarantined"]]
    chosen = [number for number, record in enumerate(records) if "server" in record["selection"]["reward_models"]]
    assert len(records) == 18
    assert len(out) == 2  # put out, tried again while it hung, put out once more
    assert any(number < out[0] for number in chosen)
    assert not any(out[0] < number < out[0] + 3 for number in chosen)
    assert any(number > out[1] for number in chosen)  # and back in the end
    usage = json.loads((tmp_path / "run" / "summary.json").read_text())["reward_models"]["server"]
    assert usage["failures"] == 3
    assert usage["unscored"] == 0


LEAKING = """
kept = []

def leaking(prompts, responses):
    kept.append(b"x" * 2**24)
    return [float(len(text)) + 0.01 * i for i, text in enumerate(responses)]
"""


@pytest.mark.slow
def test_a_process_that_grows_with_the_calls_of_reward_models_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "_LIMIT", 2**28)
    table = make_table(
        tmp_path,
        selector={"type": "random"},
        split={"dev": 0},
        training={"iterations": 1, "batches_per_iteration": 30},
    )
    (tmp_path / "leaks.py").write_text(LEAKING)
    table["rewards"]["models"] = [{"type": "function", "name": "leaking", "function": f"{tmp_path}/leaks.py:leaking"}]
    notes = Notes()
    laser.train(table, tmp_path / "run", progress=notes)
    warnings = [note for note in notes.notes if "grown" in note]
    assert len(warnings) == 1, notes.notes
    assert re.search(r"grown by 0\.\d GiB over \d+ calls of reward models; .* fix the leak", warnings[0])


@pytest.mark.parametrize(
    ("size", "warned"),
    [
        (lambda call: 2**26 * call, True),
        (lambda call: 2**31 * (call > 20), False),  # taken once
        (lambda call: 2**40 - 2**26 * call, False),  # shrinks
    ],
)
def test_only_steady_growth_is_a_warning(monkeypatch, size, warned):
    watched, calls = growth.Growth(), 0
    monkeypatch.setattr(growth, "_resident", lambda: size(calls))
    for calls in range(60):  # noqa: B007  # `_resident` reads it
        watched.called()
    assert bool(watched.take_warnings()) == warned
    assert watched.take_warnings() == []


def test_loading_a_model_is_not_growth(monkeypatch):
    watched, size = growth.Growth(), [0]
    monkeypatch.setattr(growth, "_resident", lambda: size[0])
    for _ in range(60):
        with watched.loading():
            size[0] += 2**27
        watched.called()
    assert watched.take_warnings() == []

"""Reward models that hang, die and come back, swallow memory, or return nonsense: the run goes on without them."""

import json
import threading
import time
from fractions import Fraction

import numpy as np
import pytest

import laser
from laser.errors import RewardModelError
from laser.rewards.function import FunctionRM
from laser.rewards.pool import Arm, RewardPool
from laser.rewards.quarantine import Quarantine
from runs import make_table, steps
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


def test_none_is_no_opinion():
    scores = pool_of(lambda responses: [[None, 2]]).score(0, PROMPTS, RESPONSES)[0]
    assert np.isnan(scores[0])
    assert scores[1] == 2


def score(function, **options):
    return FunctionRM(function, "f", **options).score(PROMPTS, RESPONSES)


def raising(error):
    def function(prompts, responses):
        raise error

    return function


@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), SystemExit(3), OSError(24, "too many files")])
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

    before, busy = threading.active_count(), threading.Lock()
    for _ in range(4):  # as when it leaves quarantine: built afresh each time
        with pytest.raises(RewardModelError, match=r"took longer than 0\.05 s"):
            score(hangs, timeout=0.05, busy=busy)
    assert threading.active_count() == before + 1
    gate.set()
    assert score(hangs, timeout=5.0, busy=busy)[0].tolist() == [1, 2]
    assert max(most) == 1


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

"""Reward models that fail: tried again, left out, tried again later; and models parked in CPU memory."""

import numpy as np
import pytest
import torch

from laser.core.errors import RewardModelError
from laser.rewards.loglik import LogLikelihoodRM
from laser.rewards.pool import Arm, QuarantinedError, RewardPool
from laser.rewards.quarantine import Quarantine
from tiny import make_model, make_prompt, make_tokenizer

PROMPTS, RESPONSES = [make_prompt("x")], [["a", "bb"]]


class Flaky:
    """Fails as its script says: an error, silence, or scores."""

    def __init__(self, script):
        self.script = script

    def score(self, prompts, responses):
        step = self.script.pop(0) if self.script else "fine"
        if step == "error":
            raise RewardModelError("it broke")
        value = np.nan if step == "silent" else 1.0
        return [np.full(len(row) + (step == "long"), value) for row in responses]

    def release(self):
        pass


def make_pool(script, **options):
    arms = [Arm("flaky", lambda: Flaky(script)), Arm("fine", lambda: Flaky([]))]
    return RewardPool(arms, max_resident=2, quarantine=Quarantine(2, **options))


def test_a_passing_failure_is_tried_again():
    pool = make_pool(["error", "long"], max_failures=3)
    assert pool.score(0, PROMPTS, RESPONSES)[0].tolist() == [1, 1]
    assert pool.available_K.all()
    assert pool.usage()["flaky"]["failures"] == 2


def test_failures_in_a_row_put_it_out_and_rest_brings_it_back_on_trial():
    pool = make_pool(["error"] * 4, max_failures=3, recovery_batches=2)
    with pytest.raises(QuarantinedError, match=r"flaky.*it broke"):
        pool.score(0, PROMPTS, RESPONSES)
    assert pool.quarantine.fresh(pool.names) == {"flaky": "reward model 'flaky': it broke"}
    assert pool.available_K.tolist() == [False, True]
    with pytest.raises(QuarantinedError, match="in quarantine"):
        pool.score(0, PROMPTS, RESPONSES)
    for available in (False, False, True):
        pool.quarantine.next_batch()
        assert pool.available_K[0] == available
    with pytest.raises(QuarantinedError):  # one failure on trial is enough
        pool.score(0, PROMPTS, RESPONSES)
    for _ in range(3):
        pool.quarantine.next_batch()
    assert pool.score(0, PROMPTS, RESPONSES)[0].tolist() == [1, 1]  # and a success heals
    state = pool.state_dict()
    assert (state["failures"], state["resting"]) == ([0, 0], [0, 0])


def test_silence_counts_as_failure_but_is_not_asked_twice():
    pool = make_pool(["silent"] * 3, max_failures=3)
    for left in (True, True, False):
        assert np.isnan(pool.score(0, PROMPTS, RESPONSES)[0]).all()
        assert pool.available_K[0] == left


def test_without_quarantine_the_first_failure_is_raised():
    with pytest.raises(RewardModelError, match="it broke"):
        make_pool(["error"], max_failures=0).score(0, PROMPTS, RESPONSES)


def test_state_round_trip_and_another_pool():
    pool = make_pool(["error"] * 3, max_failures=3)
    with pytest.raises(QuarantinedError):
        pool.score(0, PROMPTS, RESPONSES)
    other = make_pool([], max_failures=3)
    other.load_state_dict(pool.state_dict())
    assert other.available_K.tolist() == [False, True]
    with pytest.raises(ValueError, match="2 reward models"):
        Quarantine(3).load_state_dict(pool.state_dict())


def test_parked_models_come_back_with_the_same_scores():
    loads = []

    def build(seed):
        loads.append(seed)
        return LogLikelihoodRM(make_model(seed), make_tokenizer())

    arms = [Arm(str(seed), lambda seed=seed: build(seed)) for seed in range(3)]
    pool = RewardPool(arms, max_resident=1, max_parked=1)
    first = pool.score(0, PROMPTS, RESPONSES)[0]
    pool.score(1, PROMPTS, RESPONSES)
    assert (pool.loaded, pool.parked) == (("1",), ("0",))
    assert np.array_equal(pool.score(0, PROMPTS, RESPONSES)[0], first)
    assert (pool.loaded, pool.parked) == (("0",), ("1",))
    assert loads == [0, 1]
    assert pool.usage()["0"] == {**pool.usage()["0"], "loads": 1, "unparks": 1}
    pool.score(2, PROMPTS, RESPONSES)
    assert (pool.loaded, pool.parked) == (("2",), ("0",))
    pool.release_all()
    assert (pool.loaded, pool.parked) == ((), ())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_parking_frees_the_device():
    rm = LogLikelihoodRM(make_model(hidden_size=512).cuda(), make_tokenizer())
    scores = rm.score(PROMPTS, RESPONSES)[0]
    held = torch.cuda.memory_allocated()
    rm.park()
    assert torch.cuda.memory_allocated() < held / 2
    rm.unpark()
    assert np.allclose(rm.score(PROMPTS, RESPONSES)[0], scores)


def test_prefetch_reads_only_what_is_not_there():
    fetched = []
    arms = [Arm(name, lambda: Flaky([]), lambda name=name: fetched.append(name)) for name in "abc"]
    pool = RewardPool(arms, max_resident=1)
    pool.score(0, PROMPTS, RESPONSES)
    pool.prefetch([0])
    pool.prefetch([1, 2])
    pool._fetching.join(5)
    assert fetched == ["b"]

"""The pool: lazy loading, residency, contract, grouping."""

import numpy as np
import pytest

from laser.core.errors import RewardModelError
from laser.rewards.combine import combine_scores
from laser.rewards.pool import Arm, RewardPool
from tiny import make_prompt

PROMPTS = [make_prompt(str(index), id=str(index)) for index in range(4)]
RESPONSES = [["a", "bb"], ["ccc"], [], ["d", "ee", "fff"]]


class Recorder:
    """A reward model that scores length times a factor and keeps a diary."""

    def __init__(self, factor, diary, name):
        self.factor, self.diary, self.name = factor, diary, name
        diary.append(("load", name))

    def score(self, prompts, responses):
        self.diary.append(("score", self.name, [prompt.id for prompt in prompts]))
        return [np.array([self.factor * len(text) for text in row], dtype=float) for row in responses]

    def release(self):
        self.diary.append(("release", self.name))


def make_pool(names="abc", max_resident=1):
    diary = []
    arms = [Arm(name, lambda f=f, n=name: Recorder(f, diary, n)) for f, name in enumerate(names, start=1)]
    return RewardPool(arms, max_resident=max_resident), diary


def test_nothing_is_loaded_before_it_is_asked():
    pool, diary = make_pool()
    assert (diary, pool.loaded, pool.names) == ([], (), ("a", "b", "c"))


@pytest.mark.parametrize("max_resident", [1, 2, 3])
def test_at_most_max_resident_are_loaded_and_the_least_recently_used_goes(max_resident):
    pool, diary = make_pool(max_resident=max_resident)
    resident = 0
    for arm in (0, 1, 0, 2, 1, 0):
        pool.score(arm, PROMPTS, RESPONSES)
        assert len(pool.loaded) <= max_resident
    for event in diary:
        resident += {"load": 1, "release": -1}.get(event[0], 0)
        assert resident <= max_resident
    loads = {1: 6, 2: 5, 3: 3}[max_resident]
    assert sum(event[0] == "load" for event in diary) == loads
    pool.release_all()
    assert pool.loaded == ()


def test_least_recently_used_order():
    pool, diary = make_pool(max_resident=2)
    for arm in (0, 1, 0, 2):
        pool.score(arm, PROMPTS, RESPONSES)
    assert ("release", "b") in diary
    assert pool.loaded == ("a", "c")


def test_one_hot_rows_group_prompts_by_model_and_keep_raw_scores():
    pool, diary = make_pool(max_resident=3)
    weights = np.eye(3)[[0, 2, 0, 2]]
    scores = pool.score_selection(weights, PROMPTS, RESPONSES)
    combined = [combine_scores(scores_KN, row) for scores_KN, row in zip(scores, weights, strict=True)]
    assert [row.tolist() for row in combined] == [[1, 2], [9], [], [3, 6, 9]]
    assert np.isnan(scores[0][1:]).all()  # models that were not asked
    assert [event for event in diary if event[0] == "score"] == [("score", "a", ["0", "2"]), ("score", "c", ["1", "3"])]


def test_several_weights_give_the_weighted_mean():
    pool, _ = make_pool(max_resident=3)
    weights = np.tile([0.5, 0.25, 0.25], (4, 1))
    scores = pool.score_selection(weights, PROMPTS, RESPONSES)
    np.testing.assert_allclose(combine_scores(scores[0], weights[0]), [1.75, 3.5])


def test_standardized_and_ranked_scores_give_every_model_the_same_say():
    scores = np.array([[0.0, 1000.0, 500.0], [0.3, 0.1, 0.2], [0.3, 0.1, 0.2]])
    weights = np.full(3, 1 / 3)
    assert combine_scores(scores, weights, "raw").argmax() == 1  # the widest scale decides
    for combination in ("zscore", "rank"):
        combined = combine_scores(scores, weights, combination)
        assert combined.argmax() == 0
        scaled = combine_scores(scores * [[7.0], [1.0], [1.0]] + [[2.0], [0.0], [0.0]], weights, combination)
        np.testing.assert_allclose(combined, scaled)


def test_a_model_without_an_opinion_takes_nothing_from_the_others():
    scores = np.array([[np.nan, 1.0, 2.0, np.nan], [3.0, 5.0, 7.0, np.nan]])
    weights = np.array([0.25, 0.75])
    np.testing.assert_allclose(combine_scores(scores, weights, "raw"), [3.0, 4.0, 5.75, np.nan])
    ranks = [1 / 6, 0.25 * 0.25 + 0.75 * 0.5, 0.25 * 0.75 + 0.75 * 5 / 6, np.nan]
    np.testing.assert_allclose(combine_scores(scores, weights, "rank"), ranks)
    edge = np.sqrt(1.5)  # standardized 3, 5, 7; 1 and 2 become -1 and 1
    np.testing.assert_allclose(combine_scores(scores, weights, "zscore"), [-edge, -0.25, 0.25 + 0.75 * edge, np.nan])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e308])
def test_scores_that_are_not_finite_are_counted_and_never_numbers(bad):
    class Bad(Recorder):
        def score(self, prompts, responses):
            return [np.full(len(row), bad) for row in responses]

    pool = RewardPool([Arm("bad", lambda: Bad(1, [], "bad"))])
    assert all(np.isnan(row).all() for row in pool.score(0, PROMPTS, RESPONSES))
    usage = pool.usage()["bad"]
    assert (usage["responses"], usage["unscored"], usage["infinite"]) == (6, 6, 0 if np.isnan(bad) else 6)


@pytest.mark.parametrize("wrong", [[], [[1.0]], [[1.0, 2.0], [3.0], [], [1.0]]])
def test_a_model_that_breaks_the_contract_is_named(wrong):
    class Wrong(Recorder):
        def score(self, prompts, responses):
            return [np.array(row) for row in wrong]

    pool = RewardPool([Arm("odd", lambda: Wrong(1, [], "odd"))])
    with pytest.raises(RewardModelError, match="'odd' returned scores of shape"):
        pool.score(0, PROMPTS, RESPONSES)


def test_errors_carry_the_name_of_the_model():
    def build():
        raise RewardModelError("the file is gone")

    pool = RewardPool([Arm("lost", build)])
    with pytest.raises(RewardModelError, match="reward model 'lost': the file is gone"):
        pool.score(0, PROMPTS, RESPONSES)


def test_empty_pools_and_shared_names_are_refused():
    with pytest.raises(RewardModelError, match="K = 0"):
        RewardPool([])
    with pytest.raises(RewardModelError, match="share a name"):
        make_pool("aa")

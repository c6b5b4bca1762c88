"""What labels of a probe save: scores of reward models clearly behind, and training on pairs of two wrong responses."""

import numpy as np
import pytest

from laser.bandits.linucb import LinUCB
from laser.config.schema import GenerationConfig
from laser.config.selection import ProbeSignal
from laser.core.state import load_state, save_state
from laser.core.types import Batch, Prompt, Response, Selection
from laser.data.preferences import Candidates as LabeledCandidates
from laser.evaluation.answers import answer_check
from laser.rewards.function import FunctionRM
from laser.rewards.pool import Arm, RewardPool
from laser.rewards.quarantine import Quarantine
from laser.training.pairs import Candidates, OrientedPairs, orient_pairs
from laser.training.probe import Probe
from laser.training.probe_items import ProbeData
from laser.training.probe_scores import clearly_behind
from laser.training.thresholds import right_threshold, thresholds_of

TEXTS = ("no", "maybe", "not really", "yes")


def make_prompts(num, **changes):
    return [
        Prompt(str(row), ({"role": "user", "content": "?"},), **({"category": "a", "answer": "yes"} | changes))
        for row in range(num)
    ]


class Replies:
    """Answers every prompt with the same texts."""

    def __init__(self, texts=TEXTS):
        self.texts = texts

    def generate(self, prompts, **rest):
        return [[Response((1,), text, (), True) for text in self.texts] for _ in prompts]


def knows(prompts, responses):
    """Right is 10 above wrong; the rest of a score says nothing."""
    return [10.0 * (text == "yes") + len(text) for text in responses]


def within(prompts, responses):
    """Right is above wrong for the same prompt, but prompts differ by more."""
    return [(text == "yes") + 50.0 * int(prompt.id) for prompt, text in zip(prompts, responses, strict=True)]


def long(prompts, responses):
    return [float(len(text)) for text in responses]


def hates(prompts, responses):
    return [-score for score in knows(prompts, responses)]


def make_pool(*functions, quarantine=None):
    arms = [Arm(f.__name__, lambda f=f: FunctionRM(f, f.__name__)) for f in functions]
    return RewardPool(arms, max_resident=len(arms), quarantine=quarantine or Quarantine(len(arms)))


def make_probe(pool, data=None, replies=None, **changes):
    section = ProbeSignal(**{"labels": "gold", "num_responses": 4} | changes)
    data, sampling = data or ProbeData({"a": make_prompts(16)}), GenerationConfig(max_new_tokens=4)
    return Probe(section, sampling, pool, replies or Replies(), data, answer_check("whole"), seed=0)


def contexts(prompts):
    return np.ones((len(prompts), 1))


def start(probe, num_arms):
    selector = LinUCB(num_arms, 1, alpha=0.1, ridge=0.01)
    probe.prepare(0, selector, contexts)
    return selector


def pairs_of(score, texts=TEXTS):
    """All pairs of a prompt's four responses as a reward model orients them, as texts, and for `drop_doubtful`."""
    [prompt] = make_prompts(1)
    every = tuple((i, j) for i in range(len(texts)) for j in range(i + 1, len(texts)))
    return orient_pairs(Candidates((every,), 0, 0, 0), [np.array(score([prompt] * len(texts), texts))])


def filtered(probe, oriented, *weights):
    selection = Selection(0, np.array([weights]), np.array([weights]), np.array([weights]), ((0, 0),))
    return probe.drop_doubtful(Batch(0, 0, make_prompts(1)), selection, oriented)


def test_clearly_behind_is_a_one_sided_paired_t_test():
    """Differences -1, -1, -1, 0 have mean -0.75 and error 0.25; 2.353 errors above is below 0. With -1, -1, 0, 0
    the mean is -0.5 and the error 0.289, which is not."""
    best = [1.0, 1.0, 1.0, 1.0]
    assert clearly_behind(np.array([best, [0, 0, 0, 1], [0, 0, 1, 1]])).tolist() == [False, True, False]
    assert clearly_behind(np.array([best, [0, 0, 0, 0], best])).tolist() == [False, True, False]


def test_a_reward_model_is_behind_only_where_it_was_measured_on_four_prompts():
    nan = np.nan
    table = np.array([[1.0] * 5, [0, 0, 0, nan, nan], [0, 0, 0, 0, nan], [nan] * 5])
    assert clearly_behind(table).tolist() == [False, False, True, False]
    assert not clearly_behind(np.full((2, 5), nan)).any()
    assert not clearly_behind(np.empty((3, 0))).any()


def test_who_is_clearly_behind_scores_a_quarter_and_is_taught_everywhere(tmp_path):
    pool = make_pool(knows, hates, within)
    probe = make_probe(pool)
    selector = start(probe, 3)
    assert pool.num_scored() == {"knows": 16 * 4, "hates": 4 * 4, "within": 16 * 4}
    assert selector.pulls_K.tolist() == [16, 16, 16]
    np.testing.assert_allclose(selector.estimates(np.ones((1, 1)))[0][0], [1.0, 0.0, 1.0], atol=0.01)
    pairs = {one.reward_model: one.num_pairs for one in probe.findings().found}
    assert pairs == {"knows": 16 * 3, "hates": 4 * 3, "within": 16 * 3}
    save_state(tmp_path / "probe", probe.state_dict())
    again = make_probe(pool)
    again.load_state_dict(load_state(tmp_path / "probe"))
    again.prepare(1, selector, contexts)
    assert again.findings() == probe.findings()
    assert pool.num_scored()["hates"] == 4 * 4


def test_a_measurement_without_training_and_a_consensus_leave_out_nobody():
    pool = make_pool(knows, hates)
    make_probe(pool).test_all()
    assert pool.num_scored() == {"knows": 64, "hates": 64}
    pool = make_pool(knows, hates)
    start(make_probe(pool, labels="consensus"), 2)
    assert pool.num_scored() == {"knows": 64, "hates": 64}


def test_a_reward_model_that_comes_back_is_compared_with_those_that_are_known():
    away = [True]

    def hates_later(prompts, responses):
        if away[0]:
            raise ConnectionError("no answer")
        return hates(prompts, responses)

    quarantine = Quarantine(2, max_failures=1, recovery_batches=1)
    pool = make_pool(knows, hates_later, quarantine=quarantine)
    probe = make_probe(pool, refresh=0)
    selector = start(probe, 2)
    assert selector.pulls_K.tolist() == [16, 0]
    away[0] = False
    for _ in range(3):
        quarantine.next_batch()
        probe.prepare(0, selector, contexts)
    assert selector.pulls_K.tolist() == [16, 16]
    assert pool.num_scored() == {"knows": 64, "hates_later": 16}


def test_the_threshold_is_the_midpoint_with_the_highest_balanced_accuracy():
    """Four right and five wrong ones: above 4.5, (4 + 1) / 6 and (5 + 1) / 7, which is 0.845 on average."""
    assert right_threshold(np.array([5.0, 6, 7, 8]), np.array([0.0, 1, 2, 3, 4])) == 4.5
    assert right_threshold(np.array([3.5, 6, 7, 8, np.nan]), np.array([0.0, 1, 2, 3, 4, 5, -1, -2])) == 5.5


def test_a_threshold_has_no_unit_and_does_not_depend_on_how_many_are_right():
    rng = np.random.default_rng(0)
    right, wrong = rng.normal(3, 1, 20), rng.normal(0, 1, 50)
    threshold = right_threshold(right, wrong)
    assert 0.5 < threshold < 2.5
    np.testing.assert_allclose(right_threshold(100 * right - 7, 100 * wrong - 7), 100 * threshold - 7)
    assert right_threshold(np.tile(right, 40), np.tile(wrong, 40)) == threshold


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (np.arange(20.0), np.arange(20.0)),  # no separation
        (np.zeros(20), np.ones(20)),  # the wrong way round
        (np.array([9.0, 9.5, 10]), np.arange(5.0)),  # too few
        (np.empty(0), np.arange(5.0)),
        (np.full(9, np.nan), np.arange(5.0)),
        (np.full(9, 2.0), np.full(9, 2.0)),
    ],
)
def test_scores_that_do_not_separate_have_no_threshold(right, wrong):
    assert right_threshold(right, wrong) == -np.inf


def test_pairs_of_two_wrong_responses_are_left_out_where_scores_separate():
    """Three of six pairs have "yes", the one response that `knows` scores above 10."""
    probe = make_probe(make_pool(knows, within))
    start(probe, 2)
    oriented = pairs_of(knows)
    kept = filtered(probe, oriented, 1.0, 0.0)
    assert (len(oriented.pairs), len(kept.pairs), kept.num_doubtful) == (6, 3, 3)
    assert {TEXTS[pair.chosen] for pair in kept.pairs} == {"yes"}


def test_no_pair_is_left_out_without_separation_or_for_several_reward_models_or_by_choice():
    probe = make_probe(make_pool(knows, within))
    start(probe, 2)
    oriented = pairs_of(knows)
    assert filtered(probe, pairs_of(within), 0.0, 1.0).num_doubtful == 0
    assert filtered(probe, oriented, 0.5, 0.5) == oriented
    assert filtered(make_probe(make_pool(knows), drop_doubtful=False), oriented, 1.0) == oriented


def test_a_consensus_and_labeled_pairs_tell_right_from_wrong_too():
    by_consensus = make_probe(make_pool(knows), labels="consensus")
    start(by_consensus, 1)
    assert filtered(by_consensus, pairs_of(knows), 1.0).num_doubtful == 3
    given = [LabeledCandidates(one, ("yes",), ("not really",)) for one in make_prompts(8)]
    by_pairs = make_probe(make_pool(knows), ProbeData(pairs={"a": given}), labels="pairs", pairs="x")
    start(by_pairs, 1)
    assert filtered(by_pairs, pairs_of(knows), 1.0).num_doubtful == 3


def test_a_gold_answer_that_the_policy_never_gave_sets_no_threshold():
    """It is written in another way than answers of the policy, so its score says nothing about theirs."""
    probe = make_probe(make_pool(knows), replies=Replies(TEXTS[:3]))
    start(probe, 1)
    assert filtered(probe, pairs_of(knows), 1.0).num_doubtful == 0


def test_fresh_answers_make_a_fresh_threshold():
    """After the refresh the right answer is the longest; the missing scores are taken when a threshold needs them."""
    replies = Replies()
    pool = make_pool(long)
    probe = make_probe(pool, replies=replies, refresh=1)
    selector = start(probe, 1)
    longest = pairs_of(long)
    assert filtered(probe, longest, 1.0).num_doubtful == 0
    replies.texts = ("yes", "n", "m", "o")
    probe.prepare(1, selector, contexts)
    kept = filtered(probe, longest, 1.0)
    assert kept.num_doubtful == sum(pair.chosen_score < 2 for pair in longest.pairs) < len(longest.pairs)
    assert isinstance(kept, OrientedPairs)


def test_the_state_keeps_the_latest_threshold_of_each_reward_model(tmp_path):
    """After a refresh `within` has not scored the new answers; its last finding stays until it does."""
    replies = Replies()
    pool = make_pool(knows, hates, within)
    probe = make_probe(pool, replies=replies, refresh=1)
    selector = start(probe, 3)
    first = thresholds_of(probe.state_dict())["a"]
    assert 10 < first["knows"] < 13
    assert first["hates"] == first["within"] == -np.inf
    replies.texts = ("yes", "nope", "never")
    probe.prepare(1, selector, contexts)
    assert thresholds_of(probe.state_dict())["a"] == first
    assert filtered(probe, pairs_of(knows), 1.0).num_doubtful == 1
    save_state(tmp_path / "probe", probe.state_dict())
    again = make_probe(pool, replies=replies, refresh=1)
    again.load_state_dict(load_state(tmp_path / "probe"))
    fresh = thresholds_of(again.state_dict())["a"]
    assert fresh == {**first, "knows": 9.0}
    replies.texts = TEXTS
    again.prepare(2, selector, contexts)
    assert thresholds_of(again.state_dict())["a"] == fresh
    assert thresholds_of({}) == {}

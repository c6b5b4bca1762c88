"""What a choice earns besides the loss, and which pairs a charge holds."""

from dataclasses import replace
from string import ascii_letters

import numpy as np
import pytest

from laser.bandits.base import StateVersionError
from laser.bandits.baselines import UniformRandom
from laser.bandits.feedback import ZScoreFeedback
from laser.bandits.linucb import LinUCB
from laser.config.schema import GenerationConfig
from laser.config.selection import ProbeSignal
from laser.core.state import load_state, save_state
from laser.core.statistics import wilson_interval
from laser.core.types import Batch, Pair, Prompt, Response, Selection
from laser.data.preferences import Candidates as LabeledCandidates
from laser.evaluation.answers import answer_check
from laser.rewards.function import FunctionRM
from laser.rewards.pool import Arm, RewardPool
from laser.rewards.quarantine import Quarantine
from laser.training.charges import Charge, make_charges
from laser.training.consensus import (
    Answers,
    answer_counts,
    consensus,
    consensus_gaps,
    consensus_orders,
    untied,
    voting_spreads,
)
from laser.training.pairs import Candidates, orient_by_agreement
from laser.training.probe import Probe
from laser.training.probe_items import ProbeData
from laser.training.signals import AccuracyGap, DevGain, NoSignal, PoolAgreement, mixed

IS_RIGHT = answer_check("whole")
PROMPTS = [
    Prompt(str(i), ({"role": "user", "content": "?"},), "even" if i % 2 == 0 else "odd", "yes") for i in range(4)
]
REPLIES = [[Response((1,), text, (), True) for text in ("yes", "no", "maybe not")] for _ in PROMPTS]


def long(prompts, responses):
    return [len(text) for text in responses]


def short(prompts, responses):
    return [-len(text) for text in responses]


def knows_even(prompts, responses):
    return [(text == "yes") == (prompt.category == "even") for prompt, text in zip(prompts, responses, strict=True)]


def make_pool():
    functions = {"long": long, "short": short, "knows_even": knows_even}
    return RewardPool(
        [Arm(name, lambda name=name, f=f: FunctionRM(f, name)) for name, f in functions.items()], max_resident=3
    )


def given(charges, step=0, iteration=0):
    return Batch(iteration, step, PROMPTS), REPLIES, charges


def test_accuracy_gap_is_plus_one_for_right_over_wrong():
    right, wrong, neither = Pair(0, 0, 1, 1, 0), Pair(0, 1, 0, 1, 0), Pair(0, 1, 2, 1, 0)
    charges = [Charge(0, (0,), pairs, True) for pairs in ((right,), (wrong,), (neither,), (right, neither), ())]
    values = AccuracyGap(IS_RIGHT).measure(*given(charges))
    np.testing.assert_allclose(values[:4], [1.0, 0.0, 0.5, 0.75])
    assert np.isnan(values[4])


class Replies:
    """Answers every probe prompt with the same three texts."""

    def __init__(self):
        self.calls = 0

    def generate(self, prompts, *, num_responses, **rest):
        self.calls += 1
        assert num_responses == 3
        return [REPLIES[0] for _ in prompts]


def make_probe(pool, generator, data=None, said=lambda prompt, text: text, **changes):
    section = ProbeSignal(**{"labels": "gold", "warm_start": False, "num_responses": 3, "refresh": 0} | changes)
    data = data or ProbeData({"even": PROMPTS[::2], "odd": PROMPTS[1::2]})
    return Probe(section, GenerationConfig(max_new_tokens=4), pool, generator, data, IS_RIGHT, said=said, seed=0)


def contexts(prompts):
    return np.array([[1.0, float(prompt.category == "even")] for prompt in prompts])


CHARGES = [Charge(arm, prompts, (), True) for arm, prompts in ((2, (0, 2)), (2, (1,)), (2, (0, 1, 3)), (0, (0,)))]


def test_a_probe_is_the_pair_accuracy_in_the_categories_chosen_for(tmp_path):
    pool, generator = make_pool(), Replies()
    probe = make_probe(pool, generator)
    probe.prepare(0, UniformRandom(3), contexts)
    # "yes" is right; against "no" (shorter) and "maybe not" (longer), the longer wins one of two
    np.testing.assert_allclose(probe.measure(*given(CHARGES)), [1.0, 0.0, 1 / 3, 0.5])
    asked = pool.num_scored()
    assert asked == {"long": 6, "short": 0, "knows_even": 12}, "asked only for what was chosen"
    probe.prepare(5, UniformRandom(3), contexts)
    probe.measure(*given(CHARGES, step=1))
    assert (pool.num_scored(), generator.calls) == (asked, 2), "measured once"
    save_state(tmp_path / "probe", probe.state_dict())
    again = make_probe(pool, generator)
    again.load_state_dict(load_state(tmp_path / "probe"))
    again.prepare(5, UniformRandom(3), contexts)
    np.testing.assert_array_equal(again.measure(*given(CHARGES)), probe.measure(*given(CHARGES)))
    assert (pool.num_scored(), generator.calls) == (asked, 2)


class NewReplies(Replies):
    """Two texts that come again at every refresh, and a new one."""

    def generate(self, prompts, **rest):
        self.calls += 1
        return [[*REPLIES[0][:2], Response((1,), f"maybe {self.calls}", (), True)] for _ in prompts]


def test_a_refresh_measures_chosen_reward_models_again_and_scores_only_new_answers():
    pool, generator = make_pool(), NewReplies()
    probe = make_probe(pool, generator, refresh=2)
    calls = []
    for iteration in range(5):
        probe.prepare(iteration, UniformRandom(3), contexts)
        probe.measure(*given(CHARGES))
        calls.append(generator.calls)
    assert calls == [2, 2, 4, 4, 6]
    assert pool.num_scored() == {"long": 2 * (3 + 1 + 1), "short": 0, "knows_even": 4 * (3 + 1 + 1)}


def test_a_warm_start_teaches_every_arm_what_it_is_worth():
    selector = LinUCB(3, 2, alpha=0.1, ridge=0.01)
    probe = make_probe(make_pool(), Replies(), warm_start=True)
    probe.prepare(0, selector, contexts)
    means, _ = selector.estimates(np.array([[1.0, 1.0], [1.0, 0.0]]))
    np.testing.assert_allclose(means, [[0.5, 0.5, 1.0], [0.5, 0.5, 0.0]], atol=0.02)
    assert selector.pulls_K.tolist() == [4, 4, 4]


@pytest.mark.parametrize("labels", ["gold", "consensus"])
@pytest.mark.parametrize("max_failures", [1, 2])
def test_a_reward_model_that_was_away_is_measured_and_taught_once_it_is_back(labels, max_failures, tmp_path):
    away = [True]

    def flaky(prompts, responses):
        if away[0]:
            raise ConnectionError("no answer")
        return knows_even(prompts, responses)

    arms = [Arm("long", lambda: FunctionRM(long, "long")), Arm("flaky", lambda: FunctionRM(flaky, "flaky"))]
    quarantine = Quarantine(2, max_failures=max_failures, recovery_batches=1)
    pool = RewardPool(arms, max_resident=2, quarantine=quarantine)
    probe = make_probe(pool, Replies(), warm_start=True, labels=labels)
    selector = LinUCB(2, 2, alpha=0.1, ridge=0.01)
    probe.prepare(0, selector, contexts)
    assert selector.pulls_K.tolist() == [4, 0]
    charges = [Charge(1, (0,), (), True)]
    assert np.isnan(probe.measure(*given(charges))).all()
    away[0] = False
    save_state(tmp_path / "probe", probe.state_dict())
    probe = make_probe(pool, Replies(), warm_start=True, labels=labels)
    probe.load_state_dict(load_state(tmp_path / "probe"))
    for _ in range(3):
        quarantine.next_batch()
        probe.prepare(0, selector, contexts)
    assert selector.pulls_K.tolist() == [4, 4]
    assert probe.measure(*given(charges)) > 0.4


@pytest.mark.parametrize("labels", ["gold", "consensus"])
def test_a_reward_model_that_abstains_on_every_response_scores_them_once(labels):
    asked = []

    def silent(prompts, responses):
        asked.extend(responses)
        return [None] * len(responses)

    arms = [Arm("long", lambda: FunctionRM(long, "long")), Arm("silent", lambda: FunctionRM(silent, "silent"))]
    probe = make_probe(RewardPool(arms, max_resident=2), Replies(), warm_start=True, labels=labels)
    selector = LinUCB(2, 2, alpha=0.1, ridge=0.01)
    for _ in range(3):
        probe.prepare(0, selector, contexts)
        assert np.isnan(probe.measure(*given([Charge(1, (0, 1), (), True)]))).all()
    assert len(asked) == 4 * 3
    assert selector.pulls_K.tolist() == [4, 0]
    assert "probe: silent scored both responses of no pair; fix or remove it" in probe.findings().problems()


def consensus_probe(functions, **changes):
    arms = [Arm(name, lambda name=name, f=f: FunctionRM(f, name)) for name, f in functions.items()]
    pool = RewardPool(arms, max_resident=len(arms))
    probe = make_probe(pool, Replies(), labels="consensus", **changes)
    probe.prepare(0, UniformRandom(len(arms)), contexts)
    return probe, pool


def accuracies(probe, num_arms, prompts=((0,), (1,))):
    return probe.measure(*given([Charge(arm, rows, (), True) for rows in prompts for arm in range(num_arms)]))


def test_consensus_is_the_order_of_the_scaled_scores_without_the_effect_of_length():
    """Lengths 3, 2, 9: "long" and "short" are nothing but length, so what "knows_even" says decides.

    It scores "no" and "maybe not" alike, so it has no opinion on that pair, and is right in the two others.
    """
    probe, pool = consensus_probe({"long": long, "short": short, "knows_even": knows_even})
    np.testing.assert_allclose(accuracies(probe, 3), [2 / 3, 1 / 3, 1, 1 / 3, 2 / 3, 1])
    assert pool.num_scored() == {"long": 12, "short": 12, "knows_even": 12}, "all categories at once"


def test_a_response_that_answers_nothing_is_worse_than_all_others_whatever_reward_models_say():
    """All three prefer "maybe not", which is longest; the policy says nothing else twice."""
    functions = {"long": long, "longer": lambda prompts, responses: [2.0 * len(text) for text in responses]}
    assert accuracies(consensus_probe(functions)[0], 2).tolist() == [1.0] * 4
    said = {"yes": "yes", "no": "no", "maybe not": None}
    probe, _ = consensus_probe(functions, said=lambda prompt, text: said[text])
    assert accuracies(probe, 2).tolist() == pytest.approx([1 / 3] * 4)
    unread, _ = consensus_probe(functions, said=lambda prompt, text: None)
    assert np.isnan(accuracies(unread, 2)).all(), "nothing to compare"
    assert "all equal or all right" in " ".join(unread.findings().problems())


def test_what_the_policy_says_in_other_words_counts_together():
    """Of four responses two say 7: together they outweigh one that came as often as each of them."""
    values = answer_counts({"7": 1, "it is 7": 2, "8": 2, "?": 1}, {"7": "7", "it is 7": "7", "8": "8", "?": None})
    assert values == {"7": 3, "it is 7": 3, "8": 2, "?": 0}
    assert answer_counts({"?": 2, "!": 1}, {"?": None, "!": None}) == {}


def test_ties_of_a_consensus_are_no_opinion_unless_there_is_nothing_else():
    gaps = [np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0]), np.array([-1.0, 0.0])]
    assert [row.tolist() for row in untied(gaps)] == [[1.0], [], [-1.0]]
    constant = [np.zeros(2), np.zeros(1)]
    assert [row.tolist() for row in untied(constant)] == [[0.0, 0.0], [0.0]]


def literal_orders(answers):
    """`consensus_orders` for reward models that score everything and agree with each other, written as loops."""
    orders = []
    for one in answers:
        total = 2 * (one.counts_N - one.counts_N.mean()) / (one.counts_N.std() + 0.3)
        for arm in range(len(one.scores_KN)):
            centered = [(other, other.scores_KN[arm] - other.scores_KN[arm].mean()) for other in answers]
            unit = np.median(np.abs(np.concatenate([values for _, values in centered])))
            here = np.concatenate([values for other, values in centered if other.category == one.category])
            everywhere = np.concatenate([values for _, values in centered])
            weight = np.sqrt(np.mean(here**2)) / np.sqrt(np.mean(everywhere**2))
            lengths = [o.lengths_N - o.lengths_N.mean() for o in answers if o.category == one.category]
            length = np.concatenate(lengths)
            slope = (here @ length) / (length @ length * (1 + 2 / len(length)))
            own = one.scores_KN[arm] - one.scores_KN[arm].mean()
            total = total + weight * (own - slope * (one.lengths_N - one.lengths_N.mean())) / unit
        orders.append(total)
    return orders


def simulated_answers(num_prompts=24, seed=0):
    """Answers to two kinds of prompts; of three reward models the second knows the one kind, the third the other."""
    rng = np.random.default_rng(seed)
    answers = []
    for row in range(num_prompts):
        truth, lengths, category = rng.normal(size=5), rng.integers(1, 9, 5).astype(float), "ab"[row % 2]
        scales = {"a": (1, 4, 0.5), "b": (1, 0.5, 4)}[category]
        scores = np.stack([scale * (truth + 0.4 * rng.normal(size=5)) for scale in scales])
        answers.append(Answers(category, scores, rng.integers(1, 4, 5).astype(float), lengths))
    return answers


def test_the_consensus_of_many_prompts_is_as_written():
    answers = simulated_answers()
    for fast, slow in zip(consensus_orders(answers), literal_orders(answers), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-9)


@pytest.mark.parametrize("kind", ["negative", "long", "short", "unscored", "constant"])
def test_a_reward_model_that_adds_nothing_changes_hardly_any_order(kind):
    """The negative of an expert, a strong preference for length, no opinion, or no spread."""
    answers = simulated_answers()
    extra = {
        "negative": lambda one: -one.scores_KN[1],
        "long": lambda one: 100 * one.lengths_N,
        "short": lambda one: -100 * one.lengths_N,
        "unscored": lambda one: np.full(5, np.nan),
        "constant": lambda one: np.full(5, 0.1),
    }[kind]
    more = [replace(one, scores_KN=np.vstack([one.scores_KN, extra(one)])) for one in answers]
    pairs = np.triu_indices(5, 1)
    before, after = (
        np.array([np.sign(order[pairs[0]] - order[pairs[1]]) for order in consensus_orders(rows)])
        for rows in (answers, more)
    )
    assert np.mean(before == after) > 0.97


@pytest.mark.parametrize("factor", [100.0, 1e-9, 3.7, 1e200])
@pytest.mark.parametrize("name", ["long", "short", "knows_even"])
def test_the_unit_of_a_reward_model_does_not_change_the_consensus(name, factor):
    functions = {"long": long, "short": short, "knows_even": knows_even}
    before = accuracies(consensus_probe(functions)[0], 3)
    unscaled = functions[name]
    functions[name] = lambda prompts, responses: [factor * score for score in unscaled(prompts, responses)]
    np.testing.assert_array_equal(accuracies(consensus_probe(functions)[0], 3), before)


@pytest.mark.parametrize("opinion", [None, 0.1, -1e6])
def test_a_reward_model_without_an_opinion_or_a_spread_takes_nothing_from_the_others(opinion):
    functions = {"long": long, "knows_even": knows_even}
    before = accuracies(consensus_probe(functions)[0], 2)
    more = functions | {"extra": lambda prompts, responses: [opinion] * len(responses)}
    after = accuracies(consensus_probe(more)[0], 3)
    np.testing.assert_array_equal(after.reshape(2, 3)[:, :2].ravel(), before)
    assert np.isnan(after[2]) if opinion is None else after[2] == 0.5, "all ties"


def test_a_reward_model_that_contradicts_all_others_has_no_say():
    """Three noisy ones agree, a fourth says the opposite of all; of two exact opposites neither has a say."""
    rng = np.random.default_rng(0)
    truth = [rng.normal(size=4) for _ in range(12)]
    noisy = [np.stack([*(t + 0.3 * rng.normal(size=4) for _ in range(3)), -t]) for t in truth]
    counts = [np.ones(4)] * 12
    spreads_K = voting_spreads(noisy, counts)
    assert (spreads_K > 0).tolist() == [True, True, True, False]
    np.testing.assert_array_equal(spreads_K[:3], voting_spreads([row[:3] for row in noisy], counts))
    opposites = [np.stack([t, -t]) for t in truth]
    assert voting_spreads(opposites, counts).tolist() == [0.0, 0.0]
    right = [np.array([5.0, 1.0, 1.0, 1.0])] * 12  # the policy's own consistency decides between them
    leading = [np.stack([first, -first]) for first in ([4.0, 3.0, 2.0, 1.0] + 0.1 * t for t in truth)]
    assert (voting_spreads(leading, right) > 0).tolist() == [True, False]


def test_a_reward_model_without_an_opinion_in_one_category_is_taught_in_the_other():
    def only_even(prompts, responses):
        rows = zip(prompts, responses, strict=True)
        return [len(text) if prompt.category == "even" else None for prompt, text in rows]

    arms = [Arm("long", lambda: FunctionRM(long, "long")), Arm("only", lambda: FunctionRM(only_even, "only"))]
    pool, selector = RewardPool(arms, max_resident=2), LinUCB(2, 2, alpha=0.1, ridge=0.01)
    probe = make_probe(pool, Replies(), labels="consensus", warm_start=True)
    probe.prepare(0, selector, contexts)
    assert selector.pulls_K.tolist() == [4, 2]
    np.testing.assert_array_equal(accuracies(probe, 2), [1.0, 1.0, 1.0, np.nan])
    assert pool.num_scored() == {"long": 12, "only": 12}


def test_consensus_values_by_hand():
    """Deviations -1, 0, 1 in unit 0.5 and 4, -2, -2 in unit 2; counts 5, 2, 2 with deviation sqrt(2)."""
    scores = np.array([[1.0, 2.0, 3.0], [9.0, 3.0, 3.0], [np.nan, np.nan, np.nan], [7.0, 7.0, 7.0]])
    values = consensus(scores, np.array([0.5, 2.0, 0.0, 0.0]), np.array([5.0, 2.0, 2.0]))
    own = 2 * np.array([2.0, -1.0, -1.0]) / (np.sqrt(2) + 0.3)
    np.testing.assert_allclose(values, np.array([-2 + 2, 0 - 1, 2 - 1]) + own)
    missing = consensus(np.array([[1.0, np.nan, 3.0]]), np.array([1.0]), np.array([1.0, 1.0, 1.0]))
    np.testing.assert_allclose(missing, [-1.0, 0.0, 1.0])


def test_what_the_policy_says_most_often_is_one_more_voter():
    """Without any reward model that has a spread, the order is that of the counts: "no" 4, "yes" 2, "maybe not" 1."""

    class Often:
        def generate(self, prompts, **rest):
            texts = ["no"] * 4 + ["yes"] * 2 + ["maybe not"]
            return [[Response((1,), text, (), True) for text in texts] for _ in prompts]

    def as_often(prompts, responses):
        return [{"no": 3.0, "yes": 2.0, "maybe not": 1.0}[text] for text in responses]

    arms = [Arm("constant", lambda: FunctionRM(lambda prompts, responses: [0.3] * len(responses), "constant"))]
    probe = make_probe(RewardPool(arms), Often(), labels="consensus")
    probe.prepare(0, UniformRandom(1), contexts)
    probe.measure(*given([Charge(0, (0,), (), True)]))
    state = probe.state_dict()
    assert [row[4] for row in state["items"]["even"]] == [[1, 4, 2]] * 2, "counts of 'maybe not', 'no', 'yes'"
    order = consensus(np.full((1, 3), 0.3), np.zeros(1), np.array([1.0, 4.0, 2.0]))
    assert order.argsort().tolist() == [0, 2, 1]
    assert consensus_gaps(np.array([1.0, 3.0, 2.0]), order).min() > 0


def test_consensus_is_the_same_after_a_checkpoint(tmp_path):
    functions = {"long": long, "short": short, "knows_even": knows_even}
    probe, pool = consensus_probe(functions)
    expected = accuracies(probe, 3)
    save_state(tmp_path / "probe", probe.state_dict())
    again = make_probe(pool, Replies(), labels="consensus")
    again.load_state_dict(load_state(tmp_path / "probe"))
    asked = pool.num_scored()
    np.testing.assert_array_equal(accuracies(again, 3), expected)
    assert again.findings() == probe.findings()
    assert pool.num_scored() == asked


def labeled(number, category, better, worse):
    prompt = Prompt(f"pair {number}", ({"role": "user", "content": "?"},), category)
    return LabeledCandidates(prompt, (better,), (worse,))


PAIRS = {
    "even": [labeled(0, "even", "yes", "no"), labeled(1, "even", "yes", "never")],
    "odd": [labeled(2, "odd", "no", "yes"), labeled(3, "odd", "no", "maybe")],
}


def test_labeled_pairs_are_scored_once_and_need_no_answer_of_the_policy(tmp_path):
    """On even pairs "knows_even" is right and "short" half of the time, on odd ones both are."""
    pool, generator = make_pool(), Replies()
    probe = make_probe(pool, generator, ProbeData(pairs=PAIRS), labels="pairs", pairs="x", warm_start=True, refresh=1)
    selector = LinUCB(3, 2, alpha=0.1, ridge=0.01)
    for iteration in range(3):
        probe.prepare(iteration, selector, contexts)
        np.testing.assert_allclose(accuracies(probe, 3), [0.5, 0.5, 1.0, 0.0, 1.0, 0.75])
    assert (generator.calls, pool.num_scored()) == (0, {"long": 8, "short": 8, "knows_even": 8})
    assert probe.findings().as_record()["sources"] == {"even": "pairs", "odd": "pairs"}
    save_state(tmp_path / "probe", probe.state_dict())
    again = make_probe(pool, generator, ProbeData(pairs=PAIRS), labels="pairs", pairs="x")
    again.load_state_dict(load_state(tmp_path / "probe"))
    assert again.findings() == probe.findings()
    other = make_probe(pool, generator, ProbeData(pairs={"even": PAIRS["even"]}), labels="pairs", pairs="x")
    with pytest.raises(ValueError, match=r"signal.pairs holds other pairs than when the run was started; restore"):
        other.load_state_dict(load_state(tmp_path / "probe"))


def test_gold_answers_pairs_and_a_consensus_are_used_together(tmp_path):
    """A category with gold answers and pairs, one with pairs alone, one with both kinds of prompts."""
    unlabeled = [replace(prompt, id=f"no answer {prompt.id}", answer=None) for prompt in PROMPTS]
    prompts = {"even": PROMPTS[::2], "other": [replace(one, category="other") for one in [*PROMPTS[1::2], *unlabeled]]}
    data, pool, generator = ProbeData(prompts, PAIRS), make_pool(), NewReplies()
    probe = make_probe(pool, generator, data, labels="auto", pairs="x", warm_start=True, refresh=1)
    selector = LinUCB(3, 2, alpha=0.1, ridge=0.01)
    probe.prepare(0, selector, contexts)
    record = probe.findings().as_record()
    assert record["labels"] == "pairs and gold and consensus"
    assert record["sources"] == {"even": "pairs and gold", "odd": "pairs", "other": "gold and consensus"}
    assert {name: found["long"]["pairs"] for name, found in record["accuracy"].items()} == {
        "even": 2 + 2 * 2,  # two pairs; "yes" above "no" and "maybe not" for each of two prompts
        "odd": 2,
        "other": 2 * 2 + 4 * 3,
    }
    assert selector.pulls_K.tolist() == [12, 12, 12]
    asked = pool.num_scored()
    assert asked["long"] == 4 * 2 + 8 * 3
    save_state(tmp_path / "probe", probe.state_dict())
    again = make_probe(pool, generator, data, labels="auto", pairs="x", refresh=1)
    again.load_state_dict(load_state(tmp_path / "probe"))
    assert again.findings() == probe.findings()
    again.prepare(1, selector, contexts)
    np.testing.assert_allclose(accuracies(again, 3), accuracies(probe, 3))
    assert pool.num_scored()["long"] == asked["long"] + 8, "one new answer to each of eight prompts"


class Growing:
    """Answers "yes" and "no", and another one that is longer each time."""

    def __init__(self):
        self.calls = 0

    def generate(self, prompts, *, num_responses, **rest):
        self.calls += 1
        texts = ("yes", "no", "maybe " + ascii_letters[: 9 * self.calls - 9])
        return [[Response((1,), text, (), True) for text in texts] for _ in prompts]


def test_a_probe_names_the_chosen_reward_model_that_made_answers_longer(tmp_path):
    prompts = [replace(PROMPTS[0], id=str(number)) for number in range(8)]
    batch = Batch(0, 0, prompts)
    heard = []

    def make():
        section = ProbeSignal(labels="gold", num_responses=3)
        data, sampling = ProbeData({"even": prompts}), GenerationConfig(max_new_tokens=4)
        return Probe(section, sampling, make_pool(), Growing(), data, IS_RIGHT, report=heard.append, seed=0)

    probe, selector = make(), LinUCB(3, 2, alpha=0.1, ridge=0.01)
    for iteration in range(3):
        probe.prepare(iteration, selector, contexts)
        probe.measure(batch, [], [Charge(0, (0,), (), True), Charge(2, (1,), (), True)])
    first, second = heard
    assert (len(first.found), first.signs) == (3, ())
    assert second.found == ()
    (sign,) = second.signs
    assert (sign.what, sign.category, sign.reward_models) == ("length", "even", ("long",))
    assert list(second.lines()) == [str(sign)]
    assert "over-optimised" in str(sign)
    record = probe.findings().as_record()
    assert record["accuracy"]["even"]["knows_even"]["pairs"] == 16, "of the first test"
    assert [one["reward_models"] for one in record["over_optimised"]] == [["long"]]
    save_state(tmp_path / "probe", probe.state_dict())
    again = make()
    again.load_state_dict(load_state(tmp_path / "probe"))
    assert again.findings() == probe.findings()
    again.prepare(3, selector, contexts)
    assert len(heard) == 2, "each sign is reported once"


def test_the_state_of_another_version_is_refused_with_a_sentence():
    old = {"iteration": 0, "items": {}, "known": {}, "untaught": []}
    with pytest.raises(StateVersionError, match="version 1 and this laser reads version 5; use the laser that wrote"):
        make_probe(make_pool(), Replies()).load_state_dict(old)


def test_what_the_probe_found_is_reported_once_with_its_intervals():
    heard = []
    section = ProbeSignal(labels="gold", num_responses=3)
    data = ProbeData({"even": PROMPTS[::2], "odd": PROMPTS[1::2]})
    sampling = GenerationConfig(max_new_tokens=4)
    probe = Probe(section, sampling, make_pool(), Replies(), data, IS_RIGHT, report=heard.append, seed=0)
    for _ in range(2):
        probe.prepare(0, LinUCB(3, 2, alpha=0.1, ridge=0.01), contexts)
    (findings,) = heard
    record = findings.as_record()
    assert record["labels"] == "gold"
    low, high = wilson_interval(4, 4)
    assert record["accuracy"]["even"]["knows_even"] == {"accuracy": 1.0, "low": low, "high": high, "pairs": 4}
    assert record["accuracy"]["odd"]["long"]["accuracy"] == 0.5
    assert list(findings.lines()) == [
        "probe [even] accuracy by gold answers: long 0.50 [0.15, 0.85] of 4 pairs; short 0.50 [0.15, 0.85] of 4 pairs; "
        "knows_even 1.00 [0.51, 1.00] of 4 pairs",
        "probe [odd] accuracy by gold answers: long 0.50 [0.15, 0.85] of 4 pairs; short 0.50 [0.15, 0.85] of 4 pairs; "
        "knows_even 0.00 [0.00, 0.49] of 4 pairs",
    ]


def test_pool_agreement_is_the_share_of_others_that_order_alike():
    signal = PoolAgreement(make_pool(), every=2)
    longer_first = (Pair(0, 2, 0, 9, 3), Pair(0, 0, 1, 3, 2))  # as "long" orders them
    values = signal.measure(*given([Charge(0, (0,), longer_first, True), Charge(0, (0,), (), True)]))
    # "short" disagrees twice; "knows_even" prefers "yes": against the first pair, for the second
    assert values[0] == pytest.approx(1 / 4)
    assert np.isnan(values[1])
    assert np.isnan(signal.measure(*given([Charge(0, (0,), longer_first, True)], step=1)))[0]


def test_dev_gain_credits_the_change_since_the_last_look():
    readings = iter([0.5, 0.55, 0.3])
    signal = DevGain(lambda: next(readings), every=1, span=0.1)
    charge = [Charge(0, (0,), (), True)]
    values = [signal.measure(*given(charge))[0] for _ in range(3)]
    assert np.isnan(values[0])
    np.testing.assert_allclose(values[1:], [0.75, 0.0])


def test_mixing_leaves_the_loss_where_there_is_no_signal():
    assert mixed(np.array([0.2, 0.4]), np.array([1.0, np.nan]), 0.75).tolist() == [0.8, 0.4]
    nothing = NoSignal().measure(*given([Charge(0, (0,), (), True)] * 2))
    assert mixed(np.array([0.2, 0.4]), nothing, 0.0).tolist() == [0.2, 0.4]


def test_a_chosen_model_answers_for_the_pairs_trained_on_and_an_ensembles_member_for_its_own():
    candidates = Candidates((((0, 1),), ((0, 1),)), 0, 0, 0)
    scores = [np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([[3.0, 1.0], [1.0, 1.0]])]
    trained = [Pair(0, 1, 0, 2, 1), Pair(1, 0, 1, 3, 1)]
    one_hot = Selection(0, np.array([[1.0, 0.0], [1.0, 0.0]]), np.zeros((2, 2)), np.zeros((2, 2)), ((0, 0), (1, 0)))
    charges = make_charges(one_hot, candidates, scores, trained)
    assert [(c.arm, c.prompts, c.pairs) for c in charges] == [(0, (0,), (trained[0],)), (0, (1,), (trained[1],))]
    shared = Selection(0, np.array([[0.5, 0.5]]), np.zeros((1, 2)), np.zeros((1, 2)), ((0, 0), (0, 1)))
    first, second = make_charges(shared, candidates, scores, trained)
    assert [(p.prompt, p.chosen) for p in first.pairs] == [(0, 1), (1, 0)]
    assert [(p.prompt, p.chosen) for p in second.pairs] == [(0, 0)]  # a tie makes no pair
    assert [first.trained, second.trained] == [False, False]


def test_agreement_keeps_the_pairs_that_most_models_order_alike():
    candidates = Candidates((((0, 1), (0, 2), (1, 2)),), 0, 0, 0)
    scores = [np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 0.0], [3.0, 2.0, 1.0]])]
    oriented = orient_by_agreement(candidates, scores, np.full((1, 3), 1 / 3), 2)
    assert [(pair.chosen, pair.rejected) for pair in oriented.pairs] == [(0, 2), (1, 2)]  # unanimous; 0 > 1 is 2 to 1
    one = orient_by_agreement(candidates, [np.array([[1.0, 1.0, np.nan]])], np.ones((1, 1)), 9)
    assert (one.pairs, one.num_ties, one.num_unscored) == ((), 1, 2)


def test_z_scores_compare_an_arm_with_itself():
    feedback = ZScoreFeedback(window=3)
    arms = np.array([0, 1])
    for losses in ([1.0, 10.0], [2.0, 20.0], [3.0, 30.0]):
        feedback.scale(np.array(losses), arms)
    assert feedback.scale(np.array([2.0, 20.0]), arms).tolist() == [0.5, 0.5]
    better = feedback.scale(np.array([1.0, 10.0]), arms)
    assert (better > 0.5).all()
    assert feedback.scale(np.array([np.nan]), arms[:1]).tolist() == [0.0]
    again = ZScoreFeedback(window=3)
    again.load_state_dict(feedback.state_dict())
    loss = np.array([1.7, 12.0])
    np.testing.assert_array_equal(again.scale(loss, arms), feedback.scale(loss, arms))
    with pytest.raises(ValueError, match="window"):
        ZScoreFeedback(window=1)

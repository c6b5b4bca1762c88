"""What a report concludes: worked numbers, identities, and no more certainty than there is."""

import numpy as np
import pytest
from scipy import stats

from laser.analysis.records import read_run
from laser.analysis.report.words import fall_in_words, lead, p_value
from laser.analysis.summary import summarize
from laser.analysis.usefulness import (
    MIXED,
    by_category,
    charged_rewards,
    elapsed,
    pooled,
    seconds_until,
    spells,
    total_agreement,
    unpaired_change,
)
from laser.core.statistics import paired_change, wilson_interval
from written import NAMES, evaluation, step, typical, write_run


def test_the_interval_of_a_change_is_newcombes():
    """Newcombe (1998), Table II (a): 56/70 against 48/80 is 0.2000 with 0.0524 to 0.3339 by method 10."""
    gain, (low, high) = unpaired_change(evaluation(0, 48, 80), evaluation(1, 56, 70))
    assert (gain, low, high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    back, (low2, high2) = unpaired_change(evaluation(0, 56, 70), evaluation(1, 48, 80))
    assert (back, low2, high2) == pytest.approx((-gain, -high, -low))


def test_a_batch_that_shares_a_choice_counts_once(tmp_path):
    """12 batches of 4 prompts, half of them for each reward model: 6 of 12, not 24 of 48."""
    (category,) = by_category(read_run(write_run(tmp_path, typical(12))))
    assert (category.num_prompts, category.num_choices) == (48, pytest.approx(12))
    assert category.choices["good"].prompts == pytest.approx(24)
    assert category.choices["good"].interval == pytest.approx(wilson_interval(6, 12))
    per_prompt = step(0)
    per_prompt["selection"] = {
        "weights": [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]],
        "categories": [{"maths": 1}, {"maths": 1}, {"law": 1}],
        "charged": ["good", "bad", "good"],
    }
    per_prompt["bandit_rewards"] = [0.1, None, 0.3]
    law, maths = by_category(read_run(write_run(tmp_path, [per_prompt])))
    assert (maths.num_choices, law.num_choices) == (pytest.approx(2), pytest.approx(1))
    assert (law.rewards["good"].mean, maths.rewards["good"].num) == (0.3, 1)
    assert "bad" not in maths.rewards


def test_rewards_find_their_rows_in_ensembles_too():
    ensemble = step(0)
    ensemble["selection"] = {
        "weights": [[0.5, 0.5], [0.5, 0.5]],
        "categories": [{"maths": 1}, {"law": 1}],
        "charged": ["good", "bad", "good", "bad"],
    }
    ensemble["bandit_rewards"] = [0.1, 0.2, 0.3, 0.4]
    assert charged_rewards(ensemble) == [
        ("maths", "good", 0.1),
        ("maths", "bad", 0.2),
        ("law", "good", 0.3),
        ("law", "bad", 0.4),
    ]
    mixed = step(0, reward=0.7)
    mixed["selection"]["categories"] = [{"maths": 2, "law": 2}]
    assert charged_rewards(mixed) == [(MIXED, "good", 0.7)]


def test_the_verdict_is_kruskal_wallis_and_corrected_for_the_categories(tmp_path):
    rng = np.random.default_rng(0)
    rewards = {"maths": (0.2, 0.6), "law": (0.45, 0.5)}
    steps = [
        step(number, chosen=number % 2, category=category, reward=float(rng.uniform(0, 0.4) + low[number % 2]))
        for category, low in rewards.items()
        for number in range(24)
    ]
    law, maths = by_category(read_run(write_run(tmp_path, steps)))
    raw = {}
    for category in rewards:
        groups = [
            [one["bandit_rewards"][0] for one in steps if one["category"] == category and one["scored"][name]]
            for name in ("good", "bad")
        ]
        raw[category] = stats.kruskal(*groups).pvalue
    assert maths.p == pytest.approx(2 * raw["maths"])
    assert maths.distinguishable
    assert maths.best_rewarded == "bad"
    assert law.p == pytest.approx(max(raw["law"], 2 * raw["maths"]))
    assert not law.distinguishable


def test_pure_chance_is_called_a_difference_about_as_often_as_it_should_be(tmp_path):
    rng = np.random.default_rng(1)
    told = 0
    for _ in range(80):
        steps = [step(number, chosen=number % 2, reward=float(rng.uniform())) for number in range(16)]
        (category,) = by_category(read_run(write_run(tmp_path, steps)))
        told += category.distinguishable
    assert told <= stats.binom.ppf(0.999, 80, 0.05)


def test_too_few_or_equal_rewards_are_not_tested(tmp_path):
    (few,) = by_category(read_run(write_run(tmp_path, typical(8))))
    assert few.p is None
    equal = [step(number, chosen=number % 2, reward=0.5) for number in range(20)]
    (same,) = by_category(read_run(write_run(tmp_path, equal)))
    assert same.p is None
    assert not same.distinguishable


def test_distributions_of_batches_are_mixed_by_their_counts():
    low = {"count": 30, "deciles": np.linspace(0, 1, 11).tolist()}
    high = {"count": 10, "deciles": np.linspace(2, 3, 11).tolist()}
    both = pooled([low, high])
    assert both.num == 40
    assert both.quantile(0.375) == pytest.approx(0.5)
    assert both.quantile(0.875) == pytest.approx(2.5)
    alone = pooled([low, {"count": 5, "deciles": [None] * 11}])
    assert alone.quantile(0.5) == pytest.approx(0.5)
    assert pooled([]) is None
    assert pooled([{"count": 3, "deciles": [7.0] * 11}]).quantile(0.5) == 7.0


def test_a_large_sample_gets_its_own_quantiles_back():
    values = np.random.default_rng(2).normal(size=(50, 400))
    records = [{"count": 400, "deciles": np.quantile(row, np.linspace(0, 1, 11)).tolist()} for row in values]
    mixed = pooled(records)
    for share in (0.1, 0.3, 0.5, 0.9):
        assert mixed.quantile(share) == pytest.approx(np.quantile(values, share), abs=0.05)


def test_agreement_adds_up_over_batches(tmp_path):
    couple = {"first": "good", "second": "bad"}
    steps = [step(n, agreement=[{**couple, "alike": n, "judged": 4}]) for n in range(3)]
    steps.append(step(3, agreement=[{**couple, "alike": 0, "judged": 0}]))
    assert total_agreement(steps) == {("good", "bad"): (3, 12)}
    assert total_agreement(typical(2)) == {}


def test_quarantines_end_with_the_next_score(tmp_path):
    steps = typical(12)
    steps[2]["quarantined"] = {"bad": "timed out"}
    for one in steps[3:9]:
        one["scored"]["bad"] = 0
    steps[11]["quarantined"] = {"good": "NaN"}
    found = spells(read_run(write_run(tmp_path, steps)))
    assert [(one.name, one.reason, one.batch, one.seconds, one.back) for one in found] == [
        ("bad", "timed out", 3, 9.0, 10),
        ("good", "NaN", 12, 36.0, None),
    ]


def test_time_counts_the_batches_that_could_be_read(tmp_path):
    run = read_run(write_run(tmp_path, typical(4)))
    assert elapsed(run).tolist() == [3, 6, 9, 12]
    assert [seconds_until(run, batches) for batches in (0, 1, 4, 9)] == [0, 3, 12, 12]


def words(tmp_path, *arguments, **options):
    run = read_run(write_run(tmp_path, *arguments, **options))
    return " ".join(lead(run, by_category(run)))


def test_words_name_the_useful_one_and_how_sure_that_is(tmp_path):
    said = words(tmp_path, typical(24), [evaluation(0, 10), evaluation(24, 30)])
    assert (
        "before 25.0%, after 75.0%, change +50.0 points, 95% interval +28.5 to +65.3 (not paired, 40 prompts)" in said
    )
    assert "a gain beyond chance" in said
    assert (
        "For maths, good earned the highest bandit rewards (0.82 ± 0.01, 12 of them; the reward models differ" in said
    )
    assert "cannot distinguish a reward model that is right from one that is consistently wrong" in said
    assert (
        "Chosen most: good for maths (50% of 96 prompts, 95% interval 31% to 69%). An even share would be 50%" in said
    )
    assert "The run is not finished." in said


def test_words_say_when_nothing_can_be_concluded(tmp_path):
    said = words(tmp_path, [step(n, chosen=n % 2, reward=0.1 * (n % 5)) for n in range(20)], [evaluation(0, 20)] * 2)
    assert "not distinguishable from no change" in said
    assert "For maths, no reward model is distinguishable from the others by its bandit rewards." in said
    assert "scaled loss" not in said
    assert "there are too few bandit rewards of more than one reward model" in words(tmp_path, typical(4))
    assert "No dev metric was measured." in words(tmp_path, typical(4))
    worse = words(tmp_path, typical(4), [evaluation(0, 30), evaluation(4, 10)])
    assert "\u221250.0 points" in worse
    assert "a loss beyond chance" in worse


def test_a_change_on_the_same_prompts_is_compared_prompt_by_prompt(tmp_path):
    before = evaluation(0, 10, correct=set(range(10)))
    after = evaluation(4, 20, correct={*range(2, 10), *range(20, 32)})
    said = words(tmp_path / "paired", typical(4), [before, evaluation(2, 1), after])
    paired = paired_change(before["correct"], after["correct"])
    assert (paired.num_gained, paired.num_lost) == (12, 2)
    interval = f"95% interval {100 * paired.low:+.1f} to {100 * paired.high:+.1f} (paired, 40 prompts"
    change = f"change +25.0 points, {interval}: 12 gained, 2 lost); a gain beyond chance"
    assert f"Dev accuracy: before 25.0%, after 50.0%, {change}." in said
    separate = words(tmp_path / "not", typical(4), [evaluation(0, 10), evaluation(4, 20)])
    assert "(not paired, 40 prompts)" in separate
    summary = summarize(typical(4), [before, after], NAMES)
    assert summary.as_record()["metric_change"] == paired.as_record()
    assert summarize(typical(4), [before, evaluation(4, 20)], NAMES).metric_change is None
    assert summarize(typical(4), [before], NAMES).metric_change is None


def test_words_do_not_read_usefulness_into_a_selector_that_does_not_learn(tmp_path):
    said = words(tmp_path, typical(24), config={"selector": {"type": "random"}})
    assert "draws reward models at random, so its choices do not show which reward model is useful" in said
    assert "Chosen most" not in said
    one = words(tmp_path, [step(0, ("only",))], names=("only",))
    assert "one reward model, only; there was nothing to choose" in one


def test_words_tell_of_trouble(tmp_path):
    steps = typical(12)
    steps[3]["quarantined"] = steps[9]["quarantined"] = {"bad": "timed out"}
    for one in steps[10:]:
        one["scored"]["bad"] = 0
    write_run(tmp_path, steps)
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write("junk\n")
    run = read_run(tmp_path)
    said = " ".join(lead(run, by_category(run)))
    assert "bad was put in quarantine 2 times, last in batch 10; it has not scored since." in said
    assert "1 line of the run's records could not be read and is left out" in said


@pytest.mark.parametrize(("right", "is_said"), [(12, True), (27, False), (36, False)])
def test_a_dev_accuracy_that_training_lowered_is_over_optimised(tmp_path, right, is_said):
    checks = [evaluation(0, 30, correct=set(range(30))), evaluation(4, right, correct=set(range(right)))]
    said = words(tmp_path, typical(12), checks)
    assert ("over-optimised: training lowered the dev accuracy, and good was chosen most; read" in said) is is_said
    summary = summarize(typical(12), checks, NAMES)
    assert (fall_in_words(summary.metric_change, summary.utilization) is not None) is is_said


def test_small_p_values_are_not_zero():
    assert (p_value(0.0), p_value(0.0314)) == ("p < 0.001", "p = 0.031")

"""Win rates at equal length: what the regression must find in verdicts whose law is known, and in real ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from laser.core.statistics import mean_share
from laser.evaluation.comparison import compare
from laser.evaluation.winrates import RIDGE, control_length, fit_logistic

ALPACA = Path(__file__).parents[3] / "shared/data/alpaca_eval/gemma-2b-it"


def lengths(num=400, mean=120.0, seed=0):
    """Ours is longer on four prompts of five, as a policy trained on verbose preferences is."""
    return np.random.default_rng(seed).normal(mean, 150, num)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_judge_that_prefers_length_alone(seed):
    """With probability expit(3 tanh): raw far above one half, nothing left at equal length."""
    extra = lengths(1200, seed=seed)
    chance = expit(3 * np.tanh(extra / extra.std()))
    wins = (np.random.default_rng(seed + 10).random(len(extra)) < chance).astype(float)
    assert wins.mean() > 0.65
    controlled = control_length(wins, extra, seed=0)
    assert controlled.win_rate.value == pytest.approx(0.5, abs=0.07)
    assert controlled.win_rate.low < 0.5 < controlled.win_rate.high
    assert controlled.phi == pytest.approx(3, abs=0.8)
    assert not controlled.extrapolated


@pytest.mark.slow
def test_a_judge_that_always_takes_the_longer_one():
    """The verdicts are separable: the ridge keeps the slope finite and the boundary at equal length."""
    extra = lengths(mean=100)
    wins = (extra > 0).astype(float)
    assert wins.mean() > 0.7
    assert control_length(wins, extra, seed=0).win_rate.value == pytest.approx(0.5, abs=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5, 0.93])
def test_at_equal_length_it_is_the_raw_rate(share):
    preferences = np.random.default_rng(0).beta(10 * share, 10 * (1 - share), 50)
    controlled = control_length(preferences, np.zeros(len(preferences)), seed=0)
    assert controlled.win_rate.value == pytest.approx(preferences.mean(), abs=1e-4)


@pytest.mark.slow
def test_quality_that_has_nothing_to_do_with_length_stays():
    rng = np.random.default_rng(1)
    extra = rng.normal(0, 150, 500)
    wins = (rng.random(500) < 0.8).astype(float)
    controlled = control_length(wins, extra, seed=0)
    assert controlled.win_rate.value == pytest.approx(wins.mean(), abs=0.02)
    assert abs(controlled.phi) < 0.5


@pytest.mark.slow
def test_swapping_the_sides_mirrors_everything():
    rng = np.random.default_rng(2)
    extra, preferences = lengths(), rng.random(400)
    ours, theirs = control_length(preferences, extra, seed=0), control_length(1 - preferences, -extra, seed=0)
    assert ours.win_rate.value == pytest.approx(1 - theirs.win_rate.value, abs=1e-4)
    assert ours.win_rate.low == pytest.approx(1 - theirs.win_rate.high, abs=1e-3)
    assert ours.phi == pytest.approx(theirs.phi, abs=1e-3)


@pytest.mark.slow
def test_where_length_was_never_equal_it_says_so():
    extra = np.abs(lengths()) + 50
    controlled = control_length(np.random.default_rng(0).random(400), extra, seed=0)
    assert controlled.extrapolated
    assert control_length(np.ones(4), np.full(4, 30.0), seed=0) is None
    assert control_length(np.ones(1), np.array([30.0]), seed=0) is None


@pytest.mark.slow
def test_difficulty_is_fitted_where_it_is_given():
    rng = np.random.default_rng(3)
    extra, gamma = lengths(1000), rng.normal(0, 1, 1000)
    chance = expit(-0.4 + 1.0 * np.tanh(extra / extra.std()) + 1.5 * gamma)
    wins = (rng.random(1000) < chance).astype(float)
    controlled = control_length(wins, extra, difficulty_N=gamma, seed=0)
    assert (controlled.theta, controlled.phi, controlled.psi) == pytest.approx((-0.4, 1.0, 1.5), abs=0.35)
    assert controlled.win_rate.value == pytest.approx(expit(-0.4 + 1.5 * gamma).mean(), abs=0.04)
    assert control_length(wins, extra, seed=0).psi is None


def test_the_fit_equals_scikit_learns():
    """Same objective: its C is the inverse of a penalty on all weights alike; soft targets become two weighted rows."""
    sklearn = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(4)
    features, targets = rng.normal(size=(80, 3)), rng.random(80)
    ours = fit_logistic(features, targets, np.full(3, 0.5))
    model = sklearn.LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10, max_iter=1000)
    doubled = np.vstack([features, features])
    model.fit(doubled, np.repeat([1, 0], 80), sample_weight=np.concatenate([targets, 1 - targets]))
    assert ours == pytest.approx(model.coef_[0], abs=1e-3)


def test_the_intercept_of_an_empty_model_is_the_log_odds():
    targets = np.array([0.9, 0.4, 0.2])
    assert fit_logistic(np.ones((3, 1)), targets, np.zeros(1))[0] == pytest.approx(logit(0.5), abs=1e-4)
    assert RIDGE > 0


@pytest.mark.slow
@pytest.mark.skipif(not ALPACA.is_dir(), reason="the verdicts of AlpacaEval are not next to the repository")
def test_on_the_published_verdicts_of_alpaca_eval():
    """gemma-2b-it against gpt4_1106_preview, GPT-4 turbo's weighted verdicts. The leaderboard of AlpacaEval 2 says
    3.402% raw, which must be met exactly, and 5.437% length-controlled, with the instruction difficulty and the gamed
    baselines that we do without: our interval must contain it."""
    rows = json.loads((ALPACA / "weighted_alpaca_eval_gpt4_turbo_annotations.json").read_text())
    preferences = np.array([row["preference"] - 1 for row in rows])
    extra = np.array([len(row["output_2"]) - len(row["output_1"]) for row in rows], dtype=float)
    assert mean_share(preferences, seed=0).value == pytest.approx(0.034019714381366457, abs=1e-9)
    controlled = control_length(preferences, extra, seed=0)
    assert controlled.win_rate.low < 0.05437 < controlled.win_rate.high
    assert controlled.win_rate.value > 0.05  # it wrote half as much as the baseline and was marked down for it
    assert controlled.phi > 0.5


def verdicts(*rows):
    return np.array(rows, dtype=float)


TEXTS = ["aa", "bbbb", "same", "d", "eee"]
BASELINE = ["a", "bb", "same", "dd", "ee"]


@pytest.mark.slow
def test_verdicts_become_counts():
    """ours, ours, identical, one order missing, contradictory: the second of each pair is shown the other way round."""
    shown = verdicts((1, 0), (0.9, 0.3), (np.nan, np.nan), (1, np.nan), (1, 1))
    compared = compare(shown, TEXTS, BASELINE, list("xxyyy"), seed=0)
    assert (compared.num_prompts, compared.num_judged, compared.num_identical) == (5, 4, 1)
    assert (compared.wins, compared.ties, compared.losses) == (2, 2, 0)
    assert compared.win_rate.value == pytest.approx((1 + 0.8 + 0.5 + 0.5) / 4)
    assert compared.by_category["x"].value == pytest.approx(0.9)
    assert (compared.num_inconsistent, compared.num_one_sided) == (1, 1)
    assert compared.first_shown == pytest.approx(np.mean([1, 0, 0.9, 0.3, 1, 1]))
    assert (compared.mean_length, compared.baseline_length) == (13 / 4, 9 / 4)


def test_a_judge_that_looks_at_the_place_alone_gives_one_half():
    shown = np.tile([0.8, 0.8], (5, 1))
    compared = compare(shown, TEXTS, ["x"] * 5, list("xxxxx"), seed=0)
    assert compared.win_rate.value == pytest.approx(0.5)
    assert compared.first_shown == pytest.approx(0.8)
    assert compared.num_inconsistent == 5


def test_nothing_judged_is_nothing():
    assert compare(np.full((2, 2), np.nan), ["a", "b"], ["c", "d"], ["x", "x"], seed=0) is None


@pytest.mark.slow
def test_bootstrap_intervals_cover_the_mean():
    """95% intervals of 100 samples of 60 prompts: about 95 hold the true mean."""
    rng = np.random.default_rng(0)
    shares = [mean_share(rng.beta(2, 5, 60), seed=number) for number in range(100)]
    assert 88 <= sum(share.low <= 2 / 7 <= share.high for share in shares) <= 99

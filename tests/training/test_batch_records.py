"""What the records of whole tiny runs say about scores and about agreement between reward models."""

import numpy as np
import pytest

import laser
from laser.core.types import Pair, Response, Selection
from laser.training.records import describe_scores
from runs import make_table, steps

LAST = {"training": {"iterations": 1, "batches_per_iteration": 2}, "split": {"dev": 0}}


def test_distributions_are_quantiles_of_the_scores_and_of_the_margins():
    nan = float("nan")
    weights = np.array([[1.0, 0.0], [0.5, 0.5]])
    scores = [np.array([[1.0, 2.0, nan], [nan, nan, nan]]), np.array([[4.0, 8.0, nan], [5.0, 6.0, nan]])]
    pairs = [Pair(0, 1, 0, 2.0, 1.0), Pair(1, 1, 0, 7.0, 4.5)]
    selection = Selection(0, weights, weights, weights, ((0, 0), (1, 1)))
    row = [Response((1,), text, (logp, -1.0), True) for text, logp in (("x", -3.0), ("y", -0.5), ("z", -9.0))]
    record = describe_scores(selection, scores, pairs, [row, row], ("a", "b"))
    assert record["scores"][0]["count"] == 4
    assert record["scores"][0]["deciles"] == pytest.approx(np.quantile([1, 2, 4, 8], np.arange(11) / 10))
    assert record["scores"][1]["deciles"] == pytest.approx(np.quantile([5, 6], np.arange(11) / 10))
    assert [(one["reward_model"], one["deciles"][5]) for one in record["margins"]] == [("a", 1.0), (None, 2.5)]
    assert record["logp_margins"] == {"count": 2, "deciles": [2.5] * 11}
    empty = describe_scores(selection, scores, [], [row, row], ("a", "b"))
    assert empty["logp_margins"] is None
    assert empty["margins"] == []


@pytest.mark.slow
def test_an_ensemble_is_compared_and_a_single_choice_is_not(tmp_path):
    table = {**make_table(tmp_path, "vowels", "short", selector={"type": "ensemble"}, **LAST), "seed": 5}
    laser.train(table, tmp_path / "all")
    for record in steps(tmp_path / "all"):
        named = {(one["first"], one["second"]): one for one in record["agreement"]}
        assert ("likelihood", "vowels") in named  # "short" may tie on every pair
        assert all(0 <= one["alike"] <= one["judged"] for one in named.values())
        assert len(record["distributions"]["scores"]) == 3
        assert [one["reward_model"] for one in record["distributions"]["margins"]] == [None]
        widest = record["disagreement"]
        assert (widest is None) == all(one["alike"] == one["judged"] for one in named.values())
        if widest is not None:
            (a1, a2), (b1, b2) = widest["scores"].values()
            assert (a1 - a2) * (b1 - b2) < 0
            assert widest["strength"] > 0
    assert steps(tmp_path / "all")[0]["disagreement"] is not None
    table["selector"] = {"type": "fixed", "arm": "short"}
    laser.train(table, tmp_path / "one")
    for record in steps(tmp_path / "one"):
        assert record["agreement"] == []
        assert record["disagreement"] is None
        assert [one["reward_model"] for one in record["distributions"]["scores"]] == ["short"]


@pytest.mark.slow
def test_signals_that_ask_everybody_are_compared(tmp_path):
    signal = {"type": "agreement", "every": 2}
    laser.train(make_table(tmp_path, "vowels", "short", signal=signal, **LAST), tmp_path / "run")
    first, second = steps(tmp_path / "run")
    assert first["agreement"]
    assert second["agreement"] == []

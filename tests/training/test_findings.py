"""What a user reads where a probe could not measure."""

import pytest

from laser.training.findings import Finding, Findings

ALIKE = "no reward model distinguishes the responses of any pair, so there is nothing to learn from; fix the reward mo"


def found(name, *, pairs, tied, labels="consensus"):
    return Finding("a", name, tied / 2, pairs, (labels,), tied)


@pytest.mark.parametrize("pairs", [0, 6])
def test_a_pool_without_any_spread_is_said_whether_or_not_the_policy_orders_its_answers(pairs):
    """A consensus of reward models without spread orders pairs only by how often the policy gave an answer."""
    alike = tuple(found(name, pairs=pairs, tied=pairs) for name in ("one", "two"))
    (problem,) = Findings(alike, num_prompts=3).problems()
    assert ALIKE in problem
    others = tuple(found(name, pairs=6, tied=2) for name in ("three", "four", "five"))
    with_others = Findings((*alike, *others), num_prompts=3).problems()
    what = "scored the responses of every pair alike" if pairs else "scored both responses of no pair"
    assert list(with_others) == [f"probe: {name} {what}; fix or remove it" for name in ("one", "two")]


@pytest.mark.parametrize(
    ("voters", "words"), [(1, "a consensus of 1 reward model is weak"), (2, "of 2 reward models is weak")]
)
def test_a_consensus_without_a_majority_is_not_taken_for_the_truth(voters, words):
    names = ["one", "two", "three"]
    some = tuple(found(name, pairs=6, tied=2) for name in names[:voters])
    (problem,) = Findings(some, num_prompts=3).problems()
    assert words in problem
    assert not list(Findings(tuple(found(name, pairs=6, tied=2) for name in names), num_prompts=3).problems())
    gold = tuple(found(name, pairs=6, tied=2, labels="gold") for name in names[:voters])
    assert not list(Findings(gold, num_prompts=3).problems())


def test_reward_models_that_did_not_score_are_named():
    lines = list(Findings((found("one", pairs=2, tied=0, labels="gold"),), num_prompts=3, unscored=("two",)).lines())
    assert lines[1:] == ["probe: two has not scored the responses; fix or remove it"]

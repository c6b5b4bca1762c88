"""Splits of sets with original splits."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser.core.errors import DataError
from laser.data.split import split_pools
from laser.data.task import ROLES
from tiny import make_prompt


def pool(role, number, offset=0):
    return [make_prompt(f"{i + offset}", id=f"{role}{i}", category="abc"[i % 3]) for i in range(number)]


@pytest.mark.slow
@given(
    st.fixed_dictionaries({role: st.integers(0, 40) for role in ROLES}),
    st.one_of(st.none(), st.integers(0, 60)),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 3),
)
def test_pools_are_split_disjointly_repeatably_and_from_their_own_split_first(counts, train, dev, test, seed):
    pools = {role: pool(role, number, 100 * index) for index, (role, number) in enumerate(counts.items())}
    total = sum(counts.values())
    fits = dev + test + (1 if train is None else train) <= total
    if not fits:
        with pytest.raises(DataError, match=r"set split\.shrink = true"):
            split_pools(pools, train=train, dev=dev, test=test, shrink=False, seed=seed)
    parts = split_pools(pools, train=train, dev=dev, test=test, shrink=True, seed=seed)
    assert parts == split_pools(pools, train=train, dev=dev, test=test, shrink=True, seed=seed)
    ids = [prompt.id for part in (parts.train, parts.dev, parts.test) for prompt in part]
    assert len(set(ids)) == len(ids)
    if fits:
        assert (len(parts.dev), len(parts.test)) == (dev, test)
        assert train is None or len(parts.train) == train
    from_test = sum(prompt.id.startswith("test") for prompt in parts.test)
    assert from_test == min(len(parts.test), counts["test"])
    if train is not None and not fits:
        wanted = train + dev + test
        assert len(parts.train) == train * total // wanted
        assert len(parts.test) == test * total // wanted


def test_categories_keep_their_proportions_in_every_split():
    prompts = [make_prompt(f"{i}", id=str(i), category="rare" if i % 10 == 0 else "common") for i in range(1000)]
    parts = split_pools({"train": prompts}, train=700, dev=100, test=200, shrink=False, seed=0)
    for part in (parts.train, parts.dev, parts.test):
        assert Counter(prompt.category for prompt in part)["rare"] == pytest.approx(len(part) / 10, abs=1)


def test_a_question_in_train_and_test_is_for_training():
    shared, own = make_prompt("same", id="a"), make_prompt("other", id="b")
    again = replace(shared, id="c")
    parts = split_pools({"train": [shared], "test": [again, own]}, train=1, dev=0, test=1, shrink=False, seed=0)
    assert [prompt.id for prompt in parts.train] == ["a"]
    assert [prompt.id for prompt in parts.test] == ["b"]


def test_all_that_remains_leaves_the_original_test_split_alone():
    pools = {"train": pool("train", 20), "test": pool("test", 10, 100)}
    parts = split_pools(pools, train=None, dev=2, test=5, shrink=False, seed=0)
    assert len(parts.train) == 18
    alone = split_pools({"test": pools["test"]}, train=None, dev=2, test=5, shrink=False, seed=0)
    assert len(alone.train) == 3

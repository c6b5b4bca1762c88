"""The contexts of an arm: exact, compact where large, and the same numbers either way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laser.bandits import context_rows
from laser.bandits.context_rows import ContextRows
from laser.bandits.linear import DualRidge

DIM = 1024  # compact from 512 rows on
ROWS = np.random.default_rng(0).normal(size=(700, DIM))
SINGLE = ROWS.astype(np.float32).astype(np.float64)


def filled(rows):
    store = ContextRows(DIM)
    for row in rows:
        store.extend(row[None])
    return store


@pytest.mark.parametrize("num", [1, 511, 512, 513, 700])
@pytest.mark.parametrize("source", [ROWS, SINGLE], ids=["double", "single"])
def test_products_are_those_of_the_plain_matrix(source, num):
    store = filled(source[:num])
    assert len(store) == num
    assert np.array_equal(store.to_array().astype(np.float64), source[:num])
    np.testing.assert_allclose(store.times(ROWS[0]), source[:num] @ ROWS[0], rtol=0, atol=1e-11)
    coefficients = ROWS[1, :num]
    np.testing.assert_allclose(store.transposed_times(coefficients), coefficients @ source[:num], rtol=0, atol=1e-11)


def test_a_large_store_of_float32_contexts_takes_half_the_bytes():
    exact, compact = filled(ROWS).num_bytes, filled(SINGLE).num_bytes
    assert 700 * DIM * 8 <= exact <= 1.3 * 700 * DIM * 8
    assert 700 * DIM * 4 <= compact - context_rows._BLOCK_BYTES <= 1.3 * 700 * DIM * 4
    assert filled(SINGLE[:500]).num_bytes == filled(ROWS[:500]).num_bytes  # small: speed before bytes


@pytest.mark.parametrize("value", [0.1, 1e300, 1e-300])
def test_one_number_beyond_float32_brings_float64_back(value):
    store = filled(SINGLE)
    assert store.to_array().dtype == np.float32
    store.extend(np.full((1, DIM), value))
    assert store.to_array().dtype == np.float64
    assert np.array_equal(store.to_array(), np.vstack([SINGLE, np.full((1, DIM), value)]))


def test_one_number_beyond_float32_is_remembered():
    store = filled(np.vstack([np.full((1, DIM), 0.1), SINGLE]))
    assert store.to_array().dtype == np.float64
    assert store.to_array()[0, 0] == 0.1


@pytest.mark.slow
@given(st.lists(st.integers(1, 300), min_size=1, max_size=5))
def test_rows_may_come_in_any_portions(portions):
    end = min(sum(portions), len(SINGLE))
    one, many = ContextRows(DIM), ContextRows(DIM)
    one.extend(SINGLE[:end])
    begin = 0
    for portion in portions:
        many.extend(SINGLE[begin : min(begin + portion, end)])
        begin = min(begin + portion, end)
    assert np.array_equal(one.times(ROWS[0]), many.times(ROWS[0]))


def test_an_arm_says_the_same_with_compact_contexts(monkeypatch):
    """The dual form over 600 contexts of one dominant direction, both where the difference cancels and elsewhere."""
    rows = (1 + 0.01 * ROWS[:600]).astype(np.float32).astype(np.float64)

    def arm():
        model = DualRidge(np.zeros(DIM), 1e-3)
        for row in rows:
            model.observe(row, float(row[0]))
        return model

    compact = arm()
    monkeypatch.setattr(context_rows, "_COMPACT_BYTES", 2**60)
    plain = arm()
    assert compact.num_bytes < plain.num_bytes
    for query in (rows[5], ROWS[650]):
        first, second = compact.estimate(query), plain.estimate(query)
        assert first.mean == pytest.approx(second.mean, rel=1e-7)
        assert first.variance == pytest.approx(second.variance, rel=1e-7)
    again = DualRidge.restore(compact.state_dict(), 1e-3).estimate(rows[5])
    assert again.mean == compact.estimate(rows[5]).mean

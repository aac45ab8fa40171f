"""Chan's formula gives what one pass over everything gives, whatever is empty and wherever it is cut."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harvest.stats.chan import chan

FLOATS = st.floats(-1e6, 1e6)
VALUES = arrays(np.float64, st.tuples(st.integers(0, 20), st.just(3)), elements=FLOATS)


def _moments(values: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    if not len(values):
        return 0, np.full(3, np.nan), np.full(3, np.nan)
    return len(values), values.mean(axis=0), np.square(values - values.mean(axis=0)).sum(axis=0)


@given(VALUES, VALUES)
def test_two_parts_equal_all_at_once(a: np.ndarray, b: np.ndarray):
    count, mean, m2 = chan(*_moments(a), *_moments(b))
    both = np.concatenate([a, b])
    assert count == len(both)
    expected = (np.zeros(3), np.zeros(3)) if not len(both) else _moments(both)[1:]
    scale = np.abs(both).max(initial=1.0)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-12, atol=1e-12 * scale)
    np.testing.assert_allclose(m2, expected[1], rtol=1e-9, atol=1e-12 * scale**2 * max(1, len(both)))


@given(st.integers(1, 2**40), FLOATS, st.floats(0, 1e12))
def test_an_empty_side_leaves_the_other_bit_for_bit(count: int, mean: float, m2: float):
    for parts in [(count, mean, m2, 0, np.nan, np.nan), (0, np.nan, np.inf, count, mean, m2)]:
        found = chan(*parts)
        assert (int(found[0]), float(found[1]).hex(), float(found[2]).hex()) == (count, mean.hex(), (m2 + 0.0).hex())


def test_counts_may_differ_by_element_and_float32_is_summed_in_float64():
    count, mean, m2 = chan([2, 0, 0], np.float32([1, 9, 9]), np.float32([2, 9, 9]), [2, 3, 0], [3, 5, 9], [2, 7, 9])
    assert count.tolist() == [4, 3, 0]
    assert mean.tolist() == [2, 5, 0]
    assert m2.tolist() == [8, 7, 0]
    assert mean.dtype == m2.dtype == np.float64


def test_counts_beyond_what_their_product_can_hold():
    count, mean, m2 = chan(2**40, 1.0, 0.0, 2**40, 3.0, 0.0)
    assert (int(count), float(mean), float(m2)) == (2**41, 2.0, 2.0**41)

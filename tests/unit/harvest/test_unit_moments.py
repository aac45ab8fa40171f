"""Folding rows into a unit gives what two passes over all tokens give."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from captured import rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import plain_moments, random_questions

from harvest.stats.rows import RequestRows, concatenate_neurons
from harvest.stats.unit import fold_unit


@settings(deadline=None, max_examples=100)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1.0, 1e-6, 1e4]),
    offset=st.sampled_from([0.0, -4.0, 3000.0]),
)
def test_a_unit_holds_the_two_pass_moments_of_its_tokens_and_of_its_questions(lengths, seed, scale, offset):
    questions = [
        (one * scale + offset).astype(np.float32).astype(np.float64) for one in random_questions(seed, lengths)
    ]
    moments = fold_unit(rows_of(questions))
    assert moments.token_count == sum(lengths)
    assert moments.question_count == sum(length > 0 for length in lengths)
    expected = plain_moments(questions)
    assert moments.variables.keys() == expected.keys()
    size = max(float(np.abs(one).max()) for one in questions if len(one))
    for name, value in expected.items():
        slack = 1e-9 * (size**2 if "m2" in name else size)
        np.testing.assert_allclose(moments.variables[name], value, rtol=1e-9, atol=slack, err_msg=name)
    for name in ("min", "max", "positive_count"):
        np.testing.assert_array_equal(moments.variables[name], expected[name], err_msg=name)


def test_empty_requests_change_no_bit():
    questions = random_questions(1, [3, 4])
    with_empty = [questions[0][:0], questions[0], questions[0][:0], questions[1]]
    one, other = fold_unit(rows_of(questions)), fold_unit(rows_of(with_empty))
    assert (one.token_count, one.question_count) == (other.token_count, other.question_count) == (7, 2)
    for name, value in one.variables.items():
        np.testing.assert_array_equal(value, other.variables[name], err_msg=name)


def test_a_unit_without_any_token_is_nan_and_counts_nothing():
    moments = fold_unit(rows_of(random_questions(0, [0, 0])))
    assert (moments.token_count, moments.question_count) == (0, 0)
    for name, value in moments.variables.items():
        assert value.shape == (2, 5)
        assert (value == 0).all() if name == "positive_count" else np.isnan(value).all()


def test_one_token_has_no_spread():
    moments = fold_unit(rows_of(random_questions(0, [1])))
    for name in ("m2", "question_m2", "question_rate_m2"):
        assert not moments.variables[name].any()


def test_the_counts_are_integers_beyond_float32():
    rows = rows_of(random_questions(0, [1, 1]))
    big = RequestRows(
        np.array([2**40, 1]), rows.mean_QLF, rows.m2_QLF, rows.min_QLF, rows.max_QLF, rows.positive_QLF + 2**40
    )
    moments = fold_unit(big)
    assert moments.token_count == 2**40 + 1
    assert moments.variables["positive_count"].dtype == np.int64
    assert moments.variables["positive_count"].min() >= 2**41


@pytest.mark.parametrize("cuts", [[], [2], [1, 4]])
def test_tensor_parallel_slices_join_to_the_whole(cuts: list[int]):
    questions = random_questions(5, [3, 0, 2])
    bounds = [0, *cuts, 5]
    slices = [rows_of([one[:, :, a:b] for one in questions]) for a, b in pairwise(bounds)]
    joined, whole = concatenate_neurons(slices), rows_of(questions)
    for name in RequestRows.__slots__:
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name), err_msg=name)


def test_ranks_that_counted_differently_are_refused():
    with pytest.raises(ValueError, match="different numbers of tokens"):
        concatenate_neurons([rows_of(random_questions(0, [3])), rows_of(random_questions(0, [2]))])

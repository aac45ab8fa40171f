"""The moments of units are a monoid up to rounding: merging is associative and commutative, and nothing is nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from captured import rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import Question, plain_moments

from harvest.stats.unit import fold_unit
from harvest.store.fold_moments import fold

EXACT = ("token_count", "question_count", "min", "max", "positive_count")


def totals(questions: list[Question]) -> dict[str, Any]:
    moments = fold_unit(rows_of(questions))
    return {**moments.variables, "token_count": moments.token_count, "question_count": moments.question_count}


@st.composite
def units(draw: st.DrawFn, number: int) -> list[list[Question]]:
    """Units of questions; a question has 0, 1 or a few tokens, a neuron's values an offset and a spread, or none."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    offset, spread = draw(st.sampled_from([(0.0, 1.0), (1e6, 1.0), (-3e4, 1e-2), (7.25, 0.0), (0.0, 0.0)]))
    lengths = st.lists(st.sampled_from([0, 0, 1, 1, 2, 9]), min_size=1, max_size=4)
    return [
        [rng.normal(offset, spread, (length, 1, 3)).astype(np.float32).astype(np.float64) for length in draw(lengths)]
        for _ in range(number)
    ]


def assert_close(found: dict[str, Any], expected: dict[str, Any], size: float) -> None:
    """Equal counts and extremes; moments up to the rounding of float64 at the values' size."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name in EXACT:
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        else:
            power = 2 if "m2" in name else 1
            unit = 1.0 if "rate" in name else size
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12 * unit**power, err_msg=name)


def size_of(parts: list[list[Question]]) -> float:
    return max([1.0, *(float(np.abs(one).max()) for part in parts for one in part if len(one))])


@settings(deadline=None, max_examples=150)
@given(units(3))
def test_merging_is_associative_and_commutative_up_to_rounding(parts: list[list[Question]]):
    a, b, c = map(totals, parts)
    size = size_of(parts)
    assert_close(fold([fold([a, b]), c]), fold([a, fold([b, c])]), size)
    assert_close(fold([a, b]), fold([b, a]), size)


@settings(deadline=None, max_examples=150)
@given(units(3))
def test_merged_parts_equal_one_pass_over_all_their_tokens(parts: list[list[Question]]):
    everything = [question for part in parts for question in part]
    found, size = fold(map(totals, parts)), size_of(parts)
    assert_close(found, totals(everything), size)
    if found["token_count"]:
        counts = {name: found[name] for name in ("token_count", "question_count")}
        assert_close(found, {**plain_moments(everything), **counts}, size)


@settings(deadline=None, max_examples=100)
@given(units(2))
def test_a_unit_without_a_token_is_the_identity_and_a_fixed_order_gives_the_same_bits(parts: list[list[Question]]):
    a, b = map(totals, parts)
    nothing = totals([np.zeros((0, 1, 3))])
    once = fold([a, b])
    for other in (fold([a, b]), fold([a, nothing, b]), fold([nothing, a, b]), fold([a, b, nothing])):
        for name, value in once.items():
            assert np.asarray(value).tobytes() == np.asarray(other[name]).tobytes(), name


@pytest.mark.parametrize("value", [0.1, -3.3, 1e-30, 12345.678, 1e6 + 1 / 3, 0.0])
def test_a_constant_neuron_has_no_spread_beyond_rounding_however_it_is_cut(value: float):
    questions = [np.full((length, 1, 3), value) for length in (1, 7, 100, 1)]
    found = fold([totals(questions[:1]), totals(questions[1:3]), totals(questions[3:])])
    for name in ("m2", "question_m2"):
        assert (found[name] >= 0).all()
        assert (found[name] <= 1e-25 * value**2 * found["token_count"]).all()
    np.testing.assert_allclose(found["mean"], value, rtol=1e-14)


def test_one_token_is_its_own_mean_bit_for_bit():
    found = fold([totals([np.zeros((0, 1, 3))]), totals([np.full((1, 1, 3), 1 / 3)])])
    assert (found["token_count"], found["question_count"]) == (1, 1)
    for name in ("mean", "question_mean"):
        assert (found[name] == 1 / 3).all()
    for name in ("m2", "question_m2", "question_rate_m2"):
        assert (found[name] == 0).all()

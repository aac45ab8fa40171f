"""Folding rows into a unit gives what two passes over all tokens give."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from captured import rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import plain_moments, random_questions

from harvest.stats import unit
from harvest.stats.rows import RequestRows, assemble
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


@pytest.mark.parametrize("num_cached", [1, 7, 24])
def test_no_bit_depends_on_how_many_neurons_are_folded_at_once(monkeypatch, num_cached: int):
    questions = [one * 1e4 + 1 / 3 for one in random_questions(2, [3, 0, 4, 1, 9, 2, 5])]
    for some in (questions, questions[:1], questions[2:4]):
        rows = rows_of(some)
        # a layer narrower than the widest
        rows.mean_QLF[:, 1, 3:] = np.nan
        whole = fold_unit(rows)
        with monkeypatch.context() as patched:
            patched.setattr(unit, "_CACHED", num_cached)
            cut = fold_unit(rows)
        for name, value in whole.variables.items():
            assert value.tobytes() == cut.variables[name].tobytes(), name


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
    big = replace(rows, num_tokens_Q=np.array([2**40, 1]), positive_QLF=rows.positive_QLF * 0 + np.int32(2**31 - 1))
    moments = fold_unit(big)
    assert moments.token_count == 2**40 + 1
    assert moments.variables["positive_count"].dtype == np.int64
    assert (moments.variables["positive_count"] == 2 * (2**31 - 1)).all()


@dataclass(frozen=True)
class Cut:
    """A whole model's rows, and the parts and layouts of its ranks, in collective_rpc's order."""

    whole: RequestRows
    parts: list[RequestRows]
    layouts: list[list[tuple[int, int, int]]]


@st.composite
def cut_models(draw: st.DrawFn) -> Cut:
    """Layers of different widths, cut into pipeline stages and each layer's neurons among tensor-parallel ranks."""
    widths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    stages = draw(st.integers(1, len(widths)))
    ranks = draw(st.integers(1, 3))
    first = draw(st.integers(0, 2))
    # probed layers need not start at 0
    seed = draw(st.integers(0, 99))
    rows = rows_of(random_questions(seed, [3, 0, 2], len(widths), max(widths)))
    argmax_QLF = np.random.default_rng(seed).integers(-1, 3, rows.max_QLF.shape, np.int32)
    whole = replace(rows, argmax_QLF=argmax_QLF)
    beyond_LF = np.arange(max(widths)) >= np.array(widths)[:, None]
    for name in NEURON_VARIABLES:
        getattr(whole, name)[:, beyond_LF] = {"positive_QLF": 0, "argmax_QLF": -1}.get(name, np.nan)
    at_layer = sorted(draw(st.permutations(range(1, len(widths))))[: stages - 1])
    parts, layouts = [], []
    bounds = {
        layer: sorted(draw(st.integers(0, width)) for _ in range(ranks - 1)) for layer, width in enumerate(widths)
    }
    for start, stop in pairwise([0, *at_layer, len(widths)]):
        for rank in range(ranks):
            spans = [(layer, *list(pairwise([0, *bounds[layer], widths[layer]]))[rank]) for layer in range(start, stop)]
            layouts.append([(first + layer, a, b - a) for layer, a, b in spans])
            parts.append(part_of(whole, spans))
    return Cut(whole, parts, layouts)


NEURON_VARIABLES = [name for name in RequestRows.__slots__ if name.endswith("_QLF")]


def part_of(whole: RequestRows, spans: list[tuple[int, int, int]]) -> RequestRows:
    """One rank's rows, as wide as its widest span; what stands beyond a narrower one is anything, here 9."""
    widest = max(b - a for _, a, b in spans)

    def held(name: str) -> np.ndarray | None:
        values_QLF = getattr(whole, name)
        if values_QLF is None:
            return None
        out = np.full((len(values_QLF), len(spans), widest), 9, values_QLF.dtype)
        for at, (layer, a, b) in enumerate(spans):
            out[:, at, : b - a] = values_QLF[:, layer, a:b]
        return out

    return RequestRows(whole.num_tokens_Q, **{name: held(name) for name in NEURON_VARIABLES})


@settings(deadline=None, max_examples=200)
@given(cut=cut_models())
def test_the_parts_of_all_ranks_assemble_to_the_whole(cut: Cut):
    found = assemble(cut.parts, cut.layouts)
    for name in RequestRows.__slots__:
        expected = getattr(cut.whole, name)
        assert getattr(found, name).dtype == expected.dtype
        np.testing.assert_array_equal(getattr(found, name), expected, err_msg=name)


def test_layers_assemble_in_ascending_order_whatever_the_ranks_order():
    whole = rows_of(random_questions(3, [2, 1], layers=2))
    found = assemble([part_of(whole, [(1, 0, 5), (0, 0, 5)])], [[(8, 0, 5), (4, 0, 5)]])
    np.testing.assert_array_equal(found.mean_QLF, whole.mean_QLF)
    np.testing.assert_array_equal(found.argmax_QLF, whole.argmax_QLF)


@pytest.mark.parametrize("layout", [[(0, 5, 5), (1, 5, 5)], [(6, 0, 5), (7, 0, 5)]], ids=["tensor", "pipeline"])
def test_ranks_that_counted_differently_are_refused(layout: list[tuple[int, int, int]]):
    parts = [rows_of(random_questions(0, lengths)) for lengths in ([3, 4], [3, 2])]
    place = f"rank 1, layer {layout[0][0]}, request 1: 2 tokens counted, but 4 on rank 0, layer 0"
    with pytest.raises(ValueError, match=place):
        assemble(parts, [[(0, 0, 5), (1, 0, 5)], layout])


@pytest.mark.parametrize(("start", "place"), [(4, "start at 4.* end at 5"), (6, "start at 6.* end at 5")])
def test_neurons_that_no_rank_or_two_ranks_hold_are_refused(start: int, place: str):
    parts = [rows_of(random_questions(0, [3], layers=1))] * 2
    with pytest.raises(ValueError, match=f"rank 1, layer 0: its neurons {place}"):
        assemble(parts, [[(0, 0, 5)], [(0, start, 5)]])

"""The Triton kernel obeys the laws of every fold. The interpreter takes 10 ms a program: examples are few and small."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from folding import Step, Way, fold_all
from hypothesis import given, settings
from hypothesis import strategies as st

triton = pytest.importorskip("triton", reason="Triton is not installed beside vLLM; `make test-triton` runs this")

import test_fold_laws as laws  # noqa: E402 only after Triton was found

WAYS = [
    Way("triton", torch.float32, 0),
    Way("triton", torch.float32, 3),
    Way("triton", torch.bfloat16, 3),
]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)
STREAM_LAWS = [
    laws.test_every_row_holds_the_two_pass_moments_of_its_own_tokens,
    laws.test_what_stands_in_uncounted_tokens_changes_no_bit,
    laws.test_the_same_stream_gives_the_same_bytes,
]


@every_way
@pytest.mark.parametrize("law", STREAM_LAWS, ids=lambda law: law.__name__)
@settings(deadline=None, max_examples=3)
@given(steps=laws.streams())
def test_streams(law, way: Way, steps: list):
    law.hypothesis.inner_test(way, steps)


@every_way
@settings(deadline=None, max_examples=3)
@given(steps=laws.streams(), data=st.data())
def test_any_cut_into_steps_gives_what_all_at_once_gives(way: Way, steps: list, data: st.DataObject):
    laws.test_any_cut_into_steps_gives_what_all_at_once_gives.hypothesis.inner_test(way, steps, data)


@pytest.mark.parametrize("way", WAYS[1:], ids=str)
@settings(deadline=None, max_examples=5)
@given(answer=st.integers(0, 9), seed=st.integers(0, 2**32 - 1))
def test_a_surplus_token_is_dropped_to_the_last_bit(way: Way, answer: int, seed: int):
    laws.test_a_surplus_token_is_dropped_to_the_last_bit.hypothesis.inner_test(way, answer, seed)


def test_variance_survives_a_large_mean():
    """As the law of this name, on a tenth of its tokens."""
    values = np.random.default_rng(7).normal(1e4, 0.01, (2_000, laws.NEURONS)).astype(np.float32)
    _, rows = fold_all(WAYS[0], [Step(torch.from_numpy(part), [(0, 250)]) for part in np.split(values, 8)], 1).collect()
    exact = values.astype(np.float64)
    np.testing.assert_allclose(rows.m2_QLF[0, 0], np.square(exact - exact.mean(axis=0)).sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(rows.mean_QLF[0, 0], exact.mean(axis=0), rtol=0, atol=1e-8)


@pytest.mark.parametrize("tokens", [1, 3, 300])
def test_a_constant_neuron_has_its_value_and_no_spread(tokens: int):
    laws.test_a_constant_neuron_has_its_value_and_no_spread(WAYS[1], tokens)


@pytest.mark.parametrize("way", WAYS[::2], ids=str)
@pytest.mark.parametrize("fault", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("tokens", [1, 40])
def test_a_nan_or_inf_that_is_counted_shows_in_that_neuron_alone(way: Way, fault: float, tokens: int):
    laws.test_a_nan_or_inf_that_is_counted_shows_in_that_neuron_alone(way, fault, tokens)


@every_way
def test_cleared_slots_start_again_and_the_others_go_on(way: Way):
    laws.test_cleared_slots_start_again_and_the_others_go_on(way)

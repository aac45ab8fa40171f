"""Every way of folding a stream of activations, step by step, gives what two float64 passes over the whole give."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from folding import STRANGER, WAYS, Folding, Step, Way, fold_all
from hypothesis import given, settings
from hypothesis import strategies as st

NEURONS = 5
REQUESTS = 3
every_way = pytest.mark.parametrize("way", WAYS, ids=str)
FIELDS = ("mean_QLF", "m2_QLF", "min_QLF", "max_QLF", "positive_QLF", "argmax_QLF")


@st.composite
def streams(draw: st.DrawFn) -> list[Step]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    center, spread = draw(st.sampled_from([(0.0, 1.0), (3.0, 2.0), (-50.0, 0.5), (0.0, 1e-4), (2.5, 0.0)]))
    steps = []
    for _ in range(draw(st.integers(1, 9))):
        owners = draw(st.permutations([*range(REQUESTS), STRANGER, STRANGER]))
        longest = draw(st.sampled_from([1, 1, 2, 12, 300]))
        stretches = [(owner, draw(st.integers(1, longest))) for owner in owners[: draw(st.integers(1, 5))]]
        values = rng.normal(center, spread, (sum(length for _, length in stretches), NEURONS)).astype(np.float32)
        values[rng.random(values.shape) < 0.1] = 0
        steps.append(Step(torch.from_numpy(values), stretches))
    return steps


def tokens_of(way: Way, steps: list[Step], request: int) -> np.ndarray:
    """The request's gates in order, as the model's dtype has them, float64, shape (tokens, F)."""
    parts = [np.zeros((0, NEURONS))]
    for step in steps:
        owners = np.repeat([owner for owner, _ in step.stretches], [length for _, length in step.stretches])
        parts.append(step.gate.to(way.dtype).double().numpy()[owners == request])
    return np.concatenate(parts)


def near(found: np.ndarray, expected: np.ndarray, relative: float, scale: float) -> None:
    """Within a relative error, and beneath it within some of the stream's own rounding."""
    np.testing.assert_allclose(found, expected, rtol=relative, atol=scale)


@every_way
@settings(deadline=None, max_examples=40)
@given(steps=streams())
def test_every_row_holds_the_two_pass_moments_of_its_own_tokens(way: Way, steps: list[Step]):
    counts, rows = fold_all(way, steps, REQUESTS).collect()
    for request in range(REQUESTS):
        tokens = tokens_of(way, steps, request)
        assert counts[:, request].tolist() == [len(tokens)] * 2
        if not len(tokens):
            assert np.isnan(rows.mean_QLF[request]).all()
            assert (rows.argmax_QLF[request] == -1).all()
            assert (rows.positive_QLF[request] == 0).all()
            continue
        for layer, x in enumerate((tokens, -tokens)):
            size, mean = np.abs(x).max() or 1.0, x.mean(axis=0)
            # fp32 rounds the deviations of a micro-batch, never the mean itself
            spread = np.abs(x - mean).max() or 0.0
            near(rows.mean_QLF[request, layer], mean, 1e-12, 1e-7 * spread + 1e-14 * size)
            near(rows.m2_QLF[request, layer], np.square(x - mean).sum(axis=0), 1e-5, 1e-11 * size**2)
            np.testing.assert_array_equal(rows.min_QLF[request, layer], x.min(axis=0))
            np.testing.assert_array_equal(rows.max_QLF[request, layer], x.max(axis=0))
            np.testing.assert_array_equal(rows.positive_QLF[request, layer], (x > 0).sum(axis=0))
            np.testing.assert_array_equal(rows.argmax_QLF[request, layer], x.argmax(axis=0))


@every_way
@settings(deadline=None, max_examples=30)
@given(steps=streams(), data=st.data())
def test_any_cut_into_steps_gives_what_all_at_once_gives(way: Way, steps: list[Step], data: st.DataObject):
    """One request alone, so that its steps may be joined."""
    x = torch.cat([step.gate for step in steps])
    at = data.draw(st.sets(st.integers(1, max(1, len(x) - 1)), max_size=8))
    bounds = [0, *sorted(cut for cut in at if cut < len(x)), len(x)]
    _, one = fold_all(way, [Step(x, [(0, len(x))])], 1).collect()
    _, many = fold_all(way, [Step(x[a:b], [(0, b - a)]) for a, b in pairwise(bounds)], 1).collect()
    for name in ("num_tokens_Q", "min_QLF", "max_QLF", "positive_QLF", "argmax_QLF"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name), name)
    size = float(x.abs().max()) or 1.0
    spread = float((x - x.mean(dim=0)).abs().max())
    near(many.mean_QLF, one.mean_QLF, 1e-12, 2e-7 * spread + 1e-14 * size)
    near(many.m2_QLF, one.m2_QLF, 2e-5, 2e-11 * size**2)


@every_way
@settings(deadline=None, max_examples=20)
@given(steps=streams())
def test_what_stands_in_uncounted_tokens_changes_no_bit(way: Way, steps: list[Step]):
    poisoned = []
    for number, step in enumerate(steps):
        gate = step.gate.clone()
        owners = np.repeat([owner for owner, _ in step.stretches], [length for _, length in step.stretches])
        gate[torch.from_numpy(owners == STRANGER)] = [torch.nan, torch.inf, -torch.inf][number % 3]
        poisoned.append(Step(gate, step.stretches))
    _, clean = fold_all(way, steps, REQUESTS).collect()
    _, other = fold_all(way, poisoned, REQUESTS).collect()
    for name in FIELDS:
        assert getattr(clean, name).tobytes() == getattr(other, name).tobytes(), name


@every_way
@settings(deadline=None, max_examples=30)
@given(steps=streams())
def test_the_same_stream_gives_the_same_bytes(way: Way, steps: list[Step]):
    (_, first), (_, second) = (fold_all(way, steps, REQUESTS).collect() for _ in range(2))
    for name in FIELDS:
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name


@pytest.mark.parametrize("way", [way for way in WAYS if way.holds], ids=str)
@settings(deadline=None, max_examples=30)
@given(answer=st.integers(0, 9), seed=st.integers(0, 2**32 - 1))
def test_a_surplus_token_is_dropped_to_the_last_bit(way: Way, answer: int, seed: int):
    """An answer of some tokens, decoded one by one, with and without a step after its end."""
    x = torch.randn(answer + 1, NEURONS, generator=torch.Generator().manual_seed(seed))
    steps = [Step(x[at : at + 1], [(0, 1)]) for at in range(answer + 1)]
    counts, longer = fold_all(way, steps, 1).collect(planned=[answer])
    assert counts.tolist() == [[answer], [answer]]
    if answer:
        _, exact = fold_all(way, steps[:-1], 1).collect()
        for name in FIELDS:
            assert getattr(longer, name).tobytes() == getattr(exact, name).tobytes(), name


@pytest.mark.parametrize("way", [way for way in WAYS if way.dtype == torch.float32], ids=str)
@pytest.mark.parametrize("step", [1, 500], ids=["one by one", "in chunks"])
@pytest.mark.parametrize(
    ("mean", "deviation", "allowed"),
    [(3000.0, 1.0, 1e-6), (1e4, 0.01, 1e-5), (0.0, 1.0, 1e-6)],
)
def test_variance_survives_a_large_mean(way: Way, step: int, mean: float, deviation: float, allowed: float):
    """fp32 two-pass in a step, fp64 between steps; a running fp32 sum of squares errs by 5e-4 and 0.24 here."""
    number = 20_000 if step > 1 else 2_000
    values = np.random.default_rng(7).normal(mean, deviation, (number, NEURONS)).astype(np.float32)
    steps = [Step(torch.from_numpy(values[at : at + step]), [(0, step)]) for at in range(0, number, step)]
    _, rows = fold_all(way, steps, 1).collect()
    exact = values.astype(np.float64)
    m2 = np.square(exact - exact.mean(axis=0)).sum(axis=0)
    assert np.abs(rows.m2_QLF[0, 0] / m2 - 1).max() < allowed
    assert np.abs(rows.mean_QLF[0, 0] - exact.mean(axis=0)).max() < 1e-8 * deviation + 1e-12 * mean


@pytest.mark.parametrize("way", [way for way in WAYS if way.dtype == torch.float32], ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 3, 1000, 8192])
def test_a_constant_neuron_has_its_value_and_no_spread(way: Way, tokens: int):
    values = torch.tensor([0.1, -3.3, 1e-30, 12345.678, 0.0]).expand(tokens, NEURONS).contiguous()
    _, rows = fold_all(way, [Step(values, [(0, tokens)])] * 2, 1).collect()
    assert (rows.m2_QLF >= 0).all()
    assert (np.sqrt(rows.m2_QLF[0, 0] / (2 * tokens)) <= values[0].abs().numpy() * 1e-6 + 1e-30).all()
    np.testing.assert_array_equal(rows.mean_QLF[0, 0], values[0].double().numpy())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", [F.silu, F.gelu, torch.relu], ids=["silu", "gelu", "relu"])
def test_a_half_precision_activation_counts_at_the_value_it_has(dtype: torch.dtype, activation):
    """The compiled fold's tables against the module itself, bit by bit where bits can be seen: extremes and counts."""
    # whole vectors: torch rounds a few fp16 values otherwise where a vector does not fit, at a row's end
    gate = torch.randn(300, 64, generator=torch.Generator().manual_seed(0)) * 3
    step = Step(gate, [(0, 299), (1, 1)])
    _, native = fold_all(Way("native", dtype, 4), [step], 2, activation).collect()
    _, plain = fold_all(Way("torch", dtype, 4), [step], 2, activation).collect()
    for name in ("num_tokens_Q", "min_QLF", "max_QLF", "positive_QLF", "argmax_QLF"):
        np.testing.assert_array_equal(getattr(native, name), getattr(plain, name), name)
    np.testing.assert_allclose(native.mean_QLF, plain.mean_QLF, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(native.m2_QLF, plain.m2_QLF, rtol=1e-5, atol=1e-12)


@every_way
@pytest.mark.parametrize("fault", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_a_nan_or_inf_that_is_counted_shows_in_that_neuron_alone(way: Way, fault: float, tokens: int):
    gate = torch.ones(2 * tokens, NEURONS)
    gate[tokens // 2, 3] = fault
    _, rows = fold_all(way, [Step(gate, [(0, tokens), (1, tokens)])], 2).collect()
    finite = np.isfinite(rows.mean_QLF) & np.isfinite(rows.m2_QLF)
    assert finite[0, 0].tolist() == [True, True, True, False, True]
    assert finite[1].all()


@every_way
def test_cleared_slots_start_again_and_the_others_go_on(way: Way):
    gate = torch.randn(9, NEURONS, generator=torch.Generator().manual_seed(1))
    folding = fold_all(way, [Step(gate, [(0, 4), (1, 5)])], 2)
    _, before = folding.collect()
    (journey, _) = folding.router.journeys([0, 1])
    folding.probe.statistics.clear(torch.tensor([journey.slot]))
    again = Folding(way, 2, NEURONS)
    again.feed(Step(gate[:4], [(0, 4)]))
    journey.high_water, folding.positions[0] = 0, 0
    folding.feed(Step(gate[:4], [(0, 4)]))
    _, after = folding.collect()
    _, expected = again.collect()
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(after, name)[0], getattr(expected, name)[0], name)
        np.testing.assert_array_equal(getattr(after, name)[1], getattr(before, name)[1], name)

"""Folding a stream of activations step by step gives what two float64 passes over the whole give."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest.probe.fold import fold
from harvest.probe.state import Routing, SlotStatistics

CPU = torch.device("cpu")
NEURONS = 5
SLOTS = 4


@dataclass(frozen=True)
class Step:
    """One forward: its activations (T, F), and each token's slot; 0 is not counted."""

    activation: torch.Tensor
    slots: list[int]

    def routing(self) -> Routing:
        active = sorted({slot for slot in self.slots if slot})
        at = [token for token, slot in enumerate(self.slots) if slot]
        return Routing(
            counted_N=torch.tensor(at, dtype=torch.int64),
            local_N=torch.tensor([active.index(self.slots[token]) for token in at], dtype=torch.int64),
            active_A=torch.tensor(active, dtype=torch.int64),
            tokens_A=torch.tensor([self.slots.count(slot) for slot in active], dtype=torch.float64),
            edited_E=torch.zeros(0, dtype=torch.int64),
            row_E=torch.zeros(0, dtype=torch.int64),
        )


def fold_all(steps: list[Step], slots: int = SLOTS) -> SlotStatistics:
    """Two layers, of which only the second is fed."""
    statistics = SlotStatistics.allocate(2, slots, steps[0].activation.shape[1], CPU)
    for step in steps:
        if any(step.slots):
            fold(step.activation, 1, step.routing(), statistics)
    return statistics


@st.composite
def streams(draw: st.DrawFn) -> list[Step]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    center, spread = draw(st.sampled_from([(0.0, 1.0), (3.0, 2.0), (-50.0, 0.5), (0.0, 1e-4), (2.5, 0.0)]))
    steps = []
    for slots in draw(st.lists(st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=12), min_size=1, max_size=6)):
        values = rng.normal(center, spread, (len(slots), NEURONS)).astype(np.float32)
        values[rng.random(values.shape) < 0.1] = 0
        steps.append(Step(torch.from_numpy(values), slots))
    return steps


def tokens_of(steps: list[Step], slot: int) -> np.ndarray:
    """The slot's activations in order, float64, shape (tokens, F)."""
    parts = [step.activation.double().numpy()[np.array(step.slots) == slot] for step in steps]
    return np.concatenate(parts)


@settings(deadline=None, max_examples=150)
@given(streams())
def test_every_slot_holds_the_two_pass_moments_of_its_own_tokens(steps: list[Step]):
    statistics = fold_all(steps)
    for slot in range(1, SLOTS):
        tokens = tokens_of(steps, slot)
        assert statistics.count_LS[1, slot] == len(tokens)
        if not len(tokens):
            assert statistics.min_LSF[1, slot].eq(torch.inf).all()
            assert statistics.max_LSF[1, slot].eq(-torch.inf).all()
            continue
        scale = np.abs(tokens).max() or 1.0
        mean = tokens.mean(axis=0)
        m2 = np.square(tokens - mean).sum(axis=0)
        np.testing.assert_allclose(statistics.mean_LSF[1, slot], mean, rtol=0, atol=1e-12 * scale)
        np.testing.assert_allclose(statistics.m2_LSF[1, slot], m2, rtol=1e-5, atol=1e-11 * scale**2)
        np.testing.assert_array_equal(statistics.min_LSF[1, slot], tokens.min(axis=0))
        np.testing.assert_array_equal(statistics.max_LSF[1, slot], tokens.max(axis=0))
        np.testing.assert_array_equal(statistics.positive_LSF[1, slot], (tokens > 0).sum(axis=0))


@settings(deadline=None, max_examples=100)
@given(streams())
def test_neither_the_sink_nor_another_layer_is_touched(steps: list[Step]):
    statistics, fresh = fold_all(steps), SlotStatistics.allocate(2, SLOTS, NEURONS, CPU)
    for name in SlotStatistics.__slots__:
        assert torch.equal(getattr(statistics, name)[0], getattr(fresh, name)[0])
        assert torch.equal(getattr(statistics, name)[1, 0], getattr(fresh, name)[1, 0])


@settings(deadline=None, max_examples=100)
@given(streams(), st.data())
def test_any_cut_into_steps_gives_what_all_at_once_gives(steps: list[Step], data: st.DataObject):
    whole = Step(torch.cat([step.activation for step in steps]), [slot for step in steps for slot in step.slots])
    at = sorted(data.draw(st.sets(st.integers(1, max(1, len(whole.slots) - 1)), max_size=5)))
    bounds = [0, *(cut for cut in at if cut < len(whole.slots)), len(whole.slots)]
    cut = [Step(whole.activation[a:b], whole.slots[a:b]) for a, b in pairwise(bounds)]
    one, many = fold_all([whole]), fold_all(cut)
    for name in ("count_LS", "min_LSF", "max_LSF", "positive_LSF"):
        assert torch.equal(getattr(one, name), getattr(many, name)), name
    scale = float(whole.activation.abs().max()) or 1.0
    torch.testing.assert_close(one.mean_LSF, many.mean_LSF, rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(one.m2_LSF, many.m2_LSF, rtol=1e-5, atol=1e-11 * scale**2)


@settings(deadline=None, max_examples=60)
@given(streams())
def test_what_stands_in_uncounted_tokens_changes_no_bit(steps: list[Step]):
    poisoned = []
    for number, step in enumerate(steps):
        activation = step.activation.clone()
        activation[torch.tensor(step.slots) == 0] = [torch.nan, torch.inf, -torch.inf][number % 3]
        poisoned.append(Step(activation, step.slots))
    clean, other = fold_all(steps), fold_all(poisoned)
    for name in SlotStatistics.__slots__:
        assert torch.equal(getattr(clean, name), getattr(other, name)), name


@pytest.mark.parametrize(
    ("mean", "deviation", "allowed"),
    [(3000.0, 1.0, 1e-6), (1e4, 0.01, 1e-5), (0.0, 1.0, 1e-6)],
)
def test_variance_survives_a_large_mean(mean: float, deviation: float, allowed: float):
    """fp32 two-pass in a step, fp64 between steps; a running fp32 sum of squares errs by 5e-4 and 0.24 here."""
    values = np.random.default_rng(7).normal(mean, deviation, (20_000, NEURONS)).astype(np.float32)
    steps = [Step(torch.from_numpy(part), [1] * len(part)) for part in np.array_split(values, 40)]
    statistics = fold_all(steps)
    exact = values.astype(np.float64)
    m2 = np.square(exact - exact.mean(axis=0)).sum(axis=0)
    assert np.abs(statistics.m2_LSF[1, 1].numpy() / m2 - 1).max() < allowed
    assert np.abs(statistics.mean_LSF[1, 1].numpy() - exact.mean(axis=0)).max() < 1e-12 * max(1.0, mean)


@pytest.mark.parametrize("tokens", [2, 3, 1000, 8192])
def test_a_constant_neuron_never_has_a_negative_spread(tokens: int):
    values = torch.tensor([0.1, -3.3, 1e-30, 12345.678, 0.0]).expand(tokens, NEURONS).contiguous()
    statistics = fold_all([Step(values, [1] * tokens), Step(values, [1] * tokens)])
    m2, mean = statistics.m2_LSF[1, 1], statistics.mean_LSF[1, 1]
    assert (m2 >= 0).all()
    assert (m2 / (2 * tokens)).sqrt().le(values[0].abs() * 1e-6 + 1e-30).all()
    torch.testing.assert_close(mean, values[0].double(), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_activation_counts_at_the_value_it_has(dtype: torch.dtype):
    activation = torch.randn(33, NEURONS, generator=torch.Generator().manual_seed(0)).to(dtype)
    half = fold_all([Step(activation, [1] * 33)])
    single = fold_all([Step(activation.float(), [1] * 33)])
    for name in SlotStatistics.__slots__:
        assert torch.equal(getattr(half, name), getattr(single, name)), name


def test_a_nan_that_is_counted_shows_in_that_neuron_alone():
    activation = torch.ones(6, NEURONS)
    activation[2, 3] = torch.nan
    statistics = fold_all([Step(activation, [1, 1, 1, 2, 2, 2])])
    assert statistics.mean_LSF[1, 1].isnan().tolist() == [False, False, False, True, False]
    assert not statistics.mean_LSF[1, 2].isnan().any()


def test_cleared_slots_start_again_and_the_others_go_on():
    steps = [Step(torch.randn(4, NEURONS, generator=torch.Generator().manual_seed(1)), [1, 1, 2, 2])]
    statistics = fold_all(steps)
    before = {name: getattr(statistics, name)[1, 2].clone() for name in SlotStatistics.__slots__}
    statistics.clear(torch.tensor([1]))
    fold(steps[0].activation, 1, Step(steps[0].activation, [1, 1, 0, 0]).routing(), statistics)
    again = fold_all(steps)
    for name in SlotStatistics.__slots__:
        assert torch.equal(getattr(statistics, name)[1, 1], getattr(again, name)[1, 1])
        assert torch.equal(getattr(statistics, name)[1, 2], before[name])

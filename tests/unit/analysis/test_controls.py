"""Matched controls: same layers, similar rates, none of the selected, different every draw."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from analysis.neurons.controls import matched_controls
from analysis.neurons.neuron_set import NeuronSet, mask_of
from analysis.neurons.probability import select_probability
from harvest.errors import SelectionError

LAYERS, NEURONS = 3, 200


def make_effect(seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    axes = ("layer", "neuron")
    names = ("delta", "rate", "rate_opposite", "base_rate")
    return xr.Dataset({name: (axes, rng.random((LAYERS, NEURONS))) for name in names})


def make_set(effect: xr.Dataset, top_k: int = 30) -> NeuronSet:
    return select_probability(effect, "set", "b.zh/和谐/support", top_k, None)


def test_a_control_has_as_many_neurons_in_each_layer_and_none_of_the_excluded() -> None:
    effect = make_effect()
    chosen = make_set(effect)
    other = np.zeros((LAYERS, NEURONS), np.bool_)
    other[:, :50] = True
    for control in matched_controls(chosen, effect, other | mask_of([chosen], other.shape), 5, 7):
        np.testing.assert_array_equal(np.bincount(control.layer), np.bincount(chosen.layer))
        assert len(control.pairs) == len(chosen)
        assert not control.pairs & chosen.pairs
        assert control.neuron.min() >= 50
        assert (control.method, control.control_of, control.group) == ("control", "set", chosen.group)


def test_the_sets_own_neurons_are_never_drawn_even_if_not_excluded() -> None:
    effect = make_effect()
    chosen = make_set(effect)
    nothing = np.zeros((LAYERS, NEURONS), np.bool_)
    assert not any(one.pairs & chosen.pairs for one in matched_controls(chosen, effect, nothing, 20, 7))


def test_rates_are_near_and_the_gap_says_how_near() -> None:
    effect = make_effect()
    chosen = make_set(effect)
    base_rate = effect["base_rate"].to_numpy()
    for control in matched_controls(chosen, effect, np.zeros((LAYERS, NEURONS), np.bool_), 5, 7):
        gap = np.abs(base_rate[control.layer, control.neuron] - base_rate[chosen.layer, chosen.neuron])
        np.testing.assert_array_equal(control.columns["rate_gap"], gap)
        # 200 rates spread evenly: the nearest ten or so lie within a few hundredths, at the edge within a tenth
        assert gap.mean() < 0.04
        assert gap.max() < 0.2


def test_draws_differ_and_are_the_same_for_the_same_seed() -> None:
    effect = make_effect()
    chosen, nothing = make_set(effect, 1), np.zeros((LAYERS, NEURONS), np.bool_)
    first = matched_controls(chosen, effect, nothing, 20, 7)
    again = matched_controls(chosen, effect, nothing, 20, 7)
    assert len({one.pairs for one in first}) == 20
    assert [one.pairs for one in first] == [one.pairs for one in again]
    assert [one.set_id for one in first[:2]] == ["set|control-0", "set|control-1"]
    assert [one.control_draw for one in first] == list(range(20))
    assert [one.pairs for one in matched_controls(chosen, effect, nothing, 20, 8)] != [one.pairs for one in first]


def test_equal_rates_are_drawn_from_evenly() -> None:
    effect = make_effect()
    effect["base_rate"][:] = 0.0
    chosen = make_set(effect, 1)
    drawn = {one.neuron[0] for one in matched_controls(chosen, effect, np.zeros((LAYERS, NEURONS), np.bool_), 60, 1)}
    assert max(drawn) > 150
    assert min(drawn) < 50


def test_no_controls_were_asked_for() -> None:
    effect = make_effect()
    assert matched_controls(make_set(effect), effect, np.zeros((LAYERS, NEURONS), np.bool_), 0, 1) == []


def test_a_layer_without_candidates_is_named() -> None:
    effect = make_effect()
    chosen = make_set(effect)
    excluded = np.zeros((LAYERS, NEURONS), np.bool_)
    excluded[1] = True
    with pytest.raises(SelectionError, match="layer 1 has 0 neurons outside every set"):
        matched_controls(chosen, effect, excluded, 1, 1)


def test_more_draws_than_there_are_sets_is_refused() -> None:
    effect = make_effect()
    chosen = make_set(effect, 1)
    excluded = np.ones((LAYERS, NEURONS), np.bool_)
    excluded[chosen.layer[0], [5, 6]] = False
    with pytest.raises(SelectionError, match=r"only [12] different matched controls were found, 5 were asked for"):
        matched_controls(chosen, effect, excluded, 5, 1)

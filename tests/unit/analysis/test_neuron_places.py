"""In a model that lacks layers, or has narrower ones, nothing is selected where there is no neuron."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from analysis.contrasts.counts import counts_of
from analysis.contrasts.neurons import neurons_of, on_neurons
from analysis.contrasts.probability import probability_difference
from analysis.neurons.controls import matched_controls
from analysis.neurons.neuron_set import mask_of
from analysis.neurons.probability import select_probability

GROUPS = ["b.en/V/support", "b.en/V/conflict"]
WIDTHS = {1: 40, 3: 25}
# layers 0 and 2 hold routed experts alone; layer 3 is narrower


@pytest.fixture
def merged() -> xr.Dataset:
    rng = np.random.default_rng(4)
    on = rng.integers(0, 100, (2, 2, 40))
    mean = rng.normal(size=(2, 2, 40))
    on[:, 1, 25:], mean[:, 1, 25:] = 0, np.nan
    axes = ("group", "layer", "neuron")
    return xr.Dataset(
        {
            "positive_count": (axes, on),
            "mean": (axes, mean),
            "token_count": ("group", [100, 100]),
            "question_count": ("group", [9, 9]),
        },
        coords={"group": GROUPS, "layer": list(WIDTHS), "neuron": np.arange(40)},
    )


def test_sets_and_controls_have_the_layers_own_numbers(merged: xr.Dataset):
    effect = on_neurons(probability_difference(counts_of(merged), *GROUPS), neurons_of(merged))
    chosen = select_probability(effect, "s", GROUPS[0], 20, None)
    controls = matched_controls(chosen, effect, mask_of([chosen], effect["delta"].shape), 3, 0)
    delta = effect["delta"].to_numpy()
    for one in (chosen, *controls):
        assert all(neuron < WIDTHS[layer] for layer, neuron in one.pairs)
        np.testing.assert_array_equal(one.delta, delta[one.layer, one.neuron])
    on = merged["positive_count"].sel(group=GROUPS[0]).to_numpy() - merged["positive_count"].sel(group=GROUPS[1])
    largest = np.sort(np.concatenate([on[0], on[1, :25]]))[::-1][:20] / 100
    np.testing.assert_allclose(np.sort(chosen.delta)[::-1], largest)


def test_every_place_is_a_neuron_where_nothing_was_counted(merged: xr.Dataset):
    merged["token_count"][:] = 0
    merged["mean"][:] = np.nan
    assert neurons_of(merged).all()


def test_a_dense_model_keeps_its_table(merged: xr.Dataset):
    dense = merged.isel(layer=[0]).assign_coords(layer=[0])
    effect = probability_difference(counts_of(dense), *GROUPS)
    xr.testing.assert_identical(on_neurons(effect, neurons_of(dense)), effect)

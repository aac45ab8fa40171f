"""Which places of a (layer, neuron) table are neurons: layers may be absent, and of different width."""

from __future__ import annotations

import numpy as np
import xarray as xr


def neurons_of(merged: xr.Dataset) -> xr.DataArray:
    """True where the model has a probed neuron, over (layer, neuron); all True where no group has a token.

    A merged view has NaN for the mean of what is no neuron, and of a group without tokens.
    """
    counted = np.flatnonzero(merged["token_count"].to_numpy() > 0)
    if not counted.size:
        return xr.ones_like(merged["mean"].isel(group=0, drop=True), bool)
    return merged["mean"].isel(group=int(counted[0]), drop=True).notnull()


def on_neurons(effect: xr.Dataset, is_neuron: xr.DataArray) -> xr.Dataset:
    """The effect with NaN for what is no neuron, and a row for every layer from 0: row and number of a layer agree."""
    layers = np.arange(int(effect["layer"].max()) + 1)
    whole: xr.Dataset = effect.where(is_neuron).reindex(layer=layers)
    return whole

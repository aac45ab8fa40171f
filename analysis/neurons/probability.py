"""ValueLocate's rule: the top k by probability difference, then on while it reaches a threshold."""

from __future__ import annotations

import numpy as np
import xarray as xr

from analysis.neurons.neuron_set import NeuronSet
from harvest.errors import SelectionError


def select_probability(effect: xr.Dataset, set_id: str, group: str, top_k: int, threshold: float | None) -> NeuronSet:
    """The `top_k` neurons of largest delta, and every further one with delta >= threshold (None: no further one).

    `effect` is what `probability_difference` returns, over all layers and neurons of the model. Ties go to the lowest
    flat index layer * F + neuron. Raises SelectionError if the model has fewer neurons, a group has no token, or
    nothing is selected. Source: arXiv 2505.17712.
    """
    delta = effect["delta"].to_numpy().ravel()
    known = np.flatnonzero(~np.isnan(delta))
    if known.size == 0:
        raise SelectionError(f"select: {group} or its opposing group has no counted token; capture questions of both")
    if not 0 <= top_k <= known.size:
        raise SelectionError(
            f"select: top_k is {top_k} and the model has {known.size} neurons; choose 0 to {known.size}"
        )

    reached = 0 if threshold is None else int(np.count_nonzero(delta[known] >= threshold))
    chosen = known[np.argsort(-delta[known], kind="stable")[: max(top_k, reached)]]
    if chosen.size == 0:
        raise SelectionError(f"select: top_k is 0 and no neuron of {group} reaches threshold {threshold}; lower it")
    layer, neuron = np.unravel_index(chosen, effect["delta"].shape)
    return NeuronSet(
        set_id=set_id,
        group=group,
        method="probability",
        layer=layer.astype(np.int32),
        neuron=neuron.astype(np.int32),
        score=delta[chosen],
        delta=delta[chosen],
        rate=effect["rate"].to_numpy().ravel()[chosen],
        columns={name: effect[name].to_numpy().ravel()[chosen] for name in ("rate_opposite", "base_rate")},
    )

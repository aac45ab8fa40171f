"""Matched random controls: as many neurons in each layer, about as often on, and otherwise any.

For each neuron of the set one is drawn, evenly, from the `pool` still free neurons of its layer whose base rate
(tokens on / tokens, both aspects pooled) is nearest to its own. A draw never takes a neuron twice; draws differ.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis.neurons.neuron_set import NeuronSet
from analysis.seeds import generator
from harvest.errors import SelectionError

SMALLEST_POOL = 10
MAX_REDRAWS = 1000
# a set of one neuron and `draws` candidates repeats often; more than this means that there are no further sets


def matched_controls(
    chosen: NeuronSet, effect: xr.Dataset, excluded_LF: NDArray[np.bool_], draws: int, seed: int
) -> list[NeuronSet]:
    """`draws` different controls for a set; row i of each is matched to row i of the set.

    `effect` gives `base_rate`, `delta`, `rate` over (layer, neuron); `excluded_LF` marks neurons that no control may
    have (the set's own never are). Column `rate_gap` is the distance in base rate to the neuron it is matched to.
    Raises SelectionError if a layer has too few candidates, or there are not that many different controls.
    """
    base_rate_LF = effect["base_rate"].to_numpy()
    free_LF = ~excluded_LF & ~np.isnan(base_rate_LF)
    free_LF[chosen.layer, chosen.neuron] = False
    _require_candidates(chosen, free_LF)

    rng = generator(seed, chosen.set_id)
    pool = max(SMALLEST_POOL, draws)
    found: dict[bytes, NDArray[np.int32]] = {}
    for _ in range(draws + MAX_REDRAWS):
        if len(found) == draws:
            break
        neuron = _draw(chosen, base_rate_LF, free_LF, pool, rng)
        found.setdefault(np.sort(chosen.layer.astype(np.int64) << 32 | neuron).tobytes(), neuron)
    if len(found) < draws:
        raise SelectionError(
            f"{chosen.set_id}: only {len(found)} different matched controls were found, {draws} were asked for; "
            "lower `controls`, or select fewer neurons"
        )
    return [_control(chosen, effect, neuron, draw) for draw, neuron in enumerate(found.values())]


def _require_candidates(chosen: NeuronSet, free_LF: NDArray[np.bool_]) -> None:
    needed_L = np.bincount(chosen.layer, minlength=len(free_LF))
    free_L = free_LF.sum(axis=1)
    for layer in np.flatnonzero(needed_L > free_L):
        raise SelectionError(
            f"{chosen.set_id}: layer {layer} has {free_L[layer]} neurons outside every set and a matched control needs "
            f"{needed_L[layer]}; lower `top_k`, raise `threshold`, or set `controls: 0`"
        )


def _draw(
    chosen: NeuronSet,
    base_rate_LF: NDArray[np.float64],
    free_LF: NDArray[np.bool_],
    pool: int,
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """One control's neurons, shape (neurons,)."""
    neuron = np.empty(len(chosen), np.int32)
    for layer in np.unique(chosen.layer):
        rows = np.flatnonzero(chosen.layer == layer)
        wanted = base_rate_LF[layer, chosen.neuron[rows]]
        neuron[rows] = _match(wanted, np.flatnonzero(free_LF[layer]), base_rate_LF[layer], pool, rng)
    return neuron


def _match(
    wanted: NDArray[np.float64],
    free: NDArray[np.intp],
    base_rate_F: NDArray[np.float64],
    pool: int,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """A different one of `free` for every wanted rate, shape of `wanted`."""
    # shuffled first: among equal rates (many are 0) the stable sort must not favour low indices
    free = rng.permutation(free)
    free = free[np.argsort(base_rate_F[free], kind="stable")]
    rates = base_rate_F[free]
    picks = np.empty(len(wanted), np.intp)
    for row in rng.permutation(len(wanted)):
        at = int(np.searchsorted(rates, wanted[row]))
        window = np.arange(max(0, at - pool), min(len(rates), at + pool))
        nearest = window[np.argsort(np.abs(rates[window] - wanted[row]), kind="stable")[:pool]]
        taken = nearest[rng.integers(len(nearest))]
        picks[row] = free[taken]
        free, rates = np.delete(free, taken), np.delete(rates, taken)
    return picks


def _control(chosen: NeuronSet, effect: xr.Dataset, neuron: NDArray[np.int32], draw: int) -> NeuronSet:
    base_rate_LF = effect["base_rate"].to_numpy()
    base_rate = base_rate_LF[chosen.layer, neuron]
    delta = effect["delta"].to_numpy()[chosen.layer, neuron]
    return NeuronSet(
        set_id=f"{chosen.set_id}|control-{draw}",
        group=chosen.group,
        method="control",
        layer=chosen.layer,
        neuron=neuron,
        score=delta,
        delta=delta,
        rate=effect["rate"].to_numpy()[chosen.layer, neuron],
        control_draw=draw,
        control_of=chosen.set_id,
        columns={"base_rate": base_rate, "rate_gap": np.abs(base_rate - base_rate_LF[chosen.layer, chosen.neuron])},
    )

"""Activation-probability difference, ValueLocate's contrast (arXiv 2505.17712)."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis.contrasts.counts import counts_of_group


def probability_difference(counts: xr.Dataset, group: str, opposite: str) -> xr.Dataset:
    """How much more often each neuron is on under `group` than under `opposite`; variables over (layer, neuron).

    `rate` = tokens on / tokens, `rate_opposite` the same of `opposite`, `delta` their difference, `base_rate` the
    rate over the tokens of both. NaN where a group has no token. Raises SelectionError if a group is unknown.
    """
    on_LF, tokens = counts_of_group(counts, group)
    opposite_on_LF, opposite_tokens = counts_of_group(counts, opposite)
    rate_LF, opposite_rate_LF = _rate(on_LF, tokens), _rate(opposite_on_LF, opposite_tokens)
    axes = ("layer", "neuron")
    return xr.Dataset(
        {
            "delta": (axes, rate_LF - opposite_rate_LF),
            "rate": (axes, rate_LF),
            "rate_opposite": (axes, opposite_rate_LF),
            "base_rate": (axes, _rate(on_LF + opposite_on_LF, tokens + opposite_tokens)),
        },
        coords={axis: counts[axis].to_numpy() for axis in axes},
        attrs={"group": group, "opposite": opposite, "num_tokens": tokens, "num_tokens_opposite": opposite_tokens},
    )


def _rate(on_LF: NDArray[np.int64], tokens: int) -> NDArray[np.float64]:
    return on_LF / tokens if tokens else np.full(on_LF.shape, np.nan)

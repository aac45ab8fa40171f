"""Every contrast by the name of the `select` method that uses it."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from analysis.contrasts.probability import probability_difference
from harvest.errors import SelectionError

Contrast = Callable[[xr.Dataset, str, str], xr.Dataset]
# (counts, group, opposing group) -> variables over (layer, neuron)

CONTRASTS: dict[str, Contrast] = {"probability": probability_difference}


def contrast_named(method: str) -> Contrast:
    """The contrast behind a method; raises SelectionError, with the known ones, if there is none."""
    if method not in CONTRASTS:
        raise SelectionError(f"select: no method {method!r}; the known ones are {', '.join(sorted(CONTRASTS))}")
    return CONTRASTS[method]

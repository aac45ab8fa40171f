"""Histograms of the activation of given neurons: what is counted, and the quantiles that the counts know.

Axes: N neurons (sites), E edges, B = E + 1 bins: (-inf, e0], (e0, e1], …, (e_last, inf).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True, eq=False)
class HistogramPlan:
    """The neurons whose activations are counted, and the bins they are counted in."""

    edges: NDArray[np.float32]
    # strictly ascending, shape (E,), two or more; the activation is compared with them as float32
    layer: NDArray[np.int32]
    # the layers' global numbers, shape (N,)
    neuron: NDArray[np.int32]
    # shape (N,); sorted by (layer, neuron), none twice

    @property
    def num_bins(self) -> int:
        return len(self.edges) + 1


def histogram_plan(edges: NDArray[np.float32], layer: ArrayLike, neuron: ArrayLike) -> HistogramPlan:
    """The plan over every (layer, neuron) that is named, each once, whatever their order."""
    pairs = np.stack([np.asarray(layer, np.int32), np.asarray(neuron, np.int32)], axis=1)
    sites_N2 = np.unique(pairs, axis=0)
    return HistogramPlan(edges, sites_N2[:, 0].copy(), sites_N2[:, 1].copy())


def even_edges(start: float, stop: float, num: int) -> NDArray[np.float32]:
    """`num` edges from `start` to `stop`, both included, evenly spaced.

    Raises ValueError unless they are finite and ascend in float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        edges_E = np.linspace(start, stop, num).astype(np.float32)
    if not (np.isfinite(edges_E).all() and (np.diff(edges_E) > 0).all()):
        raise ValueError(f"{num} edges from {start} to {stop} do not ascend in float32")
    return edges_E


def quantiles_of(counts_NB: NDArray[np.int64], edges_E: NDArray[np.float32], q: Sequence[float]) -> NDArray[np.float64]:
    """The q-th quantiles of each neuron's tokens, shape (N, len(q)), by linear interpolation inside a bin.

    The q-th quantile is the least value that at least a share q of the tokens do not exceed; the result lies in its
    bin. NaN where that bin is open (the first or the last), and where there is no token. Raises ValueError unless
    0 < q <= 1.
    """
    for each in q:
        if not 0 < each <= 1:
            raise ValueError(f"quantile {each}: choose more than 0 and at most 1")
    upto_NB = counts_NB.cumsum(axis=1)
    wanted_NK = _tokens_wanted(upto_NB[:, -1:], np.asarray(q, np.float64))
    bin_NK = (upto_NB[:, None] < wanted_NK[:, :, None]).sum(axis=2)
    # open bins have no width; where there is no token nothing is wanted, and the first bin, open, has it
    inside_NK = (bin_NK > 0) & (bin_NK < len(edges_E))
    at_NK = np.where(inside_NK, bin_NK, 1)
    in_bin_NK = np.take_along_axis(counts_NB, at_NK, axis=1)
    below_NK = np.take_along_axis(upto_NB, at_NK, axis=1) - in_bin_NK
    low_NK, high_NK = edges_E[at_NK - 1].astype(np.float64), edges_E[at_NK].astype(np.float64)
    share_NK = (wanted_NK - below_NK) / np.maximum(in_bin_NK, 1)
    return np.where(inside_NK, low_NK + share_NK * (high_NK - low_NK), np.nan)


def _tokens_wanted(total_N1: NDArray[np.int64], q_K: NDArray[np.float64]) -> NDArray[np.float64]:
    """q · total; 0.07 · 100 is made the 7 that it would be if 0.07 were a binary number."""
    wanted_NK = q_K * total_N1
    whole_NK = np.rint(wanted_NK)
    return np.where(np.abs(wanted_NK - whole_NK) <= 1e-14 * whole_NK, whole_NK, wanted_NK)

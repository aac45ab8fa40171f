"""A unit's statistics, folded from its requests' rows in the order of its questions.

The fold is the closed form of Chan's pairwise merge over all rows at once; it is exact in the counts, and its
only rounding is fp64's. Axes: Q requests, L layers, F neurons of the widest layer; what a narrower layer lacks stays
NaN, and 0 in counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from harvest.stats.rows import RequestRows

Array = NDArray[np.generic]
Which = slice | NDArray[np.intp]
# the requests that count

_CACHED = 1 << 18
# numbers of float64 that are computed at once: two megabytes


@dataclass(frozen=True, slots=True)
class UnitMoments:
    """Moments over tokens and over questions, arrays of shape (layer, neuron); NaN where there is no token."""

    token_count: int
    question_count: int
    # questions with at least one counted token
    variables: Mapping[str, Array]
    # mean, m2, min, max, positive_count; question_mean, question_m2; question_rate_mean, question_rate_m2


_FLOATS = ("mean", "m2", "min", "max", "question_mean", "question_m2", "question_rate_mean", "question_rate_m2")


def fold_unit(rows: RequestRows) -> UnitMoments:
    """The moments of a unit; requests without tokens count in neither tokens nor questions.

    Some neurons of a layer at a time: a unit of a large model is gigabytes, and what is computed on the way must stay
    in a core's cache. Each neuron is summed by itself, so no bit depends on how many.
    Source: Chan, Golub, LeVeque 1983.
    """
    answered_Q = np.flatnonzero(rows.num_tokens_Q > 0)
    num_layers, num_neurons = shape = rows.mean_QLF.shape[1:]
    variables: dict[str, Array] = {name: np.full(shape, np.nan) for name in _FLOATS}
    variables["positive_count"] = np.zeros(shape, np.int64)
    tokens_Q = rows.num_tokens_Q[answered_Q]
    if len(answered_Q):
        # a slice copies nothing
        which: Which = slice(None) if len(answered_Q) == len(rows.num_tokens_Q) else answered_Q
        weight_Q1 = tokens_Q.astype(np.float64)[:, None]
        # a single column would be summed pairwise, and not in the order of its questions
        width = max(2, _CACHED // len(answered_Q))
        bounds = [*range(0, max(1, num_neurons - 1), width), num_neurons]
        for layer in range(num_layers):
            for start, stop in pairwise(bounds):
                here = slice(start, stop)
                for name, values_F in _fold(rows, which, weight_Q1, layer, here).items():
                    variables[name][layer, here] = values_F
    return UnitMoments(int(tokens_Q.sum()), len(answered_Q), variables)


def _fold(
    rows: RequestRows, which: Which, weight_Q1: NDArray[np.float64], layer: int, neurons: slice
) -> dict[str, Array]:
    mean_QF, m2_QF, min_QF, max_QF, positive_QF = (
        getattr(rows, f"{name}_QLF")[which, layer, neurons] for name in ("mean", "m2", "min", "max", "positive")
    )
    scratch_QF = weight_Q1 * mean_QF
    mean_F = scratch_QF.sum(axis=0) / weight_Q1.sum()
    _square_of_difference(mean_QF, mean_F, scratch_QF)
    np.multiply(weight_Q1, scratch_QF, out=scratch_QF)
    np.add(m2_QF, scratch_QF, out=scratch_QF)
    m2_F = scratch_QF.sum(axis=0)
    question_mean_F, question_m2_F = _spread(mean_QF, scratch_QF)
    rate_QF = np.divide(positive_QF, weight_Q1)
    if np.isnan(mean_F).any():
        # what is no neuron has no rate
        rate_QF[np.isnan(mean_QF)] = np.nan
    rate_mean_F, rate_m2_F = _spread(rate_QF, scratch_QF)
    return {
        "mean": mean_F,
        "m2": m2_F,
        "min": min_QF.min(axis=0),
        "max": max_QF.max(axis=0),
        "positive_count": positive_QF.sum(axis=0),
        "question_mean": question_mean_F,
        "question_m2": question_m2_F,
        "question_rate_mean": rate_mean_F,
        "question_rate_m2": rate_m2_F,
    }


def _spread(
    values_QF: NDArray[np.float64], scratch_QF: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sum of squared deviations over the first axis, by two passes; `scratch_QF` is overwritten."""
    mean_F = values_QF.mean(axis=0)
    _square_of_difference(values_QF, mean_F, scratch_QF)
    return mean_F, scratch_QF.sum(axis=0)


def _square_of_difference(
    values_QF: NDArray[np.float64], mean_F: NDArray[np.float64], out_QF: NDArray[np.float64]
) -> None:
    np.subtract(values_QF, mean_F, out=out_QF)
    np.square(out_QF, out=out_QF)

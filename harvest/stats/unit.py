"""A unit's statistics, folded from its requests' rows in the order of its questions.

The fold is the closed form of Chan's pairwise merge over all rows at once; it is exact in the counts, and its
only rounding is fp64's. Axes: Q requests, L layers, F neurons of the widest layer; what a narrower layer lacks stays
NaN, and 0 in counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harvest.stats.rows import RequestRows

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class UnitMoments:
    """Moments over tokens and over questions, arrays of shape (layer, neuron); NaN where there is no token."""

    token_count: int
    question_count: int
    # questions with at least one counted token
    variables: Mapping[str, Array]
    # mean, m2, min, max, positive_count; question_mean, question_m2; question_rate_mean, question_rate_m2


def _spread(values_QLF: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sum of squared deviations over the first axis, by two passes."""
    mean_LF = values_QLF.mean(axis=0)
    return mean_LF, np.square(values_QLF - mean_LF).sum(axis=0)


def fold_unit(rows: RequestRows) -> UnitMoments:
    """The moments of a unit; requests without tokens count in neither tokens nor questions.

    Source: Chan, Golub, LeVeque 1983.
    """
    answered_Q = rows.num_tokens_Q > 0
    shape = rows.mean_QLF.shape[1:]
    if not answered_Q.any():
        names = ("mean", "m2", "min", "max", "question_mean", "question_m2", "question_rate_mean", "question_rate_m2")
        empty: dict[str, Array] = {name: np.full(shape, np.nan) for name in names}
        return UnitMoments(0, 0, empty | {"positive_count": np.zeros(shape, np.int64)})
    tokens_Q = rows.num_tokens_Q[answered_Q]
    weight_Q = tokens_Q.astype(np.float64)[:, None, None]
    mean_QLF, positive_QLF = rows.mean_QLF[answered_Q], rows.positive_QLF[answered_Q]
    mean_LF = (weight_Q * mean_QLF).sum(axis=0) / weight_Q.sum()
    m2_LF = (rows.m2_QLF[answered_Q] + weight_Q * np.square(mean_QLF - mean_LF)).sum(axis=0)
    question_mean_LF, question_m2_LF = _spread(mean_QLF)
    # no neuron has no rate
    rate_mean_LF, rate_m2_LF = _spread(np.where(np.isnan(mean_QLF), np.nan, positive_QLF / weight_Q))
    variables: dict[str, Array] = {
        "mean": mean_LF,
        "m2": m2_LF,
        "min": rows.min_QLF[answered_Q].min(axis=0),
        "max": rows.max_QLF[answered_Q].max(axis=0),
        "positive_count": positive_QLF.sum(axis=0),
        "question_mean": question_mean_LF,
        "question_m2": question_m2_LF,
        "question_rate_mean": rate_mean_LF,
        "question_rate_m2": rate_m2_LF,
    }
    return UnitMoments(int(tokens_Q.sum()), int(answered_Q.sum()), variables)

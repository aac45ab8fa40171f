"""A unit's statistics, folded from its requests' rows in the order of its questions.

The fold is the closed form of Chan's pairwise merge over all rows at once; it is exact in the counts, and its
only rounding is fp64's. Axes: Q requests, L layers, F neurons of the widest layer; what a narrower layer lacks stays
NaN, and 0 in counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


_FLOATS = ("mean", "m2", "min", "max", "question_mean", "question_m2", "question_rate_mean", "question_rate_m2")


def fold_unit(rows: RequestRows) -> UnitMoments:
    """The moments of a unit; requests without tokens count in neither tokens nor questions.

    Layer by layer, because a unit of a large model is gigabytes. Source: Chan, Golub, LeVeque 1983.
    """
    answered_Q = np.flatnonzero(rows.num_tokens_Q > 0)
    shape = rows.mean_QLF.shape[1:]
    variables: dict[str, Array] = {name: np.full(shape, np.nan) for name in _FLOATS}
    variables["positive_count"] = np.zeros(shape, np.int64)
    tokens_Q = rows.num_tokens_Q[answered_Q]
    if len(answered_Q):
        for layer in range(shape[0]):
            for name, values_F in _fold_layer(rows, answered_Q, tokens_Q, layer).items():
                variables[name][layer] = values_F
    return UnitMoments(int(tokens_Q.sum()), len(answered_Q), variables)


def _fold_layer(
    rows: RequestRows, answered_Q: NDArray[np.intp], tokens_Q: NDArray[np.int64], layer: int
) -> dict[str, Array]:
    def of(values_QLF: NDArray[Any]) -> NDArray[Any]:
        values_QF: NDArray[Any] = values_QLF[answered_Q, layer]
        return values_QF

    weight_Q1 = tokens_Q.astype(np.float64)[:, None]
    mean_QF, positive_QF = of(rows.mean_QLF), of(rows.positive_QLF)
    mean_F = (weight_Q1 * mean_QF).sum(axis=0) / weight_Q1.sum()
    question_mean_F, question_m2_F = _spread(mean_QF)
    # what is no neuron has no rate
    rate_mean_F, rate_m2_F = _spread(np.where(np.isnan(mean_QF), np.nan, positive_QF / weight_Q1))
    return {
        "mean": mean_F,
        "m2": (of(rows.m2_QLF) + weight_Q1 * np.square(mean_QF - mean_F)).sum(axis=0),
        "min": of(rows.min_QLF).min(axis=0),
        "max": of(rows.max_QLF).max(axis=0),
        "positive_count": positive_QF.sum(axis=0),
        "question_mean": question_mean_F,
        "question_m2": question_m2_F,
        "question_rate_mean": rate_mean_F,
        "question_rate_m2": rate_m2_F,
    }


def _spread(values_QF: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sum of squared deviations over the first axis, by two passes."""
    mean_F = values_QF.mean(axis=0)
    return mean_F, np.square(values_QF - mean_F).sum(axis=0)

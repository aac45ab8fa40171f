"""What one request leaves behind: a row of moments per neuron.

Axes: Q requests of a unit, L layers, F neurons of the widest layer. Where a layer has fewer, the rest of its row is
no neuron: NaN, and 0 in counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RequestRows:
    """Moments of the activation over each request's counted tokens; NaN where a request has none."""

    num_tokens_Q: NDArray[np.int64]
    mean_QLF: NDArray[np.float64]
    m2_QLF: NDArray[np.float64]
    # sum of squared deviations from the mean
    min_QLF: NDArray[np.float32]
    max_QLF: NDArray[np.float32]
    positive_QLF: NDArray[np.int32]
    # tokens on which the activation is > 0
    argmax_QLF: NDArray[np.int32]
    # which counted token, from 0, was the first to reach the maximum; -1 where a request has none


def concatenate_neurons(slices: list[RequestRows]) -> RequestRows:
    """Tensor-parallel slices of the same requests, in rank order, joined along the neuron axis."""
    first = slices[0]
    if len(slices) == 1:
        return first
    for other in slices[1:]:
        if not np.array_equal(first.num_tokens_Q, other.num_tokens_Q):
            raise ValueError("ranks counted different numbers of tokens")
    names = ("mean_QLF", "m2_QLF", "min_QLF", "max_QLF", "positive_QLF", "argmax_QLF")
    return RequestRows(
        first.num_tokens_Q, *(np.concatenate([getattr(part, name) for part in slices], axis=2) for name in names)
    )


def largest(values_QF: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The rows of the k largest values of each column, largest first, shape (k, F); -1 where there are fewer.

    NaN is no value; of equal values the first row comes first.
    """
    order_QF = np.argsort(-values_QF, axis=0, kind="stable")[:k]
    # NaN is sorted to the end
    found_KF = np.where(np.isnan(np.take_along_axis(values_QF, order_QF, axis=0)), -1, order_QF)
    missing = k - len(found_KF)
    return np.concatenate([found_KF, np.full((missing, values_QF.shape[1]), -1, np.int64)])

"""What one request leaves behind: a row of moments per neuron.

Axes: Q requests of a unit, L layers, F neurons of a layer.
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
    argmax_QLF: NDArray[np.int32] | None = None
    # which counted token, from 0, was the first to reach the maximum; -1 where a request has none


def concatenate_neurons(slices: list[RequestRows]) -> RequestRows:
    """Tensor-parallel slices of the same requests, in rank order, joined along the neuron axis."""
    first = slices[0]
    if len(slices) == 1:
        return first
    for other in slices[1:]:
        if not np.array_equal(first.num_tokens_Q, other.num_tokens_Q):
            raise ValueError("ranks counted different numbers of tokens")
    return RequestRows(
        first.num_tokens_Q,
        *(
            np.concatenate([getattr(part, name) for part in slices], axis=2)
            for name in ("mean_QLF", "m2_QLF", "min_QLF", "max_QLF", "positive_QLF", "argmax_QLF")
        ),
    )

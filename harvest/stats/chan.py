"""Chan's formula: the moments of two sets together from the moments of each. Pure NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64s = NDArray[np.float64]


def chan(  # noqa: PLR0917  (three numbers of one set, then the same three of the other)
    count_a: ArrayLike, mean_a: ArrayLike, m2_a: ArrayLike, count_b: ArrayLike, mean_b: ArrayLike, m2_b: ArrayLike
) -> tuple[NDArray[np.int64], Float64s, Float64s]:
    """Count, mean and m2 = Σ(x − mean)² of two disjoint sets together, in float64, over any shapes that broadcast.

    Where one set is empty the other's numbers come back bit for bit, whatever stands for the empty one's mean and m2
    (NaN too); where both are empty: 0, 0 and 0. Source: Chan, Golub, LeVeque 1979.
    """
    num_a, num_b = np.asarray(count_a, np.int64), np.asarray(count_b, np.int64)
    count = num_a + num_b
    mean_a, m2_a = _unless_empty(num_a, mean_a), _unless_empty(num_a, m2_a)
    mean_b, m2_b = _unless_empty(num_b, mean_b), _unless_empty(num_b, m2_b)
    delta = mean_b - mean_a
    share_b = num_b / np.maximum(count, 1)
    mean = np.where(num_b == 0, mean_a, np.where(num_a == 0, mean_b, mean_a + delta * share_b))
    # num_a · share_b, not num_a · num_b / count: the product of two counts can overflow
    return count, mean, m2_a + m2_b + delta * delta * (num_a * share_b)


def _unless_empty(count: NDArray[np.int64], values: ArrayLike) -> Float64s:
    return np.where(count > 0, np.asarray(values, np.float64), 0.0)

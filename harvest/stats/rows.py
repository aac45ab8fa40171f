"""What one request leaves behind: a row of moments per neuron.

Axes: Q requests of a unit, L layers, F neurons of the widest layer. Where a layer has fewer, the rest of its row is
no neuron: NaN, and 0 in counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

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

    def of(self, requests: slice) -> RequestRows:
        """The rows of some of the requests."""
        return RequestRows(*(getattr(self, field.name)[requests] for field in fields(self)))


Layout = Sequence[tuple[int, int, int]]
# of each layer on one rank's L axis: its number, the rank's first neuron of it, the rank's number of neurons

_ABSENT = {"positive_QLF": 0, "argmax_QLF": -1}
# what stands where a layer has no such neuron; the other variables have NaN there


def assemble(parts: Sequence[RequestRows], layouts: Sequence[Layout]) -> RequestRows:
    """The whole model's rows, layers ascending and neurons in place, from the ranks' parts in the order of `layouts`.

    As wide as the widest layer; beyond a narrower layer's neurons there is NaN and counts are 0.
    Raises ValueError, naming rank and layer, if ranks counted different numbers of tokens, or if they do not hold
    every neuron of a layer exactly once.
    """
    _check_tokens(parts, layouts)
    widths = _widths(layouts)
    first = parts[0]
    widest = max(widths.values())
    if len(parts) == 1 and list(layouts[0]) == [(layer, 0, widest) for layer in widths]:
        # nothing to move: a unit of a large model is a gigabyte
        return first
    place = {layer: at for at, layer in enumerate(widths)}
    shape = len(first.num_tokens_Q), len(widths), widest

    def whole(name: str) -> Any:
        values_QLF = np.full(shape, _ABSENT.get(name, np.nan), getattr(first, name).dtype)
        for part, layout in zip(parts, layouts, strict=True):
            for at, (layer, start, count) in enumerate(layout):
                values_QLF[:, place[layer], start : start + count] = getattr(part, name)[:, at, :count]
        return values_QLF

    return RequestRows(
        **{
            field.name: whole(field.name) if field.name.endswith("_QLF") else getattr(first, field.name)
            for field in fields(RequestRows)
        }
    )


def _check_tokens(parts: Sequence[RequestRows], layouts: Sequence[Layout]) -> None:
    """All ranks saw the same tokens: those of a tensor-parallel group, and those of each pipeline stage."""
    for rank, (part, layout) in enumerate(zip(parts, layouts, strict=True)):
        differs_Q = part.num_tokens_Q != parts[0].num_tokens_Q
        if differs_Q.any():
            at = int(np.flatnonzero(differs_Q)[0])
            raise ValueError(
                f"rank {rank}, layer {layout[0][0]}, request {at}: {part.num_tokens_Q[at]} tokens counted, but "
                f"{parts[0].num_tokens_Q[at]} on rank 0, layer {layouts[0][0][0]}"
            )


def _widths(layouts: Sequence[Layout]) -> dict[int, int]:
    """The number of neurons of each layer, layers ascending; every neuron is held by exactly one rank."""
    widths: dict[int, int] = {}
    for layer, start, count, rank in sorted((*held, rank) for rank, layout in enumerate(layouts) for held in layout):
        if start != widths.get(layer, 0):
            raise ValueError(
                f"rank {rank}, layer {layer}: its neurons start at {start}, those of the other ranks end at "
                f"{widths.get(layer, 0)}"
            )
        widths[layer] = start + count
    return widths


def largest(values_QF: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The rows of the k largest values of each column, largest first, shape (k, F); -1 where there are fewer.

    NaN is no value; of equal values the first row comes first.
    """
    order_QF = np.argsort(-values_QF, axis=0, kind="stable")[:k]
    # NaN is sorted to the end
    found_KF = np.where(np.isnan(np.take_along_axis(values_QF, order_QF, axis=0)), -1, order_QF)
    missing = k - len(found_KF)
    return np.concatenate([found_KF, np.full((missing, values_QF.shape[1]), -1, np.int64)])

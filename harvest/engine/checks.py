"""The invariants of a captured unit: every planned token counted, in every layer of every rank, all of them finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harvest.errors import CaptureError
from harvest.stats.rows import Layout, RequestRows


def check_counts(planned: Sequence[int], counts: Sequence[NDArray[np.int64]], layouts: Sequence[Layout]) -> None:
    """Raises CaptureError unless each rank's counts (layer, request) are the planned ones."""
    for rank, count_LQ in enumerate(counts):
        wrong = np.argwhere(count_LQ != np.asarray(planned, np.int64))
        if len(wrong):
            index, request = wrong[0]
            raise CaptureError(
                f"rank {rank}, layer {layouts[rank][index][0]}, text {request} of {len(planned)}: "
                f"{count_LQ[index, request]} tokens counted of {planned[request]} planned; nothing of this unit was "
                "kept, report it as a bug"
            )


def still_layers(rows: RequestRows, widths: Mapping[int, int]) -> list[int]:
    """The layers in which no neuron of any request moved; `widths` are the layers' neurons."""
    return [
        layer
        for index, layer in enumerate(sorted(widths))
        if (rows.max_QLF[:, index, : widths[layer]] == rows.min_QLF[:, index, : widths[layer]]).all()
    ]


def check_finite(rows: RequestRows, widths: Mapping[int, int]) -> None:
    """Raises CaptureError, naming the layer, if a counted activation was NaN or Inf; `widths` are the layers' neurons.

    Either makes the mean of what it stands among NaN or Inf.
    """
    counted_Q = np.flatnonzero(rows.num_tokens_Q > 0)
    for index, layer in enumerate(sorted(widths)):
        mean_QF, m2_QF = (values[counted_Q, index, : widths[layer]] for values in (rows.mean_QLF, rows.m2_QLF))
        finite_Q = (np.isfinite(mean_QF) & np.isfinite(m2_QF)).all(axis=1)
        if not finite_Q.all():
            raise CaptureError(
                f"layer {layer}: a NaN or Inf among the activations of text {counted_Q[~finite_Q][0]}; "
                "run the model in float32 or bfloat16, or check its weights"
            )

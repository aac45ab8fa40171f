"""The rows that requests leave in their slots, as NumPy arrays on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from harvest.probe.router import Journey
from harvest.probe.state import Probe, Segment, SlotStatistics
from harvest.stats.rows import RequestRows


def settle(probe: Probe, journeys: Sequence[Journey | None], planned: Sequence[int]) -> None:
    """Fold what the requests' slots hold back, but for the tokens that a request counted beyond its planned ones.

    Those were forwarded after the answer had ended; where more of them were folded than are held back, the count stays
    too high and shows it.
    """
    held = []
    for journey, wanted in zip(journeys, planned, strict=True):
        if journey is None or not journey.held:
            continue
        surplus = min(max(0, journey.counted - wanted), journey.held)
        if surplus:
            probe.statistics.count_LS[:, journey.slot] -= surplus
        if journey.held > surplus:
            before = journey.counted - journey.held
            held.append(Segment(0, journey.held - surplus, journey.slot, 0, before))
    for index, layer in enumerate(probe.layers):
        probe.folder.fold_held(layer, index, probe, held)


def rows_of(statistics: SlotStatistics, slots_Q: Tensor) -> tuple[Tensor, RequestRows]:
    """Counted tokens (layer, request), and the rows; a slot without tokens, as the sink, gives NaN and counts of 0."""
    count_LQ = statistics.count_LS[:, slots_Q].cpu()
    none_Q11 = (count_LQ[0] == 0)[:, None, None]

    def per_request(values_LSF: Tensor) -> Tensor:
        return values_LSF.transpose(0, 1).index_select(0, slots_Q).cpu()

    def missing_is_nan(values_LSF: Tensor) -> np.ndarray:
        return np.asarray(per_request(values_LSF).masked_fill_(none_Q11, torch.nan).numpy())

    rows = RequestRows(
        num_tokens_Q=count_LQ[0].numpy(),
        mean_QLF=missing_is_nan(statistics.mean_LSF),
        m2_QLF=missing_is_nan(statistics.m2_LSF),
        min_QLF=missing_is_nan(statistics.min_LSF),
        max_QLF=missing_is_nan(statistics.max_LSF),
        positive_QLF=per_request(statistics.positive_LSF).numpy(),
        argmax_QLF=per_request(statistics.peak_LSF).numpy(),
    )
    return count_LQ, rows

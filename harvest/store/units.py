"""What a unit of each kind holds, made of what an engine measured: arrays as the schema has them, and attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harvest.errors import CaptureError
from harvest.stats.histogram import HistogramPlan
from harvest.stats.rows import RequestRows
from harvest.stats.unit import fold_unit
from harvest.store.arrays import Dimensioned
from harvest.store.schema import HISTOGRAM, MAXIMA, MOMENTS, NO_TOKEN, ROWS, Variable

Content = tuple[dict[str, Dimensioned], dict[str, object]]
# arrays and attributes, as write_group takes them


@dataclass(frozen=True, slots=True)
class Labels:
    """Whose statistics a unit holds."""

    group: str
    question_ids: tuple[str, ...]
    description_ids: tuple[str, ...]
    layers: tuple[int, ...]
    # global numbers of the layers on the layer axis


def moments_unit(labels: Labels, rows: RequestRows) -> Content:
    moments = fold_unit(rows)
    counts = {"token_count": moments.token_count, "question_count": moments.question_count}
    return _as_stored(MOMENTS, moments.variables), {"group": labels.group, "layer": list(labels.layers), **counts}


def rows_unit(labels: Labels, rows: RequestRows) -> Content:
    """Raises CaptureError for an answer too long for a row's counts."""
    values: dict[str, NDArray[Any]] = {"row_mean": rows.mean_QLF, "row_positive_count": rows.positive_QLF}
    return _as_stored(ROWS, values), _by_question(labels, rows, "rows: none")


def maxima_unit(labels: Labels, rows: RequestRows) -> Content:
    """Raises CaptureError for an answer too long for a row's position."""
    position_QLF = np.where(np.isnan(rows.max_QLF), NO_TOKEN, rows.argmax_QLF)
    values = {"row_max": rows.max_QLF, "row_argmax": position_QLF}
    return _as_stored(MAXIMA, values), _by_question(labels, rows, "maxima: false")


def _by_question(labels: Labels, rows: RequestRows, without: str) -> dict[str, object]:
    """The attributes of a unit that has an entry for each question; `without` is the setting that leaves it out."""
    if rows.num_tokens_Q.max(initial=0) > NO_TOKEN:
        raise CaptureError(
            f"{labels.group}: an answer has more than {NO_TOKEN} counted tokens; "
            f"lower respond.max_tokens or set capture.{without}"
        )
    return {
        "group": labels.group,
        "layer": list(labels.layers),
        "question_id": list(labels.question_ids),
        "description_id": list(labels.description_ids),
        "num_tokens": rows.num_tokens_Q.tolist(),
    }


def histogram_unit(group: str, plan: HistogramPlan, counts_NB: NDArray[np.int64], planned: int) -> Content:
    """Raises CaptureError unless each neuron's counts sum to the planned tokens: a NaN is in no bin."""
    wrong_N = np.flatnonzero(counts_NB.sum(axis=1) != planned)
    if len(wrong_N):
        site = wrong_N[0]
        raise CaptureError(
            f"{group}, histogram of layer {plan.layer[site]}, neuron {plan.neuron[site]}: {counts_NB[site].sum()} "
            f"tokens counted of {planned} planned; check the model's weights for NaN, or report it as a bug"
        )
    return _as_stored(HISTOGRAM, {"counts": counts_NB}), {"group": group, "token_count": planned, **sites(plan)}


def sites(plan: HistogramPlan) -> dict[str, object]:
    """A plan as attributes, and as what a histogram's key covers."""
    return {name: getattr(plan, name).tolist() for name in ("layer", "neuron", "edges")}


def _as_stored(schema: Mapping[str, Variable], values: Mapping[str, NDArray[Any]]) -> dict[str, Dimensioned]:
    return {name: (variable.dims, values[name].astype(variable.dtype)) for name, variable in schema.items()}

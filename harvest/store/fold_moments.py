"""Moments of units folded group by group: one unit is read at a time and one group is held.

Axes: G groups, L layers, F neurons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from harvest.stats.chan import chan
from harvest.store.arrays import (
    Layout,
    consolidate,
    create_group,
    read_attributes,
    read_group,
    read_shape,
    strings,
)
from harvest.store.members import agreed, by_group
from harvest.store.schema import MERGED, Variable
from harvest.store.verified import Tree

Totals = dict[str, Any]
# the variables of MOMENTS (L, F), counts and second moments as wide as they grow, and the two counts
COUNTS = ("token_count", "question_count")
MEANS = {
    "mean": ("m2", "token_count"),
    "question_mean": ("question_m2", "question_count"),
    "question_rate_mean": ("question_rate_m2", "question_count"),
}


def build_moments(path: Path, units: Sequence[Tree], attributes: Mapping[str, object]) -> None:
    """Writes the merged view of units at a new path."""
    members = by_group(units)
    shape_GLF = (len(members), *read_shape(units[0], "mean"))
    layers = np.array(agreed(units, ("layer",))["layer"], np.int64)
    columns = {"group": strings(members), "layer": layers, "neuron": np.arange(shape_GLF[2])}
    columns |= {name: np.zeros(len(members), np.int64) for name in COUNTS}
    layouts = {name: Layout(variable, shape_GLF, (1, *shape_GLF[1:])) for name, variable in MERGED.items()}
    layouts |= {name: _column(name, len(values)) for name, values in columns.items()}
    view = create_group(path, layouts, attributes)
    for index, parts in enumerate(members.values()):
        totals = fold(map(_read, parts))
        for name, variable in MERGED.items():
            view[name][index] = totals[name].astype(variable.dtype)
        for name in COUNTS:
            columns[name][index] = totals[name]
    for name, values in columns.items():
        view[name][...] = values
    consolidate(path)


def _column(name: str, size: int) -> Layout:
    dim = "group" if name in COUNTS else name
    return Layout(Variable((dim,), "string" if name == "group" else "int64"), (size,), (size,))


def _read(unit: Tree) -> Totals:
    counts = read_attributes(unit)
    arrays = read_group(unit)
    return (
        arrays | {"positive_count": arrays["positive_count"].astype(np.int64)} | {name: counts[name] for name in COUNTS}
    )


def fold(units: Iterable[Totals]) -> Totals:
    """The statistics of disjoint units together, folded in their order; without a token NaN, and 0 in counts."""
    totals = reduce(_add, units)
    if totals["token_count"] == 0:
        empty = {name: np.full(totals[name].shape, np.nan) for name in MERGED}
        totals = totals | empty | {"positive_count": np.zeros(totals["mean"].shape, np.int64)}
    return totals


def _add(a: Totals, b: Totals) -> Totals:
    # what stands in a unit without a token is no number
    if b["token_count"] == 0:
        return a
    if a["token_count"] == 0:
        return b
    total = {name: a[name] + b[name] for name in ("positive_count", *COUNTS)}
    total |= {"min": np.minimum(a["min"], b["min"]), "max": np.maximum(a["max"], b["max"])}
    for mean, (m2, count) in MEANS.items():
        _, total[mean], total[m2] = chan(a[count], a[mean], a[m2], b[count], b[mean], b[m2])
    return total

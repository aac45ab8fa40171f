"""Histograms of units summed group by group: one unit is read at a time and one group is held.

Axes: G groups, N sites (neurons), B bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harvest.store.arrays import Layout, consolidate, create_group, read_attributes, read_group, read_shape, strings
from harvest.store.members import agreed, by_group
from harvest.store.schema import MERGED_HISTOGRAM, Variable
from harvest.store.verified import Tree

_COLUMNS = {
    "group": Variable(("group",), "string"),
    "token_count": Variable(("group",), "int64"),
    "layer": Variable(("site",), "int64"),
    "neuron": Variable(("site",), "int64"),
    "edges": Variable(("edge",), "float32"),
}


def build_histogram(path: Path, units: Sequence[Tree], attributes: Mapping[str, object]) -> None:
    """Writes the merged view of units at a new path; a group without a token has zeros."""
    members, shared = by_group(units), agreed(units, ("layer", "neuron", "edges"))
    shape_GNB = (len(members), *read_shape(units[0], "counts"))
    columns: dict[str, NDArray[Any]] = {
        "group": strings(members),
        "token_count": np.array([sum(_num_tokens(unit) for unit in parts) for parts in members.values()], np.int64),
        **{name: np.array(values, _COLUMNS[name].dtype) for name, values in shared.items()},
    }
    layouts = {name: Layout(variable, shape_GNB, (1, *shape_GNB[1:])) for name, variable in MERGED_HISTOGRAM.items()}
    layouts |= {name: Layout(_COLUMNS[name], values.shape, values.shape) for name, values in columns.items()}
    # what xarray looks for to tell coordinates from variables
    view = create_group(path, layouts, {**attributes, "coordinates": "layer neuron edges"})
    for index, parts in enumerate(members.values()):
        view["histogram"][index] = _total(parts)
    for name, values in columns.items():
        view[name][...] = values
    consolidate(path)


def _num_tokens(unit: Tree) -> int:
    return int(read_attributes(unit)["token_count"])


def _total(units: Sequence[Tree]) -> NDArray[np.int64]:
    total_NB = read_group(units[0], ["counts"])["counts"]
    for unit in units[1:]:
        total_NB += read_group(unit, ["counts"])["counts"]
    return total_NB

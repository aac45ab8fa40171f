"""Rows and maxima of units put one after the other, with no more than one unit and one shard held.

Axes: Q questions, L layers, F neurons.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harvest.errors import StoreError
from harvest.store.arrays import (
    Layout,
    consolidate,
    create_group,
    read_attributes,
    read_group,
    read_shape,
    strings,
)
from harvest.store.key import MAX_BLOCK
from harvest.store.members import agreed
from harvest.store.schema import MAXIMA, ROW_COORDINATES, ROWS, Variable
from harvest.store.verified import Tree

_VARIABLES = {**ROWS, **MAXIMA}


def build_rows(path: Path, rows: Sequence[Tree], maxima: Sequence[Tree], attributes: Mapping[str, object]) -> None:
    """Writes the merged view of units at a new path: of either kind, or of both for the same questions."""
    if rows and maxima:
        _check_alike(rows, maxima)
    units = rows or maxima
    parts_of = {name: parts for kind, parts in ((ROWS, rows), (MAXIMA, maxima)) if parts for name in kind}
    columns = _coordinates(units)
    num_questions = len(columns["question_id"])
    _, num_layers, num_neurons = read_shape(units[0], next(iter(parts_of)))
    columns |= {"layer": np.array(agreed(units, ("layer",))["layer"], np.int64), "neuron": np.arange(num_neurons)}
    # shards of equal size: the last one is padded
    shard = math.ceil(num_questions / math.ceil(num_questions / MAX_BLOCK))
    layouts = {
        name: Layout(_VARIABLES[name], (num_questions, num_layers, num_neurons), (shard, num_layers, num_neurons))
        for name in parts_of
    }
    for name, values in columns.items():
        variable = ROW_COORDINATES.get(name, Variable((name,), "int64"))
        layouts[name] = Layout(variable, values.shape, values.shape)
    # what xarray looks for to tell coordinates from variables
    view = create_group(path, layouts, {**attributes, "coordinates": " ".join(ROW_COORDINATES)})
    for name, values in columns.items():
        view[name][...] = values
    for name, parts in parts_of.items():
        for index, values_QLF in enumerate(_shards((read_group(unit, [name])[name] for unit in parts), shard)):
            view[name][index * shard : index * shard + len(values_QLF)] = values_QLF
    consolidate(path)


def _check_alike(rows: Sequence[Tree], maxima: Sequence[Tree]) -> None:
    """Raises StoreError unless the units of both kinds are of the same questions, one by one."""
    for one, other in zip_longest(rows, maxima):
        if one is None or other is None or read_attributes(one) != read_attributes(other):
            names = [unit.unit if unit else "nothing" for unit in (one, other)]
            raise StoreError(
                f"{names[0]} and {names[1]} are not of the same questions; merge rows and maxima of the same blocks, "
                "in the same order"
            )


def _coordinates(units: Sequence[Tree]) -> dict[str, NDArray[Any]]:
    """The variables of ROW_COORDINATES, from the units' attributes."""
    parts = [read_attributes(unit) for unit in units]
    return {
        "question_id": strings(each for part in parts for each in part["question_id"]),
        "group": strings(part["group"] for part in parts for _ in part["question_id"]),
        "description_id": strings(each for part in parts for each in part["description_id"]),
        "num_tokens": np.array([each for part in parts for each in part["num_tokens"]], np.int64),
    }


def _shards(blocks: Iterator[NDArray[Any]], size: int) -> Iterator[NDArray[Any]]:
    """The blocks' rows again, `size` at a time and the rest at the end."""
    rest = next(blocks)
    for block in blocks:
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
        rest = np.concatenate([rest, block])
    for start in range(0, len(rest), size):
        yield rest[start : start + size]

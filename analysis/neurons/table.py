"""`neurons.parquet`: one row per set and neuron, in the order the set has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.neurons.neuron_set import NeuronSet
from analysis.tables import read_table, write_table
from harvest.errors import SelectionError

_ARRAYS = {"layer": np.int32, "neuron": np.int32, "score": np.float64, "delta": np.float64, "rate": np.float64}
REQUIRED = ("set_id", "group", "method", *_ARRAYS)
_OWN = (*REQUIRED, "control_draw", "control_of")


def write_neurons(path: Path, sets: Sequence[NeuronSet]) -> None:
    """Write the sets; a column that a set does not have is null in its rows.

    Raises SelectionError if a set is empty (it would vanish from the file) or two have one id.
    """
    ids = [one.set_id for one in sets]
    for one in sets:
        if len(one) == 0:
            raise SelectionError(f"{path}: set {one.set_id} has no neuron; loosen its selection")
        if ids.count(one.set_id) > 1:
            raise SelectionError(f"{path}: two sets are called {one.set_id}; give each its own name")
    extra = dict.fromkeys(name for one in sets for name in one.columns)
    columns: dict[str, Any] = {
        name: pa.array([getattr(one, name) for one in sets for _ in range(len(one))], pa.string())
        for name in ("set_id", "group", "method")
    }
    for name, dtype in _ARRAYS.items():
        columns[name] = pa.array(np.concatenate([np.zeros(0, dtype), *(getattr(one, name) for one in sets)]))
    columns["control_draw"] = pa.array([one.control_draw for one in sets for _ in range(len(one))], pa.int32())
    columns["control_of"] = pa.array([one.control_of or None for one in sets for _ in range(len(one))], pa.string())
    for name in extra:
        columns[name] = pa.array([value for one in sets for value in _values(one, name)])
    write_table(path, pa.table(columns))


def _values(one: NeuronSet, name: str) -> list[Any]:
    values: list[Any] = one.columns[name].tolist() if name in one.columns else [None] * len(one)
    return values


def read_neurons(path: Path) -> list[NeuronSet]:
    """The sets in the file's order; a file without control columns has no controls.

    Raises SelectionError if the file is missing, damaged or lacks a required column.
    """
    table = read_table(path, REQUIRED, "select")
    codes = table["set_id"].combine_chunks().dictionary_encode()
    rows_of = [np.flatnonzero(codes.indices.to_numpy() == code) for code in range(len(codes.dictionary))]
    return [_read_set(table.take(pa.array(rows))) for rows in rows_of]


def _read_set(rows: pa.Table) -> NeuronSet:
    first = rows.slice(0, 1).to_pylist()[0]
    extra = [name for name in rows.column_names if name not in _OWN and rows[name].null_count < len(rows)]
    return NeuronSet(
        set_id=first["set_id"],
        group=first["group"],
        method=first["method"],
        **{name: rows[name].to_numpy().astype(dtype) for name, dtype in _ARRAYS.items()},
        control_draw=first.get("control_draw", -1),
        control_of=first.get("control_of") or "",
        columns={name: rows[name].to_numpy() for name in extra},
    )

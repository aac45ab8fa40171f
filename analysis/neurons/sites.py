"""The neurons whose histograms a study captures, read from a `neurons.parquet` and checked before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harvest.errors import SelectionError
from harvest.models.checkpoint import Checkpoint
from harvest.stats.histogram import HistogramPlan, histogram_plan

_REMEDY = "give the neurons.parquet of a finished `select`"


def read_sites(path: Path, edges: NDArray[np.float32], model: Checkpoint) -> HistogramPlan:
    """The plan over every (layer, neuron) of all sets in the file.

    Raises SelectionError if the file is missing, damaged or empty, lacks the columns, or names a neuron that the model
    has not.
    """
    where = f"capture.histogram.neurons: {path}"
    columns = _read(path, where)
    for name, size in (("layer", model.num_layers), ("neuron", model.num_neurons)):
        outside = columns[name][(columns[name] < 0) | (columns[name] >= size)]
        if len(outside):
            raise SelectionError(
                f"{where}: {name} {outside[0]} is not in {model.path}, which has {model.num_layers} layers with "
                f"{model.num_neurons} neurons each; select again with this model"
            )
    return histogram_plan(edges, columns["layer"], columns["neuron"])


def _read(path: Path, where: str) -> dict[str, NDArray[np.int64]]:
    """The columns `layer` and `neuron`, of one length, at least 1."""
    if not path.is_file():
        raise SelectionError(f"{where}: no such file; {_REMEDY}")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise SelectionError(f"{where}: not a readable Parquet file ({error}); {_REMEDY}") from error
    for name in ("layer", "neuron"):
        if name not in table.column_names or not pa.types.is_integer(table[name].type) or table[name].null_count:
            raise SelectionError(f"{where}: has no column {name} of whole numbers; {_REMEDY}")
    if not len(table):
        raise SelectionError(f"{where}: names no neuron; {_REMEDY}")
    return {name: table[name].to_numpy().astype(np.int64) for name in ("layer", "neuron")}

"""A histogram's neurons come from a neurons.parquet, and its faults are said before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from analysis.neurons.neuron_set import NeuronSet
from analysis.neurons.sites import read_sites
from analysis.neurons.table import write_neurons
from harvest.config import CaptureSection
from harvest.errors import SelectionError
from harvest.models.checkpoint import Checkpoint
from harvest.stats.histogram import even_edges

MODEL = Checkpoint(Path("models/m"), "", "", is_long_rope=False, num_layers=3, num_neurons=96, max_positions=64)
EDGES = even_edges(0, 1, 3)


def one_set(name: str, layer: list[int], neuron: list[int]) -> NeuronSet:
    values = np.zeros(len(layer))
    return NeuronSet(name, "g", "m", np.array(layer, np.int32), np.array(neuron, np.int32), values, values, values)


def test_the_plan_is_the_union_of_all_sets_in_order(tmp_path: Path):
    path = tmp_path / "neurons.parquet"
    write_neurons(path, [one_set("a", [2, 0, 1], [7, 95, 3]), one_set("b", [2, 0, 0], [7, 2, 95])])
    plan = read_sites(path, EDGES, MODEL)
    assert list(zip(plan.layer.tolist(), plan.neuron.tolist(), strict=True)) == [(0, 2), (0, 95), (1, 3), (2, 7)]
    assert (plan.layer.dtype, plan.neuron.dtype, plan.num_bins) == (np.int32, np.int32, 4)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"layer": [1, 3], "neuron": [0, 0]}, "layer 3 is not in models/m, which has 3 layers with 96 neurons each; "),
        ({"layer": [0, -1], "neuron": [0, 0]}, "layer -1 is not in models/m"),
        ({"layer": [0, 1], "neuron": [95, 96]}, "neuron 96 is not in models/m"),
        ({"layer": [0, 2**40], "neuron": [0, 0]}, f"layer {2**40} is not in models/m"),
        ({"neuron": [0]}, "has no column layer of whole numbers; give the neurons.parquet of a finished `select`"),
        ({"layer": [0], "neuron": [0.5]}, "has no column neuron of whole numbers"),
        ({"layer": [0, None], "neuron": [0, 1]}, "has no column layer of whole numbers"),
        ({"layer": pa.array([], pa.int32()), "neuron": pa.array([], pa.int32())}, "names no neuron; give"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, columns: dict[str, list[float]], sentence: str):
    path = tmp_path / "neurons.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(SelectionError) as refused:
        read_sites(path, EDGES, MODEL)
    assert str(refused.value).startswith(f"capture.histogram.neurons: {path}: {sentence}")


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path):
    path = tmp_path / "neurons.parquet"
    with pytest.raises(SelectionError, match=r"capture\.histogram\.neurons: .*: no such file; give the neurons"):
        read_sites(path, EDGES, MODEL)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(SelectionError, match=r"not a readable Parquet file"):
        read_sites(path, EDGES, MODEL)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ({"start": 1, "stop": 1}, "300 edges from 1.0 to 1.0 do not ascend in float32"),
        ({"stop": 1e-44}, "do not ascend in float32"),
        ({"stop": 1e300}, "do not ascend in float32"),
        ({"num": 1}, "greater than or equal to 2"),
        ({"num": 10**9}, "less than or equal to 10000"),
        ({"stop": float("inf")}, "finite number"),
        ({"step": 1}, "Extra inputs are not permitted"),
    ],
)
def test_edges_that_make_no_bins_are_refused(edges: dict[str, float], message: str):
    with pytest.raises(ValidationError, match=message):
        CaptureSection.model_validate({"histogram": {"neurons": "n.parquet", "edges": edges}})


def test_neither_maxima_nor_a_histogram_is_captured_unasked():
    section = CaptureSection()
    assert (section.maxima, section.histogram) == (False, None)
    found = CaptureSection.model_validate({"maxima": True, "histogram": {"neurons": "n.parquet"}})
    assert found.maxima
    assert (found.histogram.edges.start, found.histogram.edges.stop, found.histogram.edges.num) == (0, 2.99, 300)

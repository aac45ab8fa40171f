"""What is written is what is read, and the same input always makes the same bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from harvest.errors import DamagedStore
from harvest.store.arrays import Layout, read_attributes, read_group, read_shape, strings, write_group
from harvest.store.schema import MERGED, ROWS, Variable
from harvest.store.tree import listing, sha256_of

RNG = np.random.default_rng(0)
ARRAYS = {
    "mean": (("layer", "neuron"), RNG.normal(size=(3, 7))),
    "nothing": (("layer", "neuron"), np.full((3, 7), np.nan, np.float32)),
    "count": (("layer", "neuron"), np.full((3, 7), -1, np.int32)),
    "rows": (("question", "layer", "neuron"), np.full((2, 3, 7), 65535, np.uint16)),
    "question_id": (("question",), strings(["../和\0", ""])),
}
ATTRIBUTES = {"group": "c_voice.zh/和谐/support", "token_count": 2**40}


def test_a_group_comes_back_whole(tmp_path: Path):
    write_group(tmp_path / "a.zarr", ARRAYS, ATTRIBUTES)
    found = read_group(tmp_path / "a.zarr")
    assert found.keys() == ARRAYS.keys()
    for name, (_, values) in ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    assert read_attributes(tmp_path / "a.zarr") == ATTRIBUTES
    assert read_shape(tmp_path / "a.zarr", "rows") == (2, 3, 7)
    assert read_group(tmp_path / "a.zarr", ["count"]).keys() == {"count"}


def test_the_same_input_makes_the_same_bytes_in_any_order_of_naming(tmp_path: Path):
    write_group(tmp_path / "a.zarr", ARRAYS, ATTRIBUTES)
    write_group(tmp_path / "b.zarr", dict(reversed(ARRAYS.items())), dict(reversed(ATTRIBUTES.items())))
    assert sha256_of(listing(tmp_path / "a.zarr")) == sha256_of(listing(tmp_path / "b.zarr"))


def test_one_file_per_variable_that_outsiders_can_read(tmp_path: Path):
    write_group(tmp_path / "a.zarr", ARRAYS, ATTRIBUTES)
    for name in ARRAYS:
        assert sum(one.is_file() for one in (tmp_path / "a.zarr" / name).rglob("*")) == 2
    dataset = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    assert dataset["mean"].dims == ("layer", "neuron")
    assert dataset["count"].dtype == np.int32
    assert dataset["question_id"].values.tolist() == ["../和\0", ""]


@pytest.mark.parametrize("name", list(ARRAYS))
def test_a_lost_chunk_is_never_data(tmp_path: Path, name: str):
    write_group(tmp_path / "a.zarr", ARRAYS, ATTRIBUTES)
    shutil.rmtree(tmp_path / "a.zarr" / name / "c")
    with pytest.raises(DamagedStore, match=f"variable {name} lacks chunks"):
        read_group(tmp_path / "a.zarr")


def test_every_chunk_carries_a_checksum(tmp_path: Path):
    write_group(tmp_path / "a.zarr", ARRAYS, ATTRIBUTES)
    for name in ARRAYS:
        assert '"crc32c"' in (tmp_path / "a.zarr" / name / "zarr.json").read_text()
    assert json.loads((tmp_path / "a.zarr" / "mean" / "zarr.json").read_text())["fill_value"] == "NaN"


@pytest.mark.parametrize(
    ("variable", "shape", "shard", "chunk"),
    [
        (MERGED["mean"], (24, 32, 14336), (1, 32, 14336), (1, 32, 14336)),
        (MERGED["mean"], (24, 80, 28672), (1, 80, 28672), (1, 16, 28672)),
        (ROWS["row_mean"], (5000, 32, 14336), (64, 32, 14336), (64, 1, 14336)),
        (Variable(("group",), "string"), (24,), (24,), (24,)),
    ],
)
def test_chunks_are_whole_layers_of_about_four_mebibytes(variable, shape, shard, chunk):
    assert Layout(variable, shape, shard).chunk == chunk

"""Zarr groups on disk, written deterministically and read whole: the only reader and writer of Zarr.

One file per variable and shard, cut inside into chunks of whole layers, each with its crc32c. Uncompressed: on noisy
floats zstd saves an eighth and doubles the time.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import cpu
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from harvest.errors import DamagedStore, StoreError
from harvest.store.key import canonical_json
from harvest.store.schema import Variable, numpy_type
from harvest.store.verified import Tree

Dimensioned = tuple[tuple[str, ...], NDArray[Any]]
# an array, after the names of its axes

CHUNK_BYTES = 4 << 20
# a chunk holds as many whole layers as fit


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a variable's values go: its shape, and the part of it that one file holds."""

    variable: Variable
    shape: tuple[int, ...]
    shard: tuple[int, ...]

    @property
    def chunk(self) -> tuple[int, ...]:
        """The part of a shard that is read and checked at once."""
        if "layer" not in self.variable.dims:
            return self.shard
        axis, itemsize = self.variable.dims.index("layer"), numpy_type(self.variable.dtype).itemsize
        most = max(1, CHUNK_BYTES * self.shard[axis] // (math.prod(self.shard) * itemsize))
        num_layers = max(
            size for size in range(1, self.shard[axis] + 1) if self.shard[axis] % size == 0 and size <= most
        )
        return (*self.shard[:axis], num_layers, *self.shard[axis + 1 :])


def strings(values: Iterable[str]) -> NDArray[Any]:
    """Texts as the array that a "string" variable takes; NumPy's own default would drop trailing NULs."""
    return np.array(list(values), dtype=numpy_type("string"))


def write_group(path: Path, arrays: Mapping[str, Dimensioned], attributes: Mapping[str, object]) -> None:
    """A new group at a path that doesn't exist yet, one file per variable; the same input gives the same bytes."""
    layouts = {
        name: Layout(
            Variable(dims, "string" if values.dtype.kind == "T" else values.dtype.name), values.shape, values.shape
        )
        for name, (dims, values) in arrays.items()
    }
    group = create_group(path, layouts, attributes)
    for name, (_, values) in arrays.items():
        group[name][...] = values


def create_group(
    path: Path, layouts: Mapping[str, Layout], attributes: Mapping[str, object]
) -> dict[str, zarr.Array[Any]]:
    """The arrays of a new group, waiting for their values; every shard must be written, and written whole."""
    # through canonical JSON, so that the file doesn't depend on the order in which attributes were named
    group = zarr.create_group(path, zarr_format=3, attributes=json.loads(canonical_json(dict(attributes))))
    return {name: _create_array(group, name, layout) for name, layout in layouts.items()}


def _create_array(group: zarr.Group, name: str, layout: Layout) -> zarr.Array[Any]:
    return group.create_array(
        name,
        shape=layout.shape,
        dtype="string" if layout.variable.dtype == "string" else numpy_type(layout.variable.dtype),
        chunks=layout.chunk,
        shards=None if layout.chunk == layout.shard else layout.shard,
        dimension_names=layout.variable.dims,
        compressors=(Crc32cCodec(),),
        fill_value=_fill_value(layout.variable.dtype),
        # otherwise a chunk of nothing but NaN is not written, and looks like a lost one
        config={"write_empty_chunks": True},
    )


def _fill_value(dtype: str) -> float | int | str:
    # what no measurement is: Zarr shows it where a chunk is lost
    largest = 2 ** (8 * numpy_type(dtype).itemsize) - 1
    values: dict[str, float | int | str] = {"f": math.nan, "i": -1, "u": largest, "T": ""}
    return values[numpy_type(dtype).kind]


def consolidate(path: Path) -> None:
    """Copies the arrays' metadata into the group's own file: without it xarray.open_zarr warns whoever opens it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", ZarrUserWarning)
        zarr.consolidate_metadata(path, zarr_format=3)


def read_group(source: Path | Tree, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """The named variables of a group (all, if none are named) as arrays.

    Raises DamagedStore if a chunk is absent, which Zarr itself would read as the fill value.
    """
    group = zarr.open_group(_stored(source, names), mode="r")
    arrays = {name: cast("zarr.Array[Any]", group[name]) for name in names or sorted(group.array_keys())}
    for name, array in arrays.items():
        if array.nchunks_initialized != array.nchunks:
            raise DamagedStore(f"{source}: variable {name} lacks chunks; run `value-harvest verify` on the store")
    return {name: np.asarray(array[...]) for name, array in arrays.items()}


def _stored(source: Path | Tree, names: Collection[str] | None) -> Path | MemoryStore:
    """A tree's files are read at once, each compared with its record: a unit fits into memory."""
    if isinstance(source, Path):
        return source
    wanted = [file for file in source.files if names is None or file.partition("/")[0] in {*names, "zarr.json"}]
    return MemoryStore({name: cpu.Buffer.from_bytes(data) for name, data in source.read_all(wanted).items()})


def check_whole(path: Path) -> None:
    """Raises StoreError unless every chunk of every array of a group was written."""
    group = zarr.open_group(path, mode="r")
    for name, array in group.arrays():
        if array.nchunks_initialized != array.nchunks:
            raise StoreError(f"{path}: variable {name} was not written whole; run again, or report it as a bug")


def read_shape(source: Path | Tree, name: str) -> tuple[int, ...]:
    """The shape of one variable of a group."""
    return tuple(_metadata(source, name)["shape"])


def read_attributes(source: Path | Tree) -> dict[str, Any]:
    """The group's attributes."""
    found: dict[str, Any] = _metadata(source, "")["attributes"]
    return found


def _metadata(source: Path | Tree, name: str) -> Any:
    return source.metadata(name) if isinstance(source, Tree) else json.loads((source / name / "zarr.json").read_bytes())

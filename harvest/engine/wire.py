"""Arrays as bytes: what passes to and from an engine in a process of its own, where no object may be pickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from harvest.stats.rows import RequestRows
from harvest.types import EditRow

_EDIT_ARRAYS = ("layer", "neuron", "scale", "shift", "floor", "ceiling")


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def unpack(data: bytes) -> dict[str, NDArray[Any]]:
    return dict(load(data))


def pack_rows(counts_LQ: NDArray[np.int64], rows: RequestRows) -> bytes:
    return pack({"counts": counts_LQ, **{field.name: getattr(rows, field.name) for field in fields(rows)}})


def unpack_rows(data: bytes) -> tuple[NDArray[np.int64], RequestRows]:
    arrays = unpack(data)
    counts_LQ = arrays.pop("counts").astype(np.int64, copy=False)
    return counts_LQ, RequestRows(**arrays)


def pack_edits(rows: Sequence[EditRow]) -> bytes:
    """The rows without their phases, which each request's ticket has as positions."""
    return pack({f"{at}/{name}": getattr(row, name) for at, row in enumerate(rows) for name in _EDIT_ARRAYS})


def unpack_edits(data: bytes) -> list[EditRow]:
    arrays = unpack(data)
    number = len(arrays) // len(_EDIT_ARRAYS)
    parts = [[arrays[f"{at}/{name}"] for name in _EDIT_ARRAYS] for at in range(number)]
    return [
        EditRow(layer, neuron, scale, shift, floor, ceiling) for layer, neuron, scale, shift, floor, ceiling in parts
    ]

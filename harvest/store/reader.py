"""Merged views as xarray datasets, whose arrays are read when they are used, from a path or an s3:// URL.

Each file is compared with the view's record before anything in it is used: reading a number reads the file that it
is in, once. Opening reads next to nothing, however large the view is; damage shows as DamagedStore where it is met.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from harvest.errors import NeedsRows
from harvest.stats.histogram import quantiles_of
from harvest.stats.rows import largest
from harvest.store.tree import sha256_of
from harvest.store.verified import Tree
from harvest.store.view import is_published, open_view
from harvest.store.zarr_tree import TreeStore

__all__ = [
    "attributes", "digest", "is_published", "open_histogram", "open_merged", "open_rows", "quantiles", "top_questions",
]  # fmt: skip


def open_merged(path: Path | str) -> xr.Dataset:
    """Statistics over (group, layer, neuron); raises DamagedStore, naming the file, unless all is as published."""
    return _open(open_view(path))


def open_rows(path: Path | str) -> xr.Dataset:
    """Per-question rows over (question, layer, neuron); raises DamagedStore as above, NeedsRows if there are none."""
    return _open(open_view(path, f"rows {path} do not exist; capture again with `rows: full`"))


def open_histogram(path: Path | str) -> xr.Dataset:
    """Counts over (group, site, bin); raises DamagedStore as above, NeedsRows if there is none."""
    absent = f"histogram {path} does not exist; capture again with `histogram: {{neurons: NEURONS.parquet}}`"
    return _open(open_view(path, absent))


def top_questions(rows: xr.Dataset, k: int) -> xr.Dataset:
    """The k questions in which each neuron's largest activation is largest, over (group, layer, neuron, rank).

    `question_id`; `value`, that activation; `position` among the question's counted tokens (0: the first). Of equal
    values the question that the view has first comes first. Where a group has fewer than k questions with a token
    (and where a layer has no such neuron): "", NaN and -1. One layer is read at a time; what comes back holds k
    entries for each group and neuron, so select layers of a large model first. Raises NeedsRows if the view was
    captured without maxima.
    """
    if "row_max" not in rows:
        raise NeedsRows(
            "the largest activations of questions need `row_max`, and these rows have none; "
            "set `capture: {maxima: true}` and run `value-harvest capture` again"
        )
    if k < 1:
        raise ValueError(f"top_questions: k is {k}; choose at least 1")
    group_Q = np.array([str(name) for name in rows["group"].to_numpy()])
    groups = list(dict.fromkeys(group_Q.tolist()))
    shape = (len(groups), rows.sizes["layer"], rows.sizes["neuron"], k)
    question_GLFK = np.empty(shape, np.int32)
    value_GLFK, position_GLFK = np.empty(shape, np.float32), np.empty(shape, np.int32)
    for layer in range(rows.sizes["layer"]):
        one = rows[["row_max", "row_argmax"]].isel(layer=layer).transpose("question", "neuron")
        max_QF, argmax_QF = one["row_max"].to_numpy(), one["row_argmax"].to_numpy().astype(np.int32)
        for at, group in enumerate(groups):
            top_KF = _top(max_QF, np.flatnonzero(group_Q == group), k)
            question_GLFK[at, layer] = top_KF.T
            value_GLFK[at, layer] = np.where(top_KF < 0, np.nan, np.take_along_axis(max_QF, top_KF, axis=0)).T
            position_GLFK[at, layer] = np.where(top_KF < 0, -1, np.take_along_axis(argmax_QF, top_KF, axis=0)).T
    # one object for each id, however often it stands in the result; "" is what -1 finds
    ids = np.array([*map(str, rows["question_id"].to_numpy()), ""], object)
    dims = ("group", "layer", "neuron", "rank")
    return xr.Dataset(
        {"question_id": (dims, ids[question_GLFK]), "value": (dims, value_GLFK), "position": (dims, position_GLFK)},
        coords={"group": groups, "layer": rows["layer"].to_numpy(), "neuron": rows["neuron"].to_numpy()},
    )


def _top(max_QF: NDArray[np.float32], at_Q: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The k rows of largest maximum among the rows `at_Q`, shape (k, F); -1 where there are fewer."""
    top_KF = largest(max_QF[at_Q], k)
    return np.where(top_KF < 0, -1, at_Q[top_KF])


def quantiles(histogram: xr.Dataset, q: Sequence[float] = (0.5, 0.95, 0.99)) -> xr.Dataset:
    """`quantile(group, site, q)` of the activation, by linear interpolation inside its bin; one group is held.

    NaN where it falls into an open bin (such as q = 0.95 where at least 95 % of the tokens are off), and where a group
    has no token. Raises ValueError unless 0 < q <= 1.
    """
    edges_E = histogram["edges"].to_numpy()
    found = [
        quantiles_of(histogram["histogram"].isel(group=index).transpose("site", "bin").to_numpy(), edges_E, q)
        for index in range(histogram.sizes["group"])
    ]
    return xr.Dataset(
        {"quantile": (("group", "site", "q"), np.stack(found))},
        coords={
            "group": histogram["group"].to_numpy(),
            "layer": ("site", histogram["layer"].to_numpy()),
            "neuron": ("site", histogram["neuron"].to_numpy()),
            "q": np.asarray(q, np.float64),
        },
    )


def digest(path: Path | str) -> str:
    """One hash over all files of a view, as its record has them; raises DamagedStore if the view has no record."""
    return sha256_of(list(open_view(path).files.values()))


def attributes(path: Path | str) -> dict[str, Any]:
    """A view's attributes (model fingerprint, activation definition, phase, mode, versions), and nothing of its arrays.

    Raises DamagedStore if the view has no record, or its attributes were changed.
    """
    found: dict[str, Any] = open_view(path).metadata()["attributes"]
    return {name: value for name, value in found.items() if name != "coordinates"}


def _open(tree: Tree) -> xr.Dataset:
    dataset: xr.Dataset = xr.open_zarr(TreeStore(tree), chunks=None, consolidated=True)
    return dataset

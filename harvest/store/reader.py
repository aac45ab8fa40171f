"""Merged views as xarray datasets, whose arrays are read when they are used.

Opening one reads all its bytes once and compares them with the view's record: about a second per 1.5 GB.
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
from harvest.store.view import checked, read_view, record_path


def open_merged(path: Path | str) -> xr.Dataset:
    """Statistics over (group, layer, neuron); raises DamagedStore, naming the file, unless all is as published."""
    return _open(checked(Path(path)))


def open_rows(path: Path | str) -> xr.Dataset:
    """Per-question rows over (question, layer, neuron); raises DamagedStore as above, NeedsRows if there are none."""
    path = Path(path)
    if not path.exists():
        raise NeedsRows(f"rows {path} do not exist; capture again with `rows: full`")
    return _open(checked(path))


def open_histogram(path: Path | str) -> xr.Dataset:
    """Counts over (group, site, bin); raises DamagedStore as above, NeedsRows if there is none."""
    path = Path(path)
    if not path.exists():
        raise NeedsRows(
            f"histogram {path} does not exist; capture again with `histogram: {{neurons: NEURONS.parquet}}`"
        )
    return _open(checked(path))


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


def is_published(path: Path) -> bool:
    """Whether a view and its record are there; says nothing about their bytes."""
    return path.is_dir() and record_path(path).is_file()


def digest(path: Path) -> str:
    """One hash over all files of a view, as its record has them; raises DamagedStore if the view has no record."""
    return sha256_of(read_view(path)[1])


def attributes(path: Path) -> dict[str, Any]:
    """A view's attributes (model fingerprint, activation definition, phase, mode, versions), without checking the rest.

    Raises DamagedStore if the view has no record.
    """
    read_view(path)
    return dict(_open(path).attrs)


def _open(path: Path) -> xr.Dataset:
    dataset: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=True)
    return dataset

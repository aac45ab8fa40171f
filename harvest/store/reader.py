"""Merged views as xarray datasets, whose arrays are read when they are used.

Opening one reads all its bytes once and compares them with the view's record: about a second per 1.5 GB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from harvest.errors import NeedsRows
from harvest.store.tree import sha256_of
from harvest.store.view import checked, read_view, record_path


def open_merged(path: Path) -> xr.Dataset:
    """Statistics over (group, layer, neuron); raises DamagedStore, naming the file, unless all is as published."""
    return _open(checked(path))


def open_rows(path: Path) -> xr.Dataset:
    """Per-question rows over (question, layer, neuron); raises DamagedStore as above, NeedsRows if there are none."""
    if not path.exists():
        raise NeedsRows(f"rows {path} do not exist; capture again with `rows: full`")
    return _open(checked(path))


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

"""Merged views: folders built once from commits, published with a record of their files, and never changed.

merged/<hash>.zarr     the view
merged/<hash>.json     its record, written last: a view without one isn't finished
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

from harvest.store.record import pack, unpack
from harvest.store.sealed import damaged, seal, told, unseal, write_whole
from harvest.store.tree import File, differences, listing

Sources = Sequence[tuple[str, str]]
# (unit, sha256), in the order in which they were folded


def publish(path: Path, sources: Sources, build: Callable[[Path], None]) -> Path:
    """The view's path, after building it at a path of its own and moving it there, or verifying the one that is there.

    Raises DamagedStore if the one that is there isn't what was published, StoreError if the disk is full.
    """
    with told(path.parents[1]):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and record_path(path).exists():
            return checked(path)
        building = path.with_name(f".{uuid4().hex}")
        try:
            build(building)
            files = listing(building)
            _move(building, path, files)
        finally:
            if building.exists():
                shutil.rmtree(building)
        write_whole(record_path(path), seal({"view": path.name, "sources": list(sources), "files": pack(files)}))
    return path


def _move(building: Path, path: Path, files: tuple[File, ...]) -> None:
    try:
        building.rename(path)
    except OSError:
        # another process published it meanwhile, or one was killed before the record: fine if it is the same
        if not path.exists():
            raise
        for file, what in differences(files, path):
            raise damaged(file, what, path) from None


def record_path(path: Path) -> Path:
    """Where a view's record stands."""
    return path.with_suffix(".json")


def read_view(path: Path) -> tuple[Sources, tuple[File, ...]]:
    """What a view was folded from, and its files; raises DamagedStore if its record is missing or was changed."""
    record = record_path(path)
    if not record.exists():
        raise damaged(record, "is missing", path)
    body = unseal(record.read_bytes(), record)
    if body["view"] != path.name:
        raise damaged(record, f"is the record of {body['view']}", record)
    return [(unit, sha256) for unit, sha256 in body["sources"]], unpack(body["files"])


def checked(path: Path) -> Path:
    """The path itself, after reading all of the view; raises DamagedStore, naming the damaged file."""
    for file, what in differences(read_view(path)[1], path):
        raise damaged(file, what, path)
    return path

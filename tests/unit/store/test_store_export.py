"""A copy is whole or refused, in every direction between folders and buckets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr
from places import S3, Somewhere, new_folder, new_prefix
from stored import finished_store

from harvest.errors import DamagedStore, InputError
from harvest.store.commit import Store
from harvest.store.export import export
from harvest.store.gc import sweep
from harvest.store.key import unit_name
from harvest.store.reader import open_merged
from harvest.store.verify import orphans, verify_store

EVERY_WAY = [("folder", "folder"), ("folder", "bucket"), ("bucket", "folder"), ("bucket", "bucket")]


@pytest.fixture(params=EVERY_WAY, ids="-".join)
def ends(request: pytest.FixtureRequest, tmp_path: Path, s3: S3) -> tuple[Somewhere, Somewhere]:
    one, other = (new_folder(tmp_path) if kind == "folder" else new_prefix(s3) for kind in request.param)
    return one, other


def _contents(somewhere: Somewhere) -> dict[str, bytes]:
    return {key: somewhere.files.read(key) for key in somewhere.files.names()}


def test_an_export_holds_every_file_that_counts_and_is_a_store_itself(ends: tuple[Somewhere, Somewhere]):
    source, target = ends
    store = finished_store(source.root)
    before = _contents(source)
    source.files.write(f"attempts/{unit_name('rows', {'never': 'committed'})}/{'0' * 32}.zarr/zarr.json", b"half")
    done = export(store, Store(target.root))
    assert _contents(target) == before
    assert (done.num_copied, done.num_there) == (7, 0)
    assert done.size_bytes > 0
    assert verify_store(target.root) == []
    assert orphans(target.root) == []
    assert export(store, Store(target.root)).num_there == 7
    [view] = [key for key in target.files.names() if key.startswith("merged/") and key.endswith("/m2/zarr.json")]
    with open_merged(f"{target.root}/{view.removesuffix('/m2/zarr.json')}") as merged:
        assert isinstance(merged.load(), xr.Dataset)


def test_an_export_that_was_stopped_goes_on(tmp_path: Path):
    source, target = new_folder(tmp_path), new_folder(tmp_path)
    store = finished_store(source.root)
    whole = _contents(source)
    names = sorted(whole)
    for count in (1, 5, len(names) // 2, len(names) - 3):
        # commits are last in what a stopped export leaves
        some = [name for name in names if not name.startswith(("commits/", "merged/"))][:count]
        for name in ["store.json", *some]:
            target.files.write(name, whole[name])
        export(store, Store(target.root))
        assert _contents(target) == whole
        for name in names:
            target.files.delete(name)


def test_an_export_that_was_stopped_and_collected_goes_on(ends: tuple[Somewhere, Somewhere]):
    source, target = ends
    store, copy = finished_store(source.root), Store(target.root).prepare()
    whole = _contents(source)
    for name in [
        name for name in whole if name.startswith(("attempts/rows", "merged/")) and name.endswith("/zarr.json")
    ]:
        target.files.write(name, whole[name])
    assert sweep(copy, 0, delete=True).done == 4
    assert export(store, copy).num_copied == 7
    assert verify_store(copy.root) == []
    assert export(store, copy).num_there == 7
    for ours, theirs in zip(store.commits("rows"), copy.commits("rows"), strict=True):
        assert ours.attempt != theirs.attempt
        assert replace(theirs, attempt=ours.attempt) == ours
        assert copy.open(theirs).differences() == []


def test_neither_store_is_inside_the_other(tmp_path: Path, s3: S3):
    below = finished_store(tmp_path / "store")
    (tmp_path / "link").symlink_to(tmp_path / "store")
    for target in (tmp_path, tmp_path / "store" / "copy", tmp_path / "link" / "copy"):
        with pytest.raises(InputError, match="one is inside the other; name another place"):
            export(below, Store(target))
    above = finished_store(new_prefix(s3).root)
    with pytest.raises(InputError, match="one is inside the other; name another place"):
        export(above, Store(f"{above.root}/copy"))
    assert verify_store(below.root) == verify_store(above.root) == []
    # a longer name is no place inside
    assert export(below, Store(tmp_path / "store-copy")).num_copied == 7


def test_a_damaged_source_is_refused_by_name_and_what_it_belongs_to_is_not_committed(tmp_path: Path):
    source, target = new_folder(tmp_path), new_folder(tmp_path)
    store = finished_store(source.root)
    unit = store.commits("rows")[0]
    chunk = store.open(unit).key_of("row_mean/c/0/0/0")
    source.files.write(chunk, source.files.read(chunk)[::-1])
    with pytest.raises(DamagedStore, match=r"row_mean/c/0/0/0 was changed"):
        export(store, Store(target.root))
    assert f"commits/{unit.unit}.json" not in target.files.names()
    assert verify_store(target.root) == []


def test_a_target_that_holds_other_attempts_is_refused(tmp_path: Path):
    source, target = new_folder(tmp_path), new_folder(tmp_path)
    store = finished_store(source.root)
    finished_store(target.root)
    before = _contents(target)
    with pytest.raises(InputError, match=r"has another commit of .*; export to an empty place, or use that store"):
        export(store, Store(target.root))
    with pytest.raises(InputError, match="is the store itself"):
        export(store, Store(source.root))
    assert _contents(target) == before

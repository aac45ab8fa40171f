"""A view in a bucket: the same bytes as in a folder, opened by ours and by outsiders, and never a wrong number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from obstore.store import S3Store
from places import S3, Somewhere, new_prefix
from stored import commit_moments, commit_rows, random_questions
from zarr.storage import ObjectStore

from harvest.errors import DamagedStore, NeedsRows
from harvest.store import verified
from harvest.store.commit import Store
from harvest.store.merge import merge_moments, merge_rows
from harvest.store.place import Place
from harvest.store.reader import attributes, digest, is_published, open_histogram, open_merged, open_rows
from harvest.store.verify import verify_store


def _views(root: Path | str) -> tuple[str, str]:
    store = Store(root).prepare()
    groups = ["voice.zh/和谐/support", "voice.zh/和谐/conflict"]
    moments = [commit_moments(store, g, g, random_questions(i, [3, 2])).unit for i, g in enumerate(groups)]
    rows = [commit_rows(store, g, g, random_questions(i, [3, 2] * 40)).unit for i, g in enumerate(groups)]
    return merge_moments(store, moments, {"model": "m"}), merge_rows(store, rows, {"model": "m"})


def test_a_bucket_has_the_bytes_that_a_folder_has(tmp_path: Path, s3: S3):
    here, there = _views(tmp_path), _views(new_prefix(s3).root)
    for path, url in zip(here, there, strict=True):
        assert url.startswith("s3://")
        assert digest(path) == digest(url)
        assert attributes(path) == attributes(url) == {"model": "m"}
        assert is_published(path)
        assert is_published(url)
        opened = open_merged if path == here[0] else open_rows
        xr.testing.assert_identical(opened(path).load(), opened(url).load())
    assert not is_published(there[0] + "x")
    for opener in (open_rows, open_histogram):
        with pytest.raises(NeedsRows, match=r"s3://.*none.* exist; capture again"):
            opener(there[1].rpartition("/")[0] + "x/none.zarr")


def test_an_outsider_opens_a_bucket_s_view_through_obstore(s3: S3):
    url, _ = _views(new_prefix(s3).root)
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    endpoint = s3.environment["AWS_ENDPOINT_URL"]
    outside = S3Store(bucket, prefix=prefix, endpoint=endpoint, client_options={"allow_http": True})
    found = xr.open_zarr(ObjectStore(outside, read_only=True))
    np.testing.assert_array_equal(found["mean"].values, open_merged(url)["mean"].values)


def test_what_is_damaged_in_a_view_is_met_as_an_error_and_never_as_a_number(somewhere: Somewhere):
    url = _views(somewhere.root)[1]
    key = url.removeprefix(f"{somewhere.root}/") + "/row_mean/c/1/0/0"
    data = somewhere.files.read(key)
    first = somewhere.files.read(key.replace("/c/1/", "/c/0/"))
    whole = open_rows(url).load()
    for harmed in (first, data[:-1], b"", bytes(len(data))):
        somewhere.files.write(key, harmed)
        with open_rows(url) as rows:
            shard = len(whole["question"]) // 3
            np.testing.assert_array_equal(rows["row_mean"][:shard, 0], whole["row_mean"][:shard, 0])
            with pytest.raises(DamagedStore, match=r"row_mean/c/1/0/0 was changed; delete"):
                rows["row_mean"].load()
            with pytest.raises(DamagedStore, match=r"row_mean/c/1/0/0 was changed; delete"):
                rows["row_mean"][:, 1].load()
    somewhere.files.delete(key)
    with open_rows(url) as rows, pytest.raises(DamagedStore, match=r"row_mean/c/1/0/0 is missing; delete"):
        rows["row_mean"].load()
    somewhere.files.write(key, data)
    xr.testing.assert_identical(open_rows(url).load(), whole)


def test_opening_a_view_reads_next_to_nothing_and_a_file_is_read_through_once(
    somewhere: Somewhere, monkeypatch: pytest.MonkeyPatch
):
    url = _views(somewhere.root)[1]
    read: list[str] = []
    hashed = verified.hashed

    def counted(place: Place, key: str, name: str):
        read.append(name)
        return hashed(place, key, name)

    monkeypatch.setattr(verified, "hashed", counted)
    with open_rows(url) as rows:
        assert not any("row_" in name for name in read)
        for layer in range(2):
            rows["row_mean"][:, layer].load()
    assert len(read) == len(set(read))
    assert verify_store(somewhere.root) == []

"""The merged views: what the contract promises to an outsider's xarray, and the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from places import Somewhere
from stored import commit_moments, commit_rows, finished_store, plain_moments, random_questions

from harvest.errors import DamagedStore, NeedsRows, StoreError
from harvest.store.commit import Store
from harvest.store.key import unit_name
from harvest.store.merge import merge_moments, merge_rows
from harvest.store.reader import attributes, digest, is_published, open_merged, open_rows
from harvest.store.schema import MERGED
from harvest.store.tree import listing, sha256_of
from harvest.store.verify import orphans, verify_store
from harvest.store.view import publish

GROUPS = ["c_voice.zh/和谐/support", "c_voice.zh/和谐/conflict", "c_voice.zh/法治/support"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path).prepare()


def _moments(store: Store) -> list[str]:
    parts = [
        (GROUPS[0], random_questions(1, [3, 2])),
        (GROUPS[1], random_questions(2, [1, 0, 6])),
        (GROUPS[0], random_questions(3, [0, 0])),
        (GROUPS[0], random_questions(4, [5])),
        (GROUPS[2], random_questions(5, [0])),
    ]
    return [commit_moments(store, str(i), group, questions).unit for i, (group, questions) in enumerate(parts)]


def test_an_outsider_opens_the_moments_as_the_contract_says(store: Store):
    path = merge_moments(store, _moments(store), {"model": "和", "versions": {"vllm": "0.32"}})
    found = xr.open_zarr(path)
    assert Path(path).parents[1] == Path(store.root, "merged")
    assert dict(found.sizes) == {"group": 3, "layer": 2, "neuron": 5}
    assert set(found.coords) == {"group", "layer", "neuron"}
    assert found["group"].values.tolist() == GROUPS
    assert found["neuron"].values.tolist() == [0, 1, 2, 3, 4]
    assert set(found.data_vars) == set(MERGED) | {"token_count", "question_count"}
    assert {name: str(found[name].dtype) for name in MERGED} == {name: one.dtype for name, one in MERGED.items()}
    assert found["token_count"].dtype == found["question_count"].dtype == np.int64
    assert found["token_count"].values.tolist() == [10, 7, 0]
    assert found["question_count"].values.tolist() == [3, 2, 0]
    assert found.attrs == {"model": "和", "versions": {"vllm": "0.32"}} == attributes(path)
    everything = plain_moments(random_questions(1, [3, 2]) + random_questions(4, [5]))
    for name in MERGED:
        np.testing.assert_allclose(found[name].sel(group=GROUPS[0]), everything[name], rtol=3e-7, err_msg=name)


def test_a_group_without_a_token_is_nan_and_counts_nothing(store: Store):
    found = open_merged(merge_moments(store, _moments(store), {})).sel(group=GROUPS[2])
    assert (found["positive_count"] == 0).all()
    assert all(found[name].isnull().all() for name in MERGED if name != "positive_count")


def test_an_outsider_opens_the_rows_as_the_contract_says(store: Store):
    lengths = [[2, 0], [1], [4] * 70]
    parts = [random_questions(seed, each) for seed, each in enumerate(lengths)]
    units = [commit_rows(store, str(i), GROUPS[i], questions).unit for i, questions in enumerate(parts)]
    path = merge_rows(store, units, {"model": "m"})
    found = xr.open_zarr(path)
    assert path.endswith(".rows.zarr")
    assert found["row_mean"].dims == ("question", "layer", "neuron")
    assert set(found.coords) == {"question_id", "group", "description_id", "num_tokens", "layer", "neuron"}
    assert (found["row_mean"].dtype, found["row_positive_count"].dtype) == (np.float32, np.uint16)
    assert found["num_tokens"].values.tolist() == [2, 0, 1] + [4] * 70
    assert found["group"].values.tolist() == [GROUPS[0]] * 2 + [GROUPS[1]] + [GROUPS[2]] * 70
    assert found["question_id"].values.tolist()[:3] == ["0/问0", "0/问1", "1/问0"]
    assert found.attrs == {"model": "m"} == attributes(path)
    for row, question in zip(found["row_positive_count"].values, [q for part in parts for q in part], strict=True):
        np.testing.assert_array_equal(row, (question > 0).sum(axis=0))
    assert np.isnan(found["row_mean"].values[1]).all()
    np.testing.assert_allclose(
        found["row_mean"].values[2:], [q.mean(axis=0) for part in parts[1:] for q in part], rtol=1e-6
    )


def test_the_same_units_make_the_same_bytes(tmp_path: Path):
    paths = []
    for name in "ab":
        store = Store(tmp_path / name).prepare()
        paths.append(Path(merge_moments(store, _moments(store), {"model": "m"})))
    assert paths[0].parent.name == paths[1].parent.name
    assert sha256_of(listing(paths[0])) == sha256_of(listing(paths[1]))
    assert digest(paths[0]) == digest(paths[1])


def test_a_view_is_built_once_and_each_plan_has_its_own(store: Store):
    units = _moments(store)
    path = merge_moments(store, units, {})
    before = Path(path).stat().st_mtime_ns
    assert merge_moments(store, units, {}) == path
    assert Path(path).stat().st_mtime_ns == before
    assert len({path, merge_moments(store, units[::-1], {}), merge_moments(store, units, {"model": "x"})}) == 3


def test_a_merger_killed_before_its_commit_is_finished_by_the_next(store: Store):
    units = _moments(store)
    path = merge_moments(store, units, {})
    Path(f"{Path(path).parent}.json").unlink()
    assert not is_published(path)
    with pytest.raises(DamagedStore, match="json is missing"):
        open_merged(path)
    assert merge_moments(store, units, {}) == path
    assert is_published(path)
    assert verify_store(store.root) == []


def test_a_view_that_was_deleted_in_part_or_whole_is_folded_again_where_it_was(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    units = _moments(store)
    path = merge_moments(store, units, {})
    whole = open_merged(path).load()
    names = [name for name in somewhere.files.names() if name.startswith(path.removeprefix(f"{store.root}/"))]
    for deleted in (names, names[3:5]):
        for name in deleted:
            somewhere.files.delete(name)
        assert is_published(path) == (deleted is not names)
        assert merge_moments(store, units, {}) == path
        assert is_published(path)
        xr.testing.assert_identical(open_merged(path).load(), whole)
        assert verify_store(store.root) == []
        assert orphans(store.root) == []


def test_a_view_that_cannot_be_mended_leaves_nothing_behind(store: Store):
    units = _moments(store)
    path = Path(merge_moments(store, units, {}))
    (path / "m2" / "zarr.json").unlink()

    def stopped(path: Path) -> None:
        path.mkdir()
        (path / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(store.place, path.parent.name, ".zarr", [], stopped)
    assert orphans(store.root) == []
    assert merge_moments(store, units, {}) == str(path)
    assert verify_store(store.root) == []


def test_missing_units_are_counted(store: Store):
    units = _moments(store)
    absent = [unit_name("moments", {"absent": index}) for index in range(2)]
    with pytest.raises(StoreError, match=r"2 of 7 units are missing; run `value-harvest capture` again"):
        merge_moments(store, units + absent, {})
    with pytest.raises(StoreError, match="0 of 0 units"):
        merge_rows(store, [], {})


def test_a_damaged_unit_is_never_merged(store: Store):
    units = _moments(store)
    chunk = Path(str(store.open(store.find(units[1]))), "mean/c/0/0")
    chunk.write_bytes(bytes(len(chunk.read_bytes())))
    with pytest.raises(DamagedStore, match="mean/c/0/0 was changed"):
        merge_moments(store, units, {})
    assert not any(one.is_file() for one in Path(store.root, "merged").rglob("*"))


def test_a_damaged_view_is_refused_by_readers_and_by_the_next_merge(tmp_path: Path):
    store = finished_store(tmp_path)
    units = [commit.unit for commit in store.commits("moments")]
    path = merge_moments(store, units, {"other": "view"})
    chunk = Path(path, "m2/c/1/0/0")
    chunk.write_bytes(Path(path, "m2/c/0/0/0").read_bytes())
    with open_merged(path) as merged:
        # what is whole can be read
        merged["mean"].load()
        for act in (merged["m2"].load, merged.load, lambda: merge_moments(store, units, {"other": "view"})):
            with pytest.raises(DamagedStore, match="m2/c/1/0/0 was changed; delete"):
                act()
    chunk.unlink()
    with open_merged(path) as merged, pytest.raises(DamagedStore, match="m2/c/1/0/0 is missing"):
        merged["m2"].load()


def test_rows_that_were_not_captured_are_asked_for(tmp_path: Path):
    with pytest.raises(NeedsRows, match="capture again with `rows: full`"):
        open_rows(tmp_path / "none.rows.zarr")

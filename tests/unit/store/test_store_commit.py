"""The first commit wins, whole, and whatever fails leaves nothing behind."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from stored import commit_moments, finished_store, random_questions

from harvest.errors import DamagedStore, StoreError
from harvest.store.commit import Store
from harvest.store.key import unit_name
from harvest.store.tree import tree_sha256
from harvest.store.verify import orphans, verify_store

UNIT = unit_name("answers", {"of": "a test"})


def _files(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


def test_a_commit_is_found_again_with_all_that_was_said_about_it(tmp_path: Path):
    store = Store(tmp_path / "new" / "store")
    assert store.find(UNIT) is None
    assert store.committed([UNIT]) == set()
    made = store.commit(UNIT, ".parquet", lambda path: path.write_bytes(b"abc"), {"host": "和", "v": [1]}, ["a", "b"])
    assert store.find(UNIT) == made
    assert (made.size_bytes, made.members, made.provenance) == (3, ("a", "b"), {"host": "和", "v": [1]})
    assert store.committed([UNIT, unit_name("rows", {})]) == {UNIT}
    assert store.open(made).read_bytes() == b"abc"
    assert made.sha256 == tree_sha256(store.open(made))


def test_the_first_commit_wins_and_the_second_attempt_is_removed(tmp_path: Path):
    store = Store(tmp_path)
    first = store.commit(UNIT, ".parquet", lambda path: path.write_bytes(b"first"), {})
    before = _files(tmp_path)
    assert store.commit(UNIT, ".parquet", lambda path: path.write_bytes(b"second"), {}) == first
    assert store.open(first).read_bytes() == b"first"
    assert _files(tmp_path) == before


def test_commits_of_a_kind_come_in_the_order_they_were_made(tmp_path: Path):
    store = Store(tmp_path)
    made = [commit_moments(store, str(seed), "g", random_questions(seed, [2])) for seed in range(5)]
    store.commit(UNIT, ".parquet", lambda path: path.write_bytes(b"abc"), {})
    assert store.commits("moments") == sorted(made, key=lambda one: (one.created_ns, one.unit))
    assert [commit.unit for commit in store.commits("answers")] == [UNIT]
    assert store.commits("rows") == []


def test_a_failed_attempt_leaves_nothing(tmp_path: Path):
    def fail(path: Path) -> None:
        path.mkdir()
        (path / "part").write_bytes(b"half")
        raise RuntimeError("broke")

    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="broke"):
        store.commit(UNIT, ".zarr", fail, {})
    assert _files(tmp_path) == set()
    assert store.find(UNIT) is None


def test_an_interrupt_right_after_the_link_keeps_what_it_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    link = os.link

    def interrupted(source: Path, target: Path) -> None:
        link(source, target)
        raise KeyboardInterrupt

    store = Store(tmp_path)
    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.commit(UNIT, ".parquet", lambda path: path.write_bytes(b"abc"), {})
    assert store.open(store.find(UNIT)).read_bytes() == b"abc"
    assert verify_store(tmp_path) == []


def test_a_link_that_is_made_but_reported_as_failed_counts_as_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    link = os.link

    def reported_as_failed(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError

    store = Store(tmp_path)
    monkeypatch.setattr(os, "link", reported_as_failed)
    commit = store.commit(UNIT, ".parquet", lambda path: path.write_bytes(b"abc"), {})
    assert store.open(commit).read_bytes() == b"abc"


def test_a_store_that_cannot_be_written_says_so_in_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    store = Store(tmp_path / "file" / "store")
    for act in (lambda: store.commit(UNIT, ".parquet", Path.touch, {}), lambda: store.write_plan({})):
        with pytest.raises(StoreError, match=r"Not a directory .*set another `store:`") as caught:
            act()
        assert "\n" not in str(caught.value)
    assert store.committed([UNIT]) == set()


def test_a_damaged_attempt_is_refused_by_name(tmp_path: Path):
    store = Store(tmp_path)
    commit = commit_moments(store, "a", "g", random_questions(0, [2]))
    chunk = store.open(commit) / "m2" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    with pytest.raises(DamagedStore, match=f"m2/c/0/0 was changed; delete .*{commit.unit}.json and run again"):
        store.open(commit)


def test_a_damaged_commit_is_refused_and_deleting_it_mends_the_store(tmp_path: Path):
    store = finished_store(tmp_path)
    unit = store.commits("answers")[0].unit
    store.commit_path(unit).write_bytes(b"")
    with pytest.raises(DamagedStore, match="was changed; delete"):
        store.find(unit)
    store.commit_path(unit).unlink()
    commit = store.commit(unit, ".parquet", lambda path: path.write_bytes(b"again"), {})
    assert store.open(commit).read_bytes() == b"again"
    assert verify_store(tmp_path) == []
    assert len(orphans(tmp_path)) == 2


def test_a_plan_is_kept_once_under_its_own_hash(tmp_path: Path):
    store = Store(tmp_path)
    key = store.write_plan({"units": ["a"], "n": 1})
    before = _files(tmp_path)
    assert store.write_plan({"n": 1, "units": ("a",)}) == key
    assert _files(tmp_path) == before
    assert store.read_plan(key) == {"units": ["a"], "n": 1}
    with pytest.raises(DamagedStore, match="is missing"):
        store.read_plan("0" * 40)


def test_names_that_are_no_units_reach_no_path(tmp_path: Path):
    store = Store(tmp_path)
    for name in ("../x", "/abs", "moments-", f"{UNIT}/..", f"{UNIT}\n", "a\0"):
        with pytest.raises(ValueError, match="not a name"):
            store.commit(name, ".parquet", Path.touch, {})
    assert _files(tmp_path) == set()


def test_a_store_travels_and_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(Store(Path("here")))
    monkeypatch.chdir("/")
    assert pickle.loads(data).root == tmp_path / "here"

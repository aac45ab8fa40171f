"""The first commit wins, whole, and whatever fails leaves nothing behind: in a folder as in a bucket."""

from __future__ import annotations

import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from places import Somewhere
from stored import commit_moments, finished_store, random_questions

from harvest.errors import DamagedStore, StoreError
from harvest.store.commit import Store
from harvest.store.folder import Folder
from harvest.store.key import unit_name
from harvest.store.record import tombstone
from harvest.store.verify import orphans, verify_store

UNIT = unit_name("answers", {"of": "a test"})


def _commit(store: Store, data: bytes, unit: str = UNIT):
    return store.commit(unit, ".parquet", lambda path: path.write_bytes(data), {})


def test_a_commit_is_found_again_with_all_that_was_said_about_it(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    assert store.find(UNIT) is None
    assert store.committed([UNIT]) == set()
    made = store.commit(UNIT, ".parquet", lambda path: path.write_bytes(b"abc"), {"host": "和", "v": [1]}, ["a", "b"])
    assert store.find(UNIT) == made
    assert (made.size_bytes, made.members, made.provenance) == (3, ("a", "b"), {"host": "和", "v": [1]})
    assert store.committed([UNIT, unit_name("rows", {})]) == {UNIT}
    assert store.find_all([unit_name("rows", {}), UNIT]) == [None, made]
    assert store.open(made).read() == b"abc"
    assert somewhere.files.names() == [
        f"attempts/{UNIT}/{made.stem}.json",
        f"attempts/{UNIT}/{made.attempt}",
        f"commits/{UNIT}.json",
        "store.json",
    ]


def test_the_first_commit_wins_and_nothing_is_written_after_it(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    first = _commit(store, b"first")
    before = somewhere.files.names()
    assert _commit(store, b"second") == first
    assert store.open(first).read() == b"first"
    assert somewhere.files.names() == before


def test_an_attempt_that_another_overtook_is_removed(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()

    def slow(path: Path) -> None:
        _commit(store, b"fast")
        path.write_bytes(b"slow")

    winner = store.commit(UNIT, ".parquet", slow, {})
    assert store.open(winner).read() == b"fast"
    assert len(somewhere.files.names()) == 4
    assert verify_store(store.root) == []
    assert orphans(store.root) == []


def test_a_writer_that_fails_where_another_committed_has_the_other_s_commit(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()

    def fail(path: Path) -> None:
        _commit(store, b"other")
        raise RuntimeError("broke")

    assert store.commit(UNIT, ".parquet", fail, {}) == store.find(UNIT)
    assert orphans(store.root) == []


def test_commits_of_a_kind_come_in_one_order_whatever_the_clocks_show(
    somewhere: Somewhere, monkeypatch: pytest.MonkeyPatch
):
    store = Store(somewhere.root).prepare()
    clock = iter([5, 10**20, -(10**9), 5, 0])
    with monkeypatch.context() as jumping:
        jumping.setattr(time, "time_ns", lambda: next(clock))
        made = [commit_moments(store, str(seed), "g", random_questions(seed, [2])) for seed in range(5)]
    _commit(store, b"abc")
    assert store.commits("moments") == sorted(made, key=lambda one: (one.created_ns, one.unit))
    assert [commit.unit for commit in store.commits("answers")] == [UNIT]
    assert store.commits("rows") == []
    assert verify_store(store.root) == []


def test_a_failed_attempt_leaves_nothing(somewhere: Somewhere):
    def fail(path: Path) -> None:
        path.mkdir()
        (path / "part").write_bytes(b"half")
        raise RuntimeError("broke")

    store = Store(somewhere.root).prepare()
    with pytest.raises(RuntimeError, match="broke"):
        store.commit(UNIT, ".zarr", fail, {})
    assert somewhere.files.names() == ["store.json"]
    assert store.find(UNIT) is None


def test_a_writer_that_was_taken_for_dead_writes_again_under_another_name(somewhere: Somewhere):
    store, place = Store(somewhere.root).prepare(), Store(somewhere.root).place
    names = []

    def write(path: Path) -> None:
        names.append(path.name)
        path.write_bytes(b"abc")
        if len(names) == 1:
            stem = path.name.partition(".")[0]
            assert place.create(f"attempts/{UNIT}/{stem}.json", tombstone(UNIT, stem))
            assert place.create(f"attempts/{UNIT}/{stem}.collected", tombstone(UNIT, stem))

    commit = store.commit(UNIT, ".parquet", write, {})
    assert len(set(names)) == 2
    assert commit.attempt == names[1]
    assert f"attempts/{UNIT}/{names[0]}" not in somewhere.files.names()
    assert verify_store(store.root) == []


def test_an_attempt_whose_writer_was_stopped_before_the_commit_is_not_made_twice(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    made = _commit(store, b"paid for")
    somewhere.files.delete(f"commits/{UNIT}.json")

    def never(path: Path) -> None:
        raise AssertionError("computed again")

    assert store.commit(UNIT, ".parquet", never, {}) == made
    somewhere.files.delete(f"commits/{UNIT}.json")
    somewhere.files.write(f"attempts/{UNIT}/{made.attempt}", b"paid f0r")
    again = _commit(store, b"again")
    assert store.open(again).read() == b"again"


def test_an_interrupt_right_after_the_commit_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    create = Folder.create

    def interrupted(place: Folder, key: str, data: bytes) -> bool:
        made = create(place, key, data)
        if key.startswith("commits/"):
            raise KeyboardInterrupt
        return made

    store = Store(tmp_path).prepare()
    monkeypatch.setattr(Folder, "create", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _commit(store, b"abc")
    assert store.open(store.find(UNIT)).read() == b"abc"
    assert verify_store(tmp_path) == []


def test_a_link_that_is_made_but_reported_as_failed_counts_as_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    link = os.link

    def reported_as_failed(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError

    store = Store(tmp_path).prepare()
    monkeypatch.setattr(os, "link", reported_as_failed)
    commit = _commit(store, b"abc")
    assert store.open(commit).read() == b"abc"


def test_a_store_that_cannot_be_written_says_so_in_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    store = Store(tmp_path / "file" / "store")
    for act in (lambda: store.commit(UNIT, ".parquet", Path.touch, {}), lambda: store.write_plan({})):
        with pytest.raises(StoreError, match=r"Not a directory .*set another `store:`") as caught:
            act()
        assert "\n" not in str(caught.value)
        assert caught.value.ends_run
    assert store.committed([UNIT]) == set()


def test_a_damaged_attempt_is_refused_by_name(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    commit = commit_moments(store, "a", "g", random_questions(0, [2]))
    tree = store.open(commit)
    chunk = tree.key_of("m2/c/0/0")
    somewhere.files.write(chunk, somewhere.files.read(chunk)[::-1])
    message = f"m2/c/0/0 was changed; delete .*{commit.unit}.json and run again"
    with pytest.raises(DamagedStore, match=message) as caught:
        tree.read("m2/c/0/0")
    assert not caught.value.ends_run
    with pytest.raises(DamagedStore, match=message):
        tree.read_range("m2/c/0/0", 0, 1)
    assert tree.differences() == [(chunk, "was changed")]
    somewhere.files.delete(chunk)
    with pytest.raises(DamagedStore, match="m2/c/0/0 is missing"):
        tree.read("m2/c/0/0")


def test_a_file_read_in_parts_is_compared_again_when_it_is_replaced(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    commit = _commit(store, b"0123456789")
    key, tree = f"attempts/{UNIT}/{commit.attempt}", store.open(commit)
    assert tree.read_range("", 2, 5) == b"234"
    somewhere.files.write(key, b"0123456789")
    assert tree.read_range("", 0, 10) == b"0123456789"
    somewhere.files.write(key, b"01234567890")
    with pytest.raises(DamagedStore, match="was changed"):
        tree.read_range("", 2, 5)
    somewhere.files.delete(key)
    with pytest.raises(DamagedStore, match="is missing"):
        tree.read_range("", 2, 5)


def test_a_damaged_commit_is_refused_and_deleting_it_mends_the_store(somewhere: Somewhere):
    store = finished_store(somewhere.root)
    before = store.commits("answers")[0]
    somewhere.files.write(f"commits/{before.unit}.json", b"")
    with pytest.raises(DamagedStore, match="was changed; delete"):
        store.find(before.unit)
    somewhere.files.delete(f"commits/{before.unit}.json")
    assert _commit(store, b"again", before.unit) == before
    assert verify_store(store.root) == []
    assert orphans(store.root) == []


def test_a_file_that_is_touched_while_threads_read_it_is_read_by_all(tmp_path: Path):
    store = Store(tmp_path).prepare()
    commit = store.commit(UNIT, ".parquet", lambda path: path.write_bytes(b"0123456789"), {})
    tree = store.open(commit)
    all_read, begun = threading.Barrier(4), set()

    class Touched(Folder):
        def read_range(self, key: str, start: int, stop: int, stamp: str) -> bytes | None:
            # at first, all hold the stamp of a file that was touched since
            if start not in begun:
                begun.add(start)
                all_read.wait(10)
                return None
            return super().read_range(key, start, stop, stamp)

    tree.place = Touched(store.root)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda at: tree.read_range("", at, at + 2), range(4))) == [b"01", b"12", b"23", b"34"]


def test_a_plan_is_kept_once_under_its_own_hash(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    key = store.write_plan({"units": ["a"], "n": 1})
    before = somewhere.files.names()
    assert store.write_plan({"n": 1, "units": ("a",)}) == key
    assert somewhere.files.names() == before
    assert store.read_plan(key) == {"units": ["a"], "n": 1}
    assert store.has_plan(key)
    assert not store.has_plan("0" * 40)
    with pytest.raises(DamagedStore, match="is missing"):
        store.read_plan("0" * 40)
    somewhere.files.write(f"plans/{key}.json", b"{}")
    with pytest.raises(DamagedStore, match="was changed; delete"):
        store.write_plan({"units": ["a"], "n": 1})


NAMES = [
    "../x", "/abs", "moments-", f"{UNIT}/..", f"{UNIT}\n", "a\0", f"{UNIT[:-3]}%2e", f"\u202e{UNIT}",
    "answers-" + "0" * 4096, f"{UNIT}/../{UNIT}",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_that_are_no_units_reach_no_path(somewhere: Somewhere, name: str):
    store = Store(somewhere.root)
    with pytest.raises(ValueError, match="not a name"):
        store.commit(name, ".parquet", Path.touch, {})
    with pytest.raises(ValueError, match="not a name"):
        store.find(name)
    for act in (store.has_plan, store.read_plan):
        with pytest.raises(ValueError, match="not a hash"):
            act(name)
    assert store.committed([name]) == set()
    assert somewhere.files.names() == []


def test_a_record_that_names_files_outside_the_store_is_damaged(tmp_path: Path):
    from harvest.store.sealed import seal

    store = Store(tmp_path / "store").prepare()
    commit = _commit(store, b"abc")
    (tmp_path / "secret").write_bytes(b"abc")
    [[_, size, sha]] = [(one.name, one.size_bytes, one.sha256) for one in commit.files]
    body = {
        "unit": UNIT, "sha256": "", "size_bytes": 3, "provenance": {}, "members": [], "created_ns": 0,
        "attempt": commit.attempt, "files": [["../../../secret", size, sha]],
    }  # fmt: skip
    for change in ({}, {"files": [["", size, sha]], "attempt": "../../../secret"}):
        Path(store.root, f"commits/{UNIT}.json").write_bytes(seal(body | change))
        with pytest.raises(DamagedStore, match="names files outside the store"):
            store.find(UNIT)


def test_a_store_travels_and_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(Store(Path("here"), fsync=True))
    monkeypatch.chdir("/")
    found = pickle.loads(data)
    assert (found.root, found.fsync) == (str(tmp_path / "here"), True)
    assert found == Store(tmp_path / "here", fsync=True) != Store(tmp_path / "here")

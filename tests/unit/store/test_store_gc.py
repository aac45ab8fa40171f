"""gc removes what no commit names and nothing else, and commits what was whole."""

from __future__ import annotations

from dataclasses import replace

from places import Somewhere
from stored import finished_store

from harvest.store.attempts import unit_slot
from harvest.store.commit import Store
from harvest.store.gc import HOUR_S, leftovers, sweep, twin_key
from harvest.store.key import unit_name
from harvest.store.record import sealed_commit
from harvest.store.verify import orphans, verify_store

NEW = unit_name("rows", {"name": "never committed"})
STEM = "a" * 32


def _abandon(somewhere: Somewhere, unit: str = NEW) -> str:
    key = f"attempts/{unit}/{STEM}.zarr/c/0"
    somewhere.files.write(key, b"half")
    return key


def test_a_whole_store_loses_nothing(somewhere: Somewhere):
    store = finished_store(somewhere.root)
    before = {key: somewhere.files.read(key) for key in somewhere.files.names()}
    found = sweep(store, 0, delete=True)
    assert (found.listed, found.done, found.size_bytes) == ((), 0, 0)
    assert {key: somewhere.files.read(key) for key in somewhere.files.names()} == before


def test_what_is_young_is_left_alone_and_nothing_is_touched_without_delete(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    key = _abandon(somewhere)
    for act in (lambda: sweep(store, HOUR_S, delete=True), lambda: sweep(store, 0)):
        found = act()
        [one] = found.listed
        assert (one.path, one.kind, one.size_bytes) == (f"{store.root}/attempts/{NEW}/{STEM}", "unfinished", 4)
        assert found.done == 0
        assert somewhere.files.names() == [key, "store.json"]


def test_an_abandoned_attempt_leaves_a_tombstone_until_its_unit_is_committed(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    _abandon(somewhere)
    assert sweep(store, 0, delete=True).size_bytes == 4
    tombstones = [f"attempts/{NEW}/{STEM}.json", twin_key(unit_slot(NEW), STEM)]
    assert somewhere.files.names() == sorted([*tombstones, "store.json"])
    assert leftovers(store) == []
    assert verify_store(store.root, grace_s=0) == []
    # its writer wakes up, and is killed while it writes on
    key = _abandon(somewhere)
    assert [one.kind for one in leftovers(store)] == ["collected"]
    assert sweep(store, 0, delete=True).done == 1
    assert key not in somewhere.files.names()
    store.commit(NEW, ".parquet", lambda path: path.write_bytes(b"x"), {})
    assert sweep(store, 0, delete=True).done == 1
    assert len(somewhere.files.names()) == 4
    assert verify_store(store.root, grace_s=0) == []


def test_a_whole_attempt_without_a_commit_is_committed_and_not_removed(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    made = store.commit(NEW, ".parquet", lambda path: path.write_bytes(b"paid for"), {})
    somewhere.files.delete(f"commits/{NEW}.json")
    _abandon(somewhere)
    found = sweep(store, 0, delete=True)
    assert {one.kind for one in found.listed} == {"whole", "unfinished"}
    assert found.done == 2
    assert store.find(NEW) == made
    assert store.open(made).read() == b"paid for"
    assert orphans(store.root) == []


def test_of_two_whole_attempts_one_is_committed_and_each_is_done_once(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    made = store.commit(NEW, ".parquet", lambda path: path.write_bytes(b"paid for"), {})
    somewhere.files.delete(f"commits/{NEW}.json")
    second = replace(made, attempt=f"{STEM}.parquet")
    somewhere.files.write(f"attempts/{NEW}/{STEM}.parquet", b"paid for")
    somewhere.files.write(f"attempts/{NEW}/{STEM}.json", sealed_commit(second))
    found = sweep(store, 0, delete=True)
    beaten = somewhere.files.names()
    assert [one.kind for one in found.listed] == ["whole", "whole"]
    # one was committed, and the other, which that made a beaten one, removed
    assert found.done == 2
    assert found.size_bytes == len(b"paid for") + len(sealed_commit(second))
    assert store.find(NEW) in (made, second)
    assert len(beaten) == 4
    assert orphans(store.root) == []


def test_what_a_damaged_record_may_have_spoken_for_is_not_touched(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    made = store.commit(NEW, ".parquet", lambda path: path.write_bytes(b"paid for"), {})
    key = _abandon(somewhere)
    commit, record = f"commits/{NEW}.json", f"attempts/{NEW}/{made.stem}.json"
    data = somewhere.files.read(commit)
    somewhere.files.write(commit, data[:-1])
    assert sweep(store, 0, delete=True).listed == ()
    somewhere.files.delete(commit)
    somewhere.files.write(record, data[:-1])
    assert sweep(store, 0, delete=True).done == 1
    assert somewhere.files.read(f"attempts/{NEW}/{made.attempt}") == b"paid for"
    assert key not in somewhere.files.names()
    # recorded, but not what was recorded: nobody commits it
    somewhere.files.write(record, data)
    somewhere.files.write(f"attempts/{NEW}/{made.attempt}", b"paid f0r")
    assert [one.kind for one in sweep(store, 0, delete=True).listed] == ["whole"]
    assert store.find(NEW) is None

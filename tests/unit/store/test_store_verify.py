"""Whatever happens to any file of a store, verify names it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import cycle, pairwise
from pathlib import Path

import pytest
from places import S3, Somewhere, new_folder, new_prefix
from stored import commit_moments, finished_store, random_questions

from harvest.errors import DamagedStore, InputError
from harvest.store.commit import Store
from harvest.store.gc import sweep
from harvest.store.key import unit_name
from harvest.store.sealed import seal, unseal
from harvest.store.verify import Damage, orphans, verify_store


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


HARM: dict[str, Callable[[bytes], bytes | None]] = {
    "truncate": lambda data: data[:-1],
    "flip": _flip,
    "zero": lambda data: bytes(len(data)),
    "empty": lambda data: b"",
    "delete": lambda data: None,
}


def whole_store(somewhere: Somewhere) -> Somewhere:
    """A store that has every kind of file, tombstones among them."""
    store = finished_store(somewhere.root)
    for unit in (unit_name("moments", {"name": "abandoned"}), store.commits("moments")[0].unit):
        for stem in ("0" * 32, "1" * 32):
            somewhere.files.write(f"attempts/{unit}/{stem}.zarr/zarr.json", b"half")
    assert sweep(store, 0, delete=True).done == 4
    return somewhere


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Somewhere:
    return whole_store(new_folder(tmp_path_factory.mktemp("stores")))


@pytest.fixture(scope="module")
def bucket(s3_server: S3) -> Somewhere:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in s3_server.environment.items():
            environment.setenv(name, value)
        return whole_store(new_prefix(s3_server))


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest) -> Somewhere:
    if request.param == "bucket":
        request.getfixturevalue("s3")
    return request.getfixturevalue(request.param)


def _is_record(key: str) -> bool:
    """Whether other files are judged by what this one says."""
    return key.endswith(".json") and not key.endswith("/zarr.json")


def _unnamed(somewhere: Somewhere, harmed: list[str]) -> list[str]:
    """Those of the harmed files that verify doesn't name."""
    named = {damage.path for damage in verify_store(somewhere.root, grace_s=0)}
    return sorted(key for key in harmed if f"{somewhere.root}/{key}" not in named)


def _put(somewhere: Somewhere, key: str, data: bytes | None) -> None:
    if data is None:
        somewhere.files.delete(key)
    else:
        somewhere.files.write(key, data)


def test_a_whole_store_has_no_damage(place: Somewhere):
    assert verify_store(place.root) == []
    assert orphans(place.root) == []
    keys = place.files.names()
    assert {key.partition("/")[0] for key in keys} == {"attempts", "commits", "merged", "plans", "store.json"}
    assert sum(key.endswith(".collected") for key in keys) == 2


@pytest.mark.parametrize("harm", list(HARM))
def test_every_harm_to_every_record_is_named(folder: Somewhere, harm: str):
    keys = list(filter(_is_record, folder.files.names()))
    assert len(keys) >= 19
    _harm_records(folder, keys, [harm])


def _harm_records(somewhere: Somewhere, keys: list[str], harms: list[str]) -> None:
    for key, harm in zip(keys, cycle(harms), strict=False):
        data = somewhere.files.read(key)
        _put(somewhere, key, HARM[harm](data))
        assert _unnamed(somewhere, [key]) == [], harm
        somewhere.files.write(key, data)
    assert verify_store(somewhere.root, grace_s=0) == []


@pytest.mark.parametrize("harm", list(HARM))
def test_every_harm_to_every_other_file_is_named(folder: Somewhere, harm: str):
    _harm_others(folder, [harm])


def _harm_others(somewhere: Somewhere, harms: list[str]) -> None:
    contents = {key: somewhere.files.read(key) for key in somewhere.files.names() if not _is_record(key)}
    assert len(contents) > 100
    for (key, data), harm in zip(contents.items(), cycle(harms), strict=False):
        _put(somewhere, key, HARM[harm](data))
    assert _unnamed(somewhere, list(contents)) == []
    for key, data in contents.items():
        somewhere.files.write(key, data)
    assert verify_store(somewhere.root, grace_s=0) == []


def test_harm_in_a_bucket_is_named_too(bucket: Somewhere, s3: S3):
    records = list(filter(_is_record, bucket.files.names()))
    one_of_each = {(key.partition("-")[0], key.count("/")): key for key in records}
    _harm_records(bucket, list(one_of_each.values()), list(HARM))
    _harm_others(bucket, list(HARM))


@pytest.mark.parametrize("room", ["commits", "attempts", "merged", "plans"])
def test_every_swap_of_two_alike_files_is_named(folder: Somewhere, room: str):
    num_swaps = 0
    # a record with a record: while one is damaged, what it speaks for can't be judged
    for records in (True, False):
        keys = [key for key in folder.files.names() if key.startswith(room) and _is_record(key) == records]
        for one, other in pairwise(keys):
            a, b = folder.files.read(one), folder.files.read(other)
            if a != b:
                num_swaps += 1
                folder.files.write(one, b)
                folder.files.write(other, a)
                assert _unnamed(folder, [one, other]) == []
                folder.files.write(one, a)
                folder.files.write(other, b)
    assert num_swaps > 0
    assert verify_store(folder.root, grace_s=0) == []


def test_every_swap_of_the_marker_with_a_record_is_named(folder: Somewhere):
    marker, keys = folder.files.read("store.json"), list(filter(_is_record, folder.files.names()))
    keys.remove("store.json")
    for key in keys:
        data = folder.files.read(key)
        folder.files.write("store.json", data)
        folder.files.write(key, marker)
        assert _unnamed(folder, ["store.json", key]) == []
        with pytest.raises(DamagedStore, match=r"store\.json was changed"):
            Store(folder.root).check()
        # the record alone
        folder.files.write("store.json", marker)
        assert _unnamed(folder, [key]) == []
        sweep(Store(folder.root), 0, delete=True)
        folder.files.write(key, data)
    assert len(keys) >= 18
    assert verify_store(folder.root, grace_s=0) == []


@pytest.mark.parametrize("body", [{}, {"unit": "u"}, {"files": 1}, {"files": [["a", 1]]}, {"attempt": 7}], ids=str)
def test_what_is_sealed_and_no_record_is_damage(folder: Somewhere, body: dict[str, object]):
    unit = Store(folder.root).commits("answers")[0].unit
    key = f"commits/{unit}.json"
    data = folder.files.read(key)
    whole = unseal(data, key) if body else {}
    folder.files.write(key, seal({**whole, **body}))
    with pytest.raises(DamagedStore, match=r"was changed|is the record of u"):
        Store(folder.root).find(unit)
    assert _unnamed(folder, [key]) == []
    folder.files.write(key, data)


def test_files_that_do_not_belong_are_named(place: Somewhere):
    view = next(key for key in place.files.names() if key.startswith("merged/") and key.endswith("/zarr.json"))
    unit = next(key for key in place.files.names() if key.startswith("attempts/rows-") and key.endswith("/zarr.json"))
    strays = [
        "commits/stray.json", "attempts/stray/file", "notes.txt", "plans/stray.json", "merged/stray.json",
        f"{view.rpartition('/')[0]}/stray", f"{unit.rpartition('/')[0]}/stray",
        f"{'/'.join(unit.split('/')[:2])}/stray",
    ]  # fmt: skip
    for stray in strays:
        place.files.write(stray, b"?")
    expected = sorted(Damage(f"{place.root}/{stray}", "does not belong") for stray in strays)
    assert verify_store(place.root, grace_s=0) == expected
    for stray in strays:
        place.files.delete(stray)


def test_left_over_attempts_are_harmless_and_listed_apart(place: Somewhere):
    unit = next(key for key in place.files.names() if key.startswith("attempts/moments-")).split("/")[1]
    left = {
        f"attempts/{unit}/{'a' * 32}.zarr/zarr.json": f"attempts/{unit}/{'a' * 32}",
        f"merged/{'0' * 40}/{'b' * 32}.zarr/zarr.json": f"merged/{'0' * 40}/{'b' * 32}",
        f"commits/.{'c' * 32}": f"commits/.{'c' * 32}",
    }
    for key in left:
        place.files.write(key, b"half")
    assert verify_store(place.root, grace_s=0) == []
    assert orphans(place.root) == sorted(f"{place.root}/{name}" for name in left.values())
    for key in left:
        place.files.delete(key)


def test_a_store_that_is_being_written_is_not_called_damaged(tmp_path: Path):
    store, stop = Store(tmp_path).prepare(), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            commit_moments(store, str(number), "g", random_questions(number, [2]))
            store.write_plan({"units": [str(number)]})
            number += 1

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        deadline, num_commits = time.monotonic() + 4, 0
        while time.monotonic() < deadline:
            assert verify_store(tmp_path, grace_s=1) == []
        num_commits = len(store.commits("moments"))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert num_commits > 3


def test_a_store_that_is_not_there_is_an_input_error(tmp_path: Path):
    with pytest.raises(InputError, match=r"there is no store at .*/typo; name the folder"):
        verify_store(tmp_path / "typo")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="there is no store"):
        verify_store(tmp_path)

"""Whatever happens to any file of a store, verify names it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from stored import finished_store

from harvest.errors import InputError
from harvest.store.verify import Damage, orphans, verify_store


def _flip(path: Path, data: bytes) -> None:
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


HARM: dict[str, Callable[[Path, bytes], object]] = {
    "truncate": lambda path, data: path.write_bytes(data[:-1]),
    "flip": _flip,
    "zero": lambda path, data: path.write_bytes(bytes(len(data))),
    "empty": lambda path, data: path.write_bytes(b""),
    "delete": lambda path, data: path.unlink(),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_store(tmp_path_factory.mktemp("store")).root


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _is_record(path: Path) -> bool:
    """Whether other files are judged by what this one says."""
    return path.suffix == ".json" and path.name != "zarr.json"


def _unnamed(root: Path, harmed: list[Path]) -> list[Path]:
    """Those of the harmed files that verify doesn't name."""
    return sorted(set(harmed) - {damage.path for damage in verify_store(root)})


def test_a_whole_store_has_no_damage(root: Path):
    assert verify_store(root) == []
    assert orphans(root) == []
    assert {path.relative_to(root).parts[0] for path in _files(root)} == {"attempts", "commits", "merged", "plans"}


@pytest.mark.parametrize("harm", list(HARM))
def test_every_harm_to_every_record_is_named(root: Path, harm: str):
    for path in filter(_is_record, _files(root)):
        data, links = path.read_bytes(), [one for one in _files(root) if one.samefile(path) and one != path]
        HARM[harm](path, data)
        # a record and the commit linked to it are one file: either name will do
        assert len(_unnamed(root, [path, *links])) < 1 + len(links), path
        if path.exists() or not links:
            path.write_bytes(data)
        else:
            path.hardlink_to(links[0])
    assert verify_store(root) == []


@pytest.mark.parametrize("harm", list(HARM))
def test_every_harm_to_every_other_file_is_named(root: Path, harm: str):
    contents = {path: path.read_bytes() for path in _files(root) if not _is_record(path)}
    assert len(contents) > 100
    for path, data in contents.items():
        HARM[harm](path, data)
    assert _unnamed(root, list(contents)) == []
    for path, data in contents.items():
        path.write_bytes(data)
    assert verify_store(root) == []


def _swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@pytest.mark.parametrize("folder", ["commits", "attempts", "merged", "plans"])
def test_every_swap_of_two_alike_files_is_named(root: Path, folder: str):
    num_swaps = 0
    # a record with a record: while one is damaged, what it speaks for can't be judged
    for records in (True, False):
        for one, other in pairwise(path for path in _files(root / folder) if _is_record(path) == records):
            if one.read_bytes() != other.read_bytes():
                num_swaps += 1
                _swap(one, other)
                assert _unnamed(root, [one, other]) == []
                _swap(one, other)
    assert num_swaps > 0
    assert verify_store(root) == []


def test_what_does_not_belong_is_named(root: Path):
    strays = [
        root / "commits" / "note.txt",
        next(root.glob("attempts/moments-*/*.zarr")) / "extra",
        root / "attempts" / "x",
    ]
    for stray in strays:
        stray.write_text("?")
    assert verify_store(root) == sorted(Damage(stray, "does not belong") for stray in strays)
    for stray in strays:
        stray.unlink()


def test_left_over_attempts_are_harmless_and_listed_apart(root: Path):
    unit = next(root.glob("attempts/moments-*"))
    left = [unit / f"{'0' * 32}.zarr", root / "merged" / f".{'0' * 32}"]
    for folder in left:
        folder.mkdir()
    assert verify_store(root) == []
    assert orphans(root) == sorted(left)
    for folder in left:
        folder.rmdir()


def test_a_store_that_is_not_there_is_an_input_error(tmp_path: Path):
    with pytest.raises(InputError, match="does not exist"):
        verify_store(tmp_path / "typo")

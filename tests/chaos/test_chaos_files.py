"""Every file of a finished store, damaged in every way."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from stored import finished_store

from chaos.table import Row, is_full
from harvest.store.verify import verify_store

AT_ONCE = {"grace_s": 0.0}
# nobody writes here, so what looks amiss need not be looked at again
EVERY = 10
# the quick set damages one file of so many


def truncated(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(1, len(data))]


def flipped(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]


def zeroed(data: bytes, dice: random.Random) -> bytes:
    return bytes(len(data))


def emptied(data: bytes, dice: random.Random) -> bytes:
    return b""


CHANGES = {"truncate": truncated, "flip": flipped, "zero": zeroed, "empty": emptied}


def named(root: Path, file: Path) -> bool:
    """Whether verify names the file, or the folder that holds it."""
    return any(Path(damage.path) in (file, *file.parents) for damage in verify_store(root, **AT_ONCE))


def replace(file: Path, data: bytes) -> None:
    """Other bytes under this name alone: a record and its commit are two names of one file."""
    file.unlink()
    file.write_bytes(data)


def test_verify_finds_every_corruption_of_every_file(
    row: Callable[[str, str], Row], dice: random.Random, tmp_path: Path
) -> None:
    line = row("every file × 6 corruptions", "verify finds 100 %")
    root = Path(finished_store(tmp_path / "store").root)
    assert verify_store(root) == []
    files = sorted(path for path in root.rglob("*") if path.is_file())
    content = {file: file.read_bytes() for file in files}
    linked = [file for file in files if file.stat().st_nlink > 1]
    missed: list[str] = []
    tried = dict.fromkeys([*CHANGES, "delete", "swap", "in place"], 0)

    def look(how: str, *damaged: Path) -> None:
        # one of two is enough: where a record is damaged, what it says of the other is not known any more
        tried[how] += 1
        line.times += 1
        found = any(named(root, file) for file in damaged)
        line.held += found
        if not found:
            missed.append(f"{how} {', '.join(str(file.relative_to(root)) for file in damaged)}")

    for file in files if is_full() else files[dice.randrange(EVERY) :: EVERY]:
        for how, change in CHANGES.items():
            data = change(content[file], dice)
            assert data != content[file]
            replace(file, data)
            look(how, file)
        file.unlink()
        look("delete", file)
        other = dice.choice([one for one in files if content[one] != content[file]])
        replace(other, content[file])
        file.write_bytes(content[other])
        look("swap", file, other)
        file.write_bytes(content[file])
        replace(other, content[other])
    # what rots on a disk rots under all its names
    for file in linked if is_full() else linked[:1]:
        for change in CHANGES.values():
            file.write_bytes(change(content[file], dice))
            look("in place", *(other for other in linked if other.samefile(file)))
            file.write_bytes(content[file])
    assert verify_store(root) == []
    assert not missed
    line.say(f"{len(files)} files; " + ", ".join(f"{how} {count}" for how, count in tried.items() if count))

"""What a file or a folder holds, file by file, and what has become of it since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path

from harvest.store.key import canonical_json


@dataclass(frozen=True, slots=True)
class File:
    """One file of a tree."""

    name: str
    # relative to the tree, with "/"; "" where the tree is a single file
    size_bytes: int
    sha256: str


def listing(path: Path) -> tuple[File, ...]:
    """Every file below a folder, or the one file, in the order of their names; raises FileNotFoundError on neither."""
    if path.is_dir():
        return tuple(_file(path, name) for name in _names(path))
    return (_file(path, ""),)


def _names(folder: Path) -> list[str]:
    return sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if not one.is_dir())


def _file(tree: Path, name: str) -> File:
    with (tree / name).open("rb") as stream:
        hexdigest = file_digest(stream, "sha256").hexdigest()
        return File(name, stream.tell(), hexdigest)


def sha256_of(files: Sequence[File]) -> str:
    """One hash over names, sizes and contents."""
    return sha256(canonical_json([[one.name, one.size_bytes, one.sha256] for one in files])).hexdigest()

"""The record of an attempt, which becomes the unit's commit if it is the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from harvest.store.sealed import damaged, seal, unseal
from harvest.store.tree import File


@dataclass(frozen=True, slots=True)
class Commit:
    """What is known about a committed unit."""

    unit: str
    attempt: str
    # the name below attempts/<unit>/
    sha256: str
    # over names, sizes and contents of the attempt's files
    size_bytes: int
    files: tuple[File, ...]
    provenance: Mapping[str, object]
    members: tuple[str, ...]
    created_ns: int
    # since the epoch, by the writer's clock


def pack(files: Iterable[File]) -> list[tuple[str, int, str]]:
    """A listing as records spell it."""
    return [astuple(one) for one in files]


def unpack(files: Iterable[tuple[str, int, str]]) -> tuple[File, ...]:
    """The listing that pack spelled."""
    return tuple(File(*one) for one in files)


def write_record(commit: Commit, path: Path) -> None:
    """Writes an attempt's record beside it."""
    path.write_bytes(seal({**asdict(commit), "files": pack(commit.files)}))


def read_record(path: Path) -> Commit:
    """The record at a path; raises FileNotFoundError, or DamagedStore if it was changed or is another unit's."""
    body = unseal(path.read_bytes(), path)
    commit = Commit(**{**body, "files": unpack(body["files"]), "members": tuple(body["members"])})
    # commits/<unit>.json, or attempts/<unit>/<attempt>.json
    if path not in (
        path.with_name(f"{commit.unit}.json"),
        path.parents[1] / commit.unit / f"{Path(commit.attempt).stem}.json",
    ):
        raise damaged(path, f"is the record of {commit.unit}", path)
    return commit

"""The record of an attempt, which becomes the unit's commit if it is the first; or the tombstone of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any

from harvest.store.place import Place
from harvest.store.sealed import damaged, seal, unseal
from harvest.store.tree import File

STEM = re.compile(r"[0-9a-f]{32}")
_ATTEMPT = re.compile(r"([0-9a-f]{32})(\.[a-z]+)+")


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
    # since the epoch, by the writer's clock: to be read by people

    @property
    def stem(self) -> str:
        """What the attempt and its record are both named by."""
        return self.attempt.partition(".")[0]


def sealed_commit(commit: Commit) -> bytes:
    """A record as it is stored."""
    return seal({**asdict(commit), "files": [astuple(one) for one in commit.files]})


def tombstone(unit: str, stem: str) -> bytes:
    """What stands in the place of the record of an attempt that was collected before it had one."""
    return seal({"unit": unit, "collected": stem})


def read_record(place: Place, key: str) -> Commit | None:
    """The record at a key, None if it is a tombstone.

    Raises FileNotFoundError, or DamagedStore if it was changed or is that of something else.
    """
    return parse_record(place.read(key), key, place.at(key))


def parse_record(data: bytes, key: str, where: str) -> Commit | None:
    """The record in some bytes that were read from a key."""
    body = unseal(data, where)
    # commits/<unit>.json and merged/<view>.json, or <unit>/<attempt>.json
    folder, _, name = key.removesuffix(".json").rpartition("/")
    unit = body.get("unit")
    if "collected" in body:
        if (folder.rpartition("/")[2], name) != (unit, body["collected"]):
            raise damaged(where, f"is the record of {unit}", where)
        return None
    try:
        commit = Commit(**{**body, "files": _files(body["files"]), "members": tuple(body["members"])})
        is_inside = _ATTEMPT.fullmatch(commit.attempt) and all(map(_stays_inside, commit.files))
    except (KeyError, TypeError, AttributeError):
        # whole, but what another file holds
        raise damaged(where, "was changed", where) from None
    if not is_inside:
        raise damaged(where, "names files outside the store", where)
    if name != unit and (folder.rpartition("/")[2], name) != (unit, commit.stem):
        raise damaged(where, f"is the record of {unit}", where)
    return commit


def _files(files: Iterable[Any]) -> tuple[File, ...]:
    return tuple(File(*one) for one in files)


def _stays_inside(file: File) -> bool:
    return not {"..", "."} & set(file.name.split("/")) and not file.name.startswith("/") and "\0" not in file.name

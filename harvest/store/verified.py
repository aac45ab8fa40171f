"""Files read as their record has them, or not at all.

Each file is compared with its sha256 as it is read. One that is read in parts is read through once when it is first
touched, and from then on in parts for as long as it is the same file: no one has to read 100 GB to look at a layer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

from harvest.errors import DamagedStore
from harvest.store.place import Place, in_parallel
from harvest.store.sealed import damaged
from harvest.store.tree import File


class Tree:
    """The files of a record; what stands beside them is not looked at."""

    def __init__(self, place: Place, key: str, files: Sequence[File], record: str) -> None:
        self.place = place
        self.key = key
        self.record = record
        # to be deleted where a file is damaged
        self.files = {one.name: one for one in files}
        self._stamps: dict[str, str] = {}
        self._metadata: dict[str, Any] = {}

    def __str__(self) -> str:
        return self.place.at(self.key)

    @property
    def unit(self) -> str:
        """The name of what this is an attempt at."""
        return self.key.split("/")[-2]

    def key_of(self, name: str) -> str:
        return f"{self.key}/{name}" if name else self.key

    def read(self, name: str = "") -> bytes:
        """A whole file; "" is the only one of an attempt that is a file. Raises DamagedStore."""
        try:
            data = self.place.read(self.key_of(name))
        except FileNotFoundError:
            raise self._damaged(name, "is missing") from None
        if len(data) != self.files[name].size_bytes or sha256(data).hexdigest() != self.files[name].sha256:
            raise self._damaged(name, "was changed")
        return data

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Some of the files, several at a time."""
        names = list(names)
        return dict(zip(names, in_parallel(self.read, names), strict=True))

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Some bytes of a file all of which was compared with the record; raises DamagedStore."""
        while True:
            # several threads read one tree: what another drops meanwhile is still in hand
            stamp = self._stamps.get(name) or self._check(name)
            self._stamps[name] = stamp
            try:
                data = self.place.read_range(self.key_of(name), start, stop, stamp)
            except FileNotFoundError:
                raise self._damaged(name, "is missing") from None
            if data is not None and len(data) == stop - start:
                return data
            # replaced since, or touched
            self._stamps.pop(name, None)

    def _check(self, name: str) -> str:
        """The stamp of a file that is as recorded."""
        try:
            stamp, found = hashed(self.place, self.key_of(name), name)
        except FileNotFoundError:
            raise self._damaged(name, "is missing") from None
        if found != self.files[name]:
            raise self._damaged(name, "was changed")
        return stamp

    def metadata(self, name: str = "") -> Any:
        """The zarr.json of the group, or of one of its arrays."""
        if name not in self._metadata:
            self._metadata[name] = json.loads(self.read(f"{name}/zarr.json".lstrip("/")))
        return self._metadata[name]

    def _damaged(self, name: str, what: str) -> DamagedStore:
        return damaged(self.place.at(self.key_of(name)), what, self.record)

    def differences(self) -> list[tuple[str, str]]:
        """Each key that isn't as recorded, with what is wrong about it, reading all of them; empty if all is well."""
        if "" in self.files:
            names = {""}
        else:
            names = {one.key.removeprefix(f"{self.key}/") for one in self.place.list(self.key)}
        stray = [(self.key_of(name), "does not belong") for name in names - self.files.keys()]
        return sorted([*stray, *((self.key_of(name), what) for name in self.files if (what := self._wrong(name)))])

    def _wrong(self, name: str) -> str:
        try:
            return "" if hashed(self.place, self.key_of(name), name)[1] == self.files[name] else "was changed"
        except FileNotFoundError:
            return "is missing"


def hashed(place: Place, key: str, name: str) -> tuple[str, File]:
    """A file's stamp, and the file as it is now; raises FileNotFoundError."""
    stamp, pieces = place.stream(key)
    size_bytes, hexdigest = 0, sha256()
    for piece in pieces:
        size_bytes += len(piece)
        hexdigest.update(piece)
    return stamp, File(name, size_bytes, hexdigest.hexdigest())

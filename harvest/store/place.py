"""Where a store's files are: one interface for a folder and for a bucket, and nothing above knows which it is.

A key names a file by its path below the root, with "/". Whatever the operating system or the network says against an
operation becomes a StoreError of one sentence; only a file that isn't there is a FileNotFoundError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from harvest.store.tree import File

T = TypeVar("T")
R = TypeVar("R")

PARALLEL = 8
# requests at a time: a bucket answers each in some ten milliseconds
PIECE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A file that a listing found."""

    key: str
    size_bytes: int
    modified_s: float
    # since the epoch, by the clock of whoever keeps the file


class Place(Protocol):
    """Travels to workers by pickle; credentials don't."""

    @property
    def root(self) -> str:
        """The absolute path, or the URL."""

    def at(self, key: str) -> str:
        """The path or URL of a key."""

    def read(self, key: str) -> bytes:
        """The whole file."""

    def stream(self, key: str) -> tuple[str, Iterator[bytes]]:
        """A stamp that changes when the file is replaced, and the file piece by piece."""

    def read_range(self, key: str, start: int, stop: int, stamp: str) -> bytes | None:
        """Some of the bytes of the file that had this stamp; None if it has another by now."""

    def exists(self, key: str) -> bool:
        """Whether there is a file of that key."""

    def names(self) -> list[str]:
        """What stands right below the root, files and folders; none if there is no root."""

    def list(self, prefix: str) -> list[Entry]:
        """Every file below a folder, "" for the root, in the order of their keys; none if there is no such folder."""

    def create(self, key: str, data: bytes) -> bool:
        """Makes a file that appears whole or not at all, unless one is there.

        Whether what stands there is this data: a request that was sent twice, its first answer lost, counts as made.
        """

    def put(self, key: str, data: bytes) -> None:
        """Writes a file that nobody looks at yet."""

    def staged(self, key: str) -> AbstractContextManager[Path]:
        """A fresh local path for what will stand at the key, a file or a folder, once `land` has brought it there."""

    def land(self, path: Path, key: str, files: Sequence[File]) -> None:
        """Brings what was written at a staged path to its key."""

    def settle(self, key: str) -> None:
        """Forces what stands at a key to the disk, where that was asked for."""

    def remove(self, key: str) -> None:
        """Removes the file, or everything below the folder, if there is one."""


def is_url(root: str | Path) -> bool:
    return isinstance(root, str) and "://" in root


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The function's results in the order of the items; the first error is raised once those begun are through."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(function, items))

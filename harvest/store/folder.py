"""A store in a folder, through the operating system.

With `fsync` a file is on the disk before another one speaks of it: contents, then the folders that name them, then
the record, then the commit.
"""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from harvest.errors import StoreError
from harvest.store.place import PIECE_BYTES, Entry
from harvest.store.tree import File


@dataclass(frozen=True)
class Folder:
    """A folder that may not be there yet."""

    root: str
    fsync: bool = False

    def at(self, key: str) -> str:
        return f"{self.root}/{key}" if key else self.root

    def _path(self, key: str) -> Path:
        return Path(self.root, key)

    def read(self, key: str) -> bytes:
        with _told(self.root):
            return self._path(key).read_bytes()

    def stream(self, key: str) -> tuple[str, Iterator[bytes]]:
        with _told(self.root):
            descriptor = os.open(self._path(key), os.O_RDONLY)
        return _stamp(descriptor), self._pieces(descriptor)

    def _pieces(self, descriptor: int) -> Iterator[bytes]:
        with _told(self.root), os.fdopen(descriptor, "rb", buffering=0) as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    def read_range(self, key: str, start: int, stop: int, stamp: str) -> bytes | None:
        with _told(self.root), self._path(key).open("rb") as file:
            if _stamp(file.fileno()) != stamp:
                return None
            file.seek(start)
            return file.read(stop - start)

    def exists(self, key: str) -> bool:
        with _told(self.root):
            return self._path(key).is_file()

    def names(self) -> list[str]:
        with _told(self.root), suppress(FileNotFoundError):
            return sorted(path.name for path in Path(self.root).iterdir())
        return []

    def list(self, prefix: str) -> list[Entry]:
        with _told(self.root):
            return sorted(_walk(str(self._path(prefix)), f"{prefix}/" if prefix else ""))

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with _told(self.root):
            made = None
            while made is None:
                made = self._link(path, data)
        return made

    def _link(self, path: Path, data: bytes) -> bool | None:
        """Whether the file is this data; None if either name was removed meanwhile, and it has to be tried again."""
        unfinished = path.with_name(f".{uuid4().hex}")
        try:
            self._write(unfinished, data)
            os.link(unfinished, path)
        except FileExistsError:
            # over NFS a link can be made and reported as failed
            with suppress(FileNotFoundError):
                return path.read_bytes() == data
            return None
        except FileNotFoundError:
            if unfinished.exists():
                raise
            return None
        finally:
            with suppress(FileNotFoundError, NotADirectoryError):
                unfinished.unlink()
        self._sync_up(path)
        return True

    def put(self, key: str, data: bytes) -> None:
        with _told(self.root):
            self._write(self._path(key), data)

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(data)
            if self.fsync:
                file.flush()
                os.fsync(file.fileno())

    @contextmanager
    def staged(self, key: str) -> Iterator[Path]:
        with _told(self.root):
            path = self._path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path

    def land(self, path: Path, key: str, files: Sequence[File]) -> None:  # noqa: ARG002 it was written where it stands
        self.settle(key)

    def settle(self, key: str) -> None:
        path = self._path(key)
        with _told(self.root):
            if not self.fsync:
                return
            for folder, _, names in os.walk(path, topdown=False):
                for name in names:
                    _force(Path(folder, name))
                _force(Path(folder))
            if path.is_file():
                _force(path)
            self._sync_up(path)

    def _sync_up(self, path: Path) -> None:
        """Forces the names of a path to the disk, up to the root's own."""
        if self.fsync:
            root = Path(self.root)
            for folder in path.parents[: len(path.relative_to(root).parts) + 1]:
                _force(folder)

    def remove(self, key: str) -> None:
        path = self._path(key)
        with _told(self.root):
            if not path.is_dir():
                path.unlink(missing_ok=True)
                return
            for folder, _, names in os.walk(path, topdown=False):
                for name in names:
                    Path(folder, name).unlink(missing_ok=True)
                _remove_folder(Path(folder))


def _remove_folder(path: Path) -> None:
    """Removes an empty folder; one that a writer still adds to is left to the next gc."""
    try:
        path.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise


def _stamp(descriptor: int) -> str:
    found = os.fstat(descriptor)
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"


def _force(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(folder: str, prefix: str) -> Iterator[Entry]:
    # what is removed while it is looked at was not there
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
        for one in found:
            if one.is_dir(follow_symlinks=False):
                yield from _walk(one.path, f"{prefix}{one.name}/")
            else:
                with suppress(FileNotFoundError):
                    stat = one.stat(follow_symlinks=False)
                    yield Entry(f"{prefix}{one.name}", stat.st_size, stat.st_mtime)


FULL = (errno.ENOSPC, errno.EDQUOT)
_LOST = (errno.ESTALE, errno.EIO)
_LINKLESS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


@contextmanager
def _told(root: str) -> Iterator[None]:
    """Turns what the operating system says about a store into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise
    except IsADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, error.filename) from error
    except OSError as error:
        raise StoreError(_sentence(root, error)) from error


def _sentence(root: str, error: OSError) -> str:
    where = f"{error.strerror or error} ({error.filename})" if error.filename else str(error.strerror or error)
    host = platform.node()
    if error.errno in FULL:
        return f"store {root}: no space left on {host}; what is committed is safe: free some space and run again"
    if error.errno in _LOST:
        return f"store {root}: {where}; what is committed is safe: mount the file system on {host} and run again"
    if error.errno in _LINKLESS:
        return f"store {root}: {where}; its file system has no hard links: set another `store:`"
    return f"store {root}: {where}; make it usable on {host} or set another `store:`"

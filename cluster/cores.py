"""Cores that a process claims for itself, so that neither its neighbours in a pool nor those of another pool use them.

A claim is a lock on a file that stands for the core. The system takes it away when the process ends, however that was.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cluster.actor import MakeWorker, Worker
from cluster.errors import ClusterError

_WAIT_S = 3.0  # the cores of a process that was just killed become free once its memory is given back

_held = ExitStack()
# this process's locks, to its end


@dataclass(frozen=True, slots=True)
class OnOwnCores:
    """Makes a worker whose process runs on cores of its own; on any, while too few are free."""

    make_worker: MakeWorker
    num_cores: int

    def __call__(self, place: int) -> Worker:
        cores = claim(self.num_cores)
        if cores is not None:
            bind(cores)
        return self.make_worker(place)


def claim(num_cores: int, wait_s: float = _WAIT_S) -> list[int] | None:
    """So many of the cores that this process may use, its own until it ends; None if others hold too many of them.

    Raises ClusterError if the folder of the locks is not this user's alone.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < num_cores:
        return None
    folder = lock_folder()
    end = time.monotonic() + wait_s
    while (cores := _claim_now(folder, usable, num_cores)) is None and time.monotonic() < end:
        time.sleep(0.1)
    return cores


def bind(cores: list[int]) -> None:
    """Binds every thread of this process; those that they start inherit it."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), cores)


def lock_folder() -> Path:
    """Where this user's locks are, on this machine; the same whatever session or job asks."""
    folder = Path(f"/tmp/value-harvest-{os.getuid()}")  # noqa: S108 - checked below
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ClusterError(
            f"{folder}: is not a folder that you alone can write to, so its locks prove nothing; remove it, or set "
            "cluster.bind_cores: false"
        )
    return folder


def _claim_now(folder: Path, usable: list[int], num_cores: int) -> list[int] | None:
    with _one_at_a_time(folder), ExitStack() as locks:
        cores = []
        for core in usable:
            file = locks.enter_context((folder / f"core-{core}").open("w"))
            if _lock(file):
                cores.append(core)
            if len(cores) == num_cores:
                _held.push(locks.pop_all())
                return cores
    return None


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Two who claim at once would each take a part of the last cores, and both go without."""
    with (folder / "claiming").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

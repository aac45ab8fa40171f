"""What really happened, told by the processes that did it: a line each, which their death cannot tear."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

PROGRESS_S = 120.0
# how long a disaster waits for progress since the last one


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the journal."""

    at_ns: int
    pid: int
    what: str
    number: int = -1
    # of the unit
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Journal:
    """A folder of evidence, in which every disaster demands progress since the last one."""

    folder: Path

    def note(self, what: str, number: int = -1, detail: str = "", pid: int = 0) -> None:
        """Adds a line; one write, so lines of several processes never mix."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps([time.time_ns(), pid or os.getpid(), what, number, detail]) + "\n"
        handle = os.open(self.folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def read(self) -> list[Entry]:
        """All lines, oldest first; empty before the first."""
        try:
            lines = (self.folder / "journal").read_text().splitlines()
        except FileNotFoundError:
            return []
        return sorted((Entry(*json.loads(line)) for line in lines), key=lambda entry: entry.at_ns)

    def num_kept(self) -> int:
        """Units whose workers told that they committed them; what dies before it can tell is progress untold."""
        return sum(entry.what in ("kept", "adopted") for entry in self.read())

    def last_strike(self) -> int:
        """Units that were kept when the last disaster came; 0 before the first."""
        return max((int(entry.detail.split()[0]) for entry in self.read() if entry.what == "struck"), default=0)

    @contextmanager
    def after_progress(self) -> Iterator[int]:
        """Waits until more is kept than when the last disaster came; disasters come one at a time.

        Gives the number of units kept. Raises TimeoutError where nothing moves any more.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before, end = self.last_strike(), time.monotonic() + PROGRESS_S
            while self.num_kept() <= before:
                if time.monotonic() > end:
                    raise TimeoutError(f"no progress since the last disaster, at {before} units")
                time.sleep(0.005)
            yield self.num_kept()

    def strike(self, pid: int, number: int, what: str, mark: Path | None = None) -> None:
        """SIGKILL, once there was progress since the last one; the mark is made then, and not if another came first."""
        with self.after_progress() as kept:
            self.note("struck", number, f"{kept} {what}", pid)
            if mark is not None:
                mark.touch()
            os.kill(pid, signal.SIGKILL)
            time.sleep(10 if pid == os.getpid() else 0)  # the signal is on its way


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(happened: object, limit_s: float, what: str, every_s: float = 0.01) -> None:
    """Returns as soon as `happened()` is true; raises TimeoutError, naming what did not happen."""
    assert callable(happened)
    end = time.monotonic() + limit_s
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"after {limit_s:g} s still not: {what}")
        time.sleep(every_s)

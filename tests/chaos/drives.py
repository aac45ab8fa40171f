"""Drivers as the tests start, watch and kill them, and the laws that hold whatever was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from chaos.job import unit_of
from chaos.journal import Entry, Journal, is_alive, wait_until

HERE = Path(__file__).parent
END_S = 240.0
# for a line from a driver that works undisturbed


def environment() -> dict[str, str]:
    """What a driver and its workers need to find the project and the job."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [HERE.parents[1], HERE.parent]))}


@dataclass(slots=True)
class Chaos:
    """A job with its store and its evidence."""

    root: Path
    rounds: list[list[int]]
    dooms: Mapping[int, tuple[Any, ...]] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    # of the driver's: address, policy, actors, pace_s, merge, small, environment, retry_s
    place: str = ""
    # of the store, if it isn't beside the evidence

    @property
    def store(self) -> Path:
        return Path(self.place or self.root / "store")

    @property
    def journal(self) -> Journal:
        return Journal(self.root / "evidence")

    @property
    def num_units(self) -> int:
        return sum(map(len, self.rounds))

    def commits(self) -> dict[str, bytes]:
        """Every commit record as it stands."""
        return {path.name: path.read_bytes() for path in self.store.glob("commits/*.json")}

    @contextmanager
    def drive(self, prefix: Sequence[str] = ()) -> Iterator[Drive]:
        """A driver at work, killed with all its processes if it still runs at the end."""
        spec = {"store": self.place or str(self.store), "folder": str(self.root / "evidence"), "rounds": self.rounds}
        spec |= {"dooms": self.dooms, **self.more}
        command = [*prefix, sys.executable, "-m", "chaos.driver", json.dumps(spec)]
        drive = Drive(command, self.root / "driver.log", {**environment(), **self.more.get("environment", {})})
        try:
            yield drive
        finally:
            drive.kill()

    def check(self, answer: Mapping[str, Any], sha256: str, tokens: int) -> None:
        """What came out is what an undisturbed run gives, and nothing was counted or computed twice."""
        assert (answer["sha256"], answer["tokens"]) == (sha256, tokens)
        self.check_computed_once()

    def check_computed_once(self, zombies: frozenset[int] = frozenset()) -> None:
        """No unit was measured by two that survived, nor by anyone once it was committed.

        Of the killed and the cut off, who may have measured what another measured too, the pids are known.
        """
        entries = self.journal.read()
        lost = {entry.pid for entry in entries if entry.what == "struck"} | zombies
        measured = Counter(entry.number for entry in entries if entry.what == "measure" and entry.pid not in lost)
        twice = {number: count for number, count in measured.items() if count > 1}
        assert not twice, f"measured more than once by workers that lived: {twice}"
        kept: set[int] = set()
        for entry in entries:
            if entry.what in ("kept", "adopted"):
                kept.add(entry.number)
            assert not (entry.what == "measure" and entry.number in kept), f"measured though committed: {entry}"

    def open_measures(self, pids: frozenset[int], before_ns: int) -> set[int]:
        """The units that these workers had begun and not committed at a time."""
        told = [entry for entry in self.journal.read() if entry.pid in pids and entry.at_ns <= before_ns]
        ended = {entry.number for entry in told if entry.what in ("kept", "adopted", "lost")}
        return {entry.number for entry in told if entry.what == "measure"} - ended

    def is_committed(self, numbers: set[int]) -> bool:
        return all((self.store / "commits" / f"{unit_of(number)}.json").exists() for number in numbers)


def check_kept(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    """No commit was lost or changed."""
    assert {name: after.get(name) for name in before} == dict(before)


def living_workers(entries: Sequence[Entry], node: str | None = None) -> list[int]:
    """The pids of workers that live, of one node or of all."""
    born = [entry for entry in entries if entry.what == "born"]
    return [one.pid for one in born if node in (None, one.detail.split()[0]) and is_alive(one.pid)]


class Drive:
    """One driver process."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("a") as stderr:
            self._process = subprocess.Popen(
                command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def hear(self, key: str) -> dict[str, Any]:
        """The next object on its stdout that has the key, or an error's; raises RuntimeError if it ends before."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                told = json.loads(line)
                if key in told or "error" in told:
                    return dict(told)
        raise RuntimeError(f"the driver ended with {self._process.wait()}: {self._log.read_text()[-3000:]}")

    def go_on(self) -> None:
        """Starts its next round."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def finish(self) -> None:
        """Waits until it has ended of itself."""
        self._process.communicate(timeout=60)

    def kill(self, patience_s: float = 60.0) -> list[int]:
        """SIGKILL, if it still runs; waits until its children of that time are gone too, and gives their pids."""
        family: list[int] = []
        if self.running:
            family = [child.pid for child in _children(self.pid)]
            os.kill(self.pid, signal.SIGKILL)
        self._process.communicate()
        # Ray's agents take a minute to report the death; they touch no store
        wait_until(lambda: not any(is_alive(pid) and not _is_agent(pid) for pid in family), patience_s, "children gone")
        return family


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_agent(pid: int) -> bool:
    try:
        return "gent" in " ".join(psutil.Process(pid).cmdline()[:3])
    except psutil.Error:
        return True

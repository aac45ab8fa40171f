"""A job whose every number is known: real units in a real store, made of nothing but their own number.

A payload may carry a doom, the point at which its worker dies. The worker is instrumented, the store is not.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from stored import plain_moments, random_questions

from chaos.journal import Journal, wait_until
from harvest.store.arrays import Dimensioned, write_group
from harvest.store.commit import Store
from harvest.store.key import unit_name
from harvest.store.schema import MOMENTS

NUM_GROUPS = 4
LENGTHS = (3, 1, 4)
# counted tokens of each of a unit's answers

Content = tuple[dict[str, Dimensioned], dict[str, object]]


def unit_of(number: int) -> str:
    """The unit's name."""
    return unit_name("moments", {"chaos": number})


def measure(number: int, salt: int = 0) -> Content:
    """The same bytes for the same unit on every machine; with another salt others, as a second measurement gives."""
    values = plain_moments(random_questions(1_000_003 * salt + number, LENGTHS))
    arrays = {key: (spec.dims, values[key].astype(spec.dtype)) for key, spec in MOMENTS.items()}
    counts = {"token_count": sum(LENGTHS), "question_count": len(LENGTHS)}
    return arrays, {"group": f"chaos/{number % NUM_GROUPS}", "layer": [0, 1], **counts}


def measure_small(number: int) -> Content:
    """A unit of one variable, of which there may be thousands."""
    values = np.full((2, 3), number, np.float64)
    return {"mean": (("layer", "neuron"), values)}, {"group": "chaos"}


def writer(content: Content) -> Callable[[Path], None]:
    """What a store's commit calls with the attempt's path."""
    return partial(write_group, arrays=content[0], attributes=content[1])


def num_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def copy_part(source: Path, target: Path, size_bytes: int) -> None:
    """A tree up to a number of bytes, the last file torn."""
    target.mkdir(parents=True)
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        data = file.read_bytes()[:size_bytes]
        (target / file.relative_to(source)).write_bytes(data)
        size_bytes -= len(data)
        if size_bytes <= 0:
            return


@dataclass(frozen=True, slots=True)
class Errand:
    """A task's payload."""

    number: int
    doom: str = ""
    # "measuring", "writing", "linking", "answering": its worker dies there, once; "poison": each time it measures;
    # "holding": it stops in mid-write on the node named by `where` until it is released
    at: float = 0.5
    # the part of the measurement or of the bytes that is done by then
    where: str = ""


_doomed = threading.local()


def is_commit(event: str, arguments: Any) -> bool:
    """Whether an audit event says that a commit is about to be made: its attempt and its record are there by then."""
    return event == "os.link" and "/commits/" in str(arguments[1])


def _hook(event: str, arguments: Any) -> None:
    if is_commit(event, arguments) and getattr(_doomed, "strike", None) is not None:
        _doomed.strike()


class Worker:
    """Measures and commits one unit a call; called from as many threads as the pool likes."""

    def __init__(self, store: Store, journal: Journal, pace_s: float, small: bool) -> None:
        self._store, self._journal, self._pace_s = store, journal, pace_s
        self._measure = measure_small if small else measure
        self.node = os.environ.get("CHAOS_NODE", "")
        journal.note("born", detail=f"{os.getppid()} {self.node}")
        sys.addaudithook(_hook)

    def __call__(self, errand: Errand) -> int:
        number, unit = errand.number, unit_of(errand.number)
        if self._store.find(unit) is not None:
            self._journal.note("found", number)
            return number
        self._journal.note("measure", number, self.node)
        doom = errand.doom if self._is_due(errand) else ""
        time.sleep(self._pace_s * errand.at)
        if doom == "poison":
            self._journal.note("struck", number, f"{self._journal.num_kept()} poison")
            os.kill(os.getpid(), 9)
        if doom == "measuring":
            self._die(errand)
        time.sleep(self._pace_s * (1 - errand.at))
        write = writer(self._measure(number))
        if doom in ("writing", "holding"):
            write = partial(self._write_part, errand, write)
        _doomed.strike = partial(self._die, errand) if doom == "linking" else None
        written: list[Path] = []

        def attempt(path: Path) -> None:
            written.append(path)
            write(path)

        commit = self._store.commit(unit, ".zarr", attempt, {"pid": os.getpid()})
        _doomed.strike = None
        beaten = "lost" if written else "adopted"
        # what a killed writer had recorded may be committed for it by whoever comes next
        self._journal.note("kept" if commit.provenance["pid"] == os.getpid() else beaten, number, self.node)
        if doom == "answering":
            self._die(errand)
        return number

    def _is_due(self, errand: Errand) -> bool:
        if errand.doom == "holding":
            return errand.where == self.node
        return errand.doom == "poison" or not self._mark(errand).exists()

    def _mark(self, errand: Errand) -> Path:
        return self._journal.folder / f"doom-{errand.number}-{errand.doom}"

    def _die(self, errand: Errand) -> None:
        self._journal.strike(os.getpid(), errand.number, errand.doom, self._mark(errand))

    def _write_part(self, errand: Errand, write: Callable[[Path], None], path: Path) -> None:
        """Dies, or waits, with so many bytes of the attempt on the disk."""
        whole = self._journal.folder / f"whole-{os.getpid()}-{errand.number}"
        write(whole)
        copy_part(whole, path, max(1, int(errand.at * num_bytes(whole))))
        if errand.doom == "writing":
            self._die(errand)
        self._journal.note("holding", errand.number, self.node)
        release = self._journal.folder / f"release-{errand.number}"
        wait_until(release.exists, 300, f"{release.name} is there")
        shutil.rmtree(path)
        write(path)


def be_patient(retry_s: float | None) -> None:
    """Sets how long this process's clients of a bucket try again; None leaves the store's own time."""
    if retry_s is not None:
        from harvest.store import bucket

        bucket.RETRY_S = retry_s


@dataclass(frozen=True, slots=True)
class Hire:
    """Makes a worker in its actor."""

    store: Store
    journal: Journal
    pace_s: float
    small: bool = False
    retry_s: float | None = None

    def __call__(self, place: int) -> Worker:
        be_patient(self.retry_s)
        return Worker(self.store, self.journal, self.pace_s, self.small)

"""A process that attempts every unit with bytes of its own, and stops itself in mid-write where it was told to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from chaos.job import copy_part, is_commit, measure, num_bytes, unit_of, writer
from chaos.journal import Journal, wait_until
from harvest.store.commit import Store
from harvest.store.tree import listing, sha256_of


def stop(journal: Journal, number: int, where: str) -> None:
    """SIGSTOP, until someone else continues this process."""
    journal.note("stopping", number, where)
    os.kill(os.getpid(), signal.SIGSTOP)
    journal.note("continued", number, where)


def stopping(journal: Journal, number: int, write: Callable[[Path], None], path: Path) -> None:
    """Half an attempt, then SIGSTOP; whoever is continued writes the whole of it."""
    whole = journal.folder / f"whole-{os.getpid()}-{number}"
    write(whole)
    copy_part(whole, path, num_bytes(whole) // 2)
    stop(journal, number, "in mid-write")
    shutil.rmtree(path)
    write(path)


def stop_at_link(journal: Journal) -> Callable[[int], None]:
    """A call after which this process stops before it makes its next hard link: its record is written by then."""
    due: list[int] = []

    def hook(event: str, arguments: object) -> None:
        if due and is_commit(event, arguments):
            stop(journal, due.pop(), "before the commit")

    sys.addaudithook(hook)
    return due.append


def line_up(journal: Journal, salt: int, num_racers: int, number: int) -> None:
    """Waits until every racer is about to write the unit: by then none of them has found it committed."""
    (journal.folder / f"at-{number}-{salt}").touch()
    racers = [journal.folder / f"at-{number}-{racer}" for racer in range(num_racers)]
    wait_until(lambda: all(racer.exists() for racer in racers), 120, "all racers are there", 0.0005)


def race(store: Store, journal: Journal, salt: int, *, num_racers: int, num_units: int, stops: set[int]) -> None:
    """Notes what came of each attempt: its own hash, and the one that the store answered with.

    It stops at the units named: at the odd ones in mid-write, at the even ones between record and commit.
    """
    arm = stop_at_link(journal)
    for number in range(num_units):
        if number in stops and number % 2 == 0:
            arm(number)
        own = ""

        def write(path: Path, number: int = number) -> None:
            nonlocal own
            line_up(journal, salt, num_racers, number)
            plain = writer(measure(number, salt))
            (partial(stopping, journal, number, plain) if number in stops and number % 2 else plain)(path)
            own = sha256_of(listing(path))

        commit = store.commit(unit_of(number), ".zarr", write, {"salt": salt})
        journal.note("won" if commit.provenance["salt"] == salt else "lost", number, f"{own} {commit.sha256}")


if __name__ == "__main__":
    root, evidence, salt, num_racers, num_units, stops = json.loads(sys.argv[1])
    journal = Journal(Path(evidence))
    race(Store(Path(root)), journal, salt, num_racers=num_racers, num_units=num_units, stops=set(stops))

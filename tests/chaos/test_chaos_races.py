"""Several processes attempt the same units, each with other bytes, and some come back from the dead."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from chaos.drives import environment
from chaos.job import measure, unit_of, writer
from chaos.journal import Journal
from chaos.table import Row, scaled
from harvest.store.commit import Store
from harvest.store.tree import listing, sha256_of
from harvest.store.verify import verify_store

NUM_RACERS = 4
LIMIT_S = 300.0


def start(root: Path, salt: int, num_units: int, stops: list[int]) -> subprocess.Popen[bytes]:
    spec = json.dumps([str(root / "store"), str(root / "evidence"), salt, NUM_RACERS, num_units, stops])
    return subprocess.Popen([sys.executable, "-m", "chaos.races", spec], env=environment())


def wake_beaten(journal: Journal, store: Store, racers: list[subprocess.Popen[bytes]]) -> int:
    """Continues each stopped process once another has committed the unit it holds; how many there were."""
    woken: set[tuple[int, int]] = set()
    end = time.monotonic() + LIMIT_S
    while any(racer.poll() is None for racer in racers):
        assert time.monotonic() < end, "the race does not end"
        for entry in journal.read():
            stopped = entry.what == "stopping" and (entry.pid, entry.number) not in woken
            if stopped and store.find(unit_of(entry.number)) is not None:
                if psutil.Process(entry.pid).status() != psutil.STATUS_STOPPED:
                    continue
                os.kill(entry.pid, signal.SIGCONT)
                woken.add((entry.pid, entry.number))
        time.sleep(0.02)
    return len(woken)


def test_racing_attempts_and_zombies_never_part_bytes_from_their_commit(
    row: Callable[[str, str], Row], dice: random.Random, tmp_path: Path
) -> None:
    line = row("racing attempts, SIGSTOP zombies", "no mismatch between bytes and commit")
    num_units = -(-scaled(500) // NUM_RACERS)
    store, journal = Store(tmp_path / "store").prepare(), Journal(tmp_path / "evidence")
    journal.folder.mkdir()
    stops: list[list[int]] = [[] for _ in range(NUM_RACERS)]
    for number in dice.sample(range(num_units), num_units // 3):
        # never all of them: whoever stops is to be beaten
        for salt in dice.sample(range(NUM_RACERS), dice.randrange(1, NUM_RACERS)):
            stops[salt].append(number)
    racers = [start(tmp_path, salt, num_units, stops[salt]) for salt in range(NUM_RACERS)]
    try:
        num_zombies = wake_beaten(journal, store, racers)
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert [racer.returncode for racer in racers] == [0] * NUM_RACERS
    assert num_zombies == sum(map(len, stops)) > 0
    entries = journal.read()
    for number in range(num_units):
        commit = store.find(unit_of(number))
        assert commit is not None
        ends = [one for one in entries if one.number == number and one.what in ("won", "lost")]
        assert Counter(one.what for one in ends) == {"won": 1, "lost": NUM_RACERS - 1}
        assert {one.detail.split()[1] for one in ends} == {commit.sha256}
        assert len({one.detail.split()[0] for one in ends}) == NUM_RACERS, "their bytes were to differ"
        writer(measure(number, int(str(commit.provenance["salt"]))))(tmp_path / f"again-{number}")
        for path in (Path(str(store.open(commit))), tmp_path / f"again-{number}"):
            assert sha256_of(listing(path)) == commit.sha256
    late = {(one.pid, one.number): one.detail for one in entries if one.what == "continued"}
    assert all(one.what != "won" for one in entries if (one.pid, one.number) in late)
    assert verify_store(store.root) == []
    wins = Counter(one.pid for one in entries if one.what == "won")
    line.hold(num_units * NUM_RACERS)
    where = ", ".join(f"{count} {what}" for what, count in Counter(late.values()).items())
    line.say(f"{NUM_RACERS} processes, wins {sorted(wins.values())}; zombies, all beaten: " + where)

"""Real processes that race, and real processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from places import Somewhere
from stored import finished_store

from harvest.store.commit import Store
from harvest.store.gc import sweep
from harvest.store.key import unit_name
from harvest.store.reader import is_published
from harvest.store.verify import orphans, verify_store

UNITS = [unit_name("moments", {"index": index}) for index in range(10)]

# what each process writes differs, and takes now longer, now shorter than what the others write
RACER = """
import os, random, sys, time
from pathlib import Path
from harvest.store.commit import Store
from harvest.store.key import unit_name

def write(path):
    path.mkdir()
    for index in range(3):
        (path / str(index)).write_bytes(os.urandom(5000))
        time.sleep(random.random() / 100)

store = Store(sys.argv[1])
print("ready", flush=True)
for index in range(10):
    sys.stdin.readline()
    unit = unit_name("moments", {"index": index})
    print(store.commit(unit, ".zarr", write, {"pid": os.getpid()}).attempt, flush=True)
"""

SLOW = """
import sys, time
from pathlib import Path
from harvest.store.commit import Store
from harvest.store.key import unit_name

def write(path):
    path.mkdir()
    for index in range(1000):
        (path / str(index)).write_bytes(b"x" * 1000)
        print("wrote", flush=True)
        time.sleep(0.01)

Store(sys.argv[1]).commit(unit_name("moments", {"index": 0}), ".zarr", write, {})
"""


MERGER = """
import sys
from pathlib import Path
from harvest.store.commit import Store
from harvest.store.merge import merge_moments

store = Store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(merge_moments(store, sorted(commit.unit for commit in store.commits("moments")), {"model": "new"}))
"""


def _start(code: str, root: Path | str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _race(code: str, root: Path | str, num: int, rounds: int = 1) -> list[list[str]]:
    """The line that each process prints in each round, to which all are let go at the same time."""
    racers = [_start(code, root) for _ in range(num)]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * num
    seen = []
    for _ in range(rounds):
        for racer in racers:
            racer.stdin.write("\n")
            racer.stdin.flush()
        seen.append([racer.stdout.readline().strip() for racer in racers])
    for racer in racers:
        racer.communicate(timeout=60)
    assert [racer.returncode for racer in racers] == [0] * num
    return seen


def test_racing_processes_agree_and_the_bytes_match_the_record(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    seen = _race(RACER, store.root, 4, rounds=len(UNITS))
    winners = [store.find(unit) for unit in UNITS]
    assert seen == [[winner.attempt] * 4 for winner in winners]
    assert len({winner.provenance["pid"] for winner in winners}) > 1, "no race took place"
    assert [store.open(winner).differences() for winner in winners] == [[]] * len(UNITS)
    assert verify_store(store.root) == []
    assert orphans(store.root) == []


def test_racing_mergers_publish_one_view(somewhere: Somewhere):
    finished_store(somewhere.root)
    [paths] = _race(MERGER, somewhere.root, 3)
    assert len(set(paths)) == 1
    assert is_published(paths[0])
    assert verify_store(somewhere.root) == []
    assert orphans(somewhere.root) == []


RUNS = """
import sys, time
from harvest.store.commit import Store
from harvest.store.key import unit_name

def write(path):
    path.mkdir()
    for index in range(4):
        (path / str(index)).write_bytes(b"x" * 1000)
        time.sleep(0.002)

store = Store(sys.argv[1])
for index in range(15):
    unit = unit_name("moments", {"index": index})
    assert store.open(store.commit(unit, ".zarr", write, {})).differences() == []
print("ready", flush=True)
"""


def test_writers_lose_nothing_to_a_collector_that_waits_for_nobody(somewhere: Somewhere):
    store = Store(somewhere.root).prepare()
    writers = [_start(RUNS, somewhere.root) for _ in range(2)]
    num_sweeps = num_done = 0
    while any(writer.poll() is None for writer in writers):
        num_done += sweep(store, 0, delete=True).done
        num_sweeps += 1
    for writer in writers:
        assert writer.communicate(timeout=60)[0] == "ready\n"
    assert num_sweeps > 3
    assert num_done > 0, "nothing was ever taken from a writer"
    sweep(store, 0, delete=True)
    assert len(store.commits("moments")) == 15
    assert verify_store(store.root) == []
    assert orphans(store.root) == []


def test_a_killed_writer_leaves_no_unit_and_the_next_one_commits(tmp_path: Path):
    store = finished_store(tmp_path)
    for lines in (1, 3, 9):
        with _start(SLOW, tmp_path) as writer:
            for _ in range(lines):
                assert writer.stdout.readline() == "wrote\n"
            os.kill(writer.pid, signal.SIGKILL)
        assert writer.returncode == -signal.SIGKILL
        assert store.find(UNITS[0]) is None
    assert verify_store(tmp_path) == []
    assert len(orphans(tmp_path)) == 3
    commit = store.commit(UNITS[0], ".zarr", Path.mkdir, {})
    assert store.find(UNITS[0]) == commit
    assert sweep(store, 0, delete=True).done == 3
    assert orphans(tmp_path) == []

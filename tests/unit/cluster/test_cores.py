"""Cores are claimed by real processes, which die without a word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cluster.cores
from cluster.cores import OnOwnCores, lock_folder
from cluster.errors import ClusterError

CLAIMS = """
import os, sys
from pathlib import Path
import cluster.cores
cluster.cores.lock_folder = lambda: Path(sys.argv[1])
print(cluster.cores.claim(int(sys.argv[2]), wait_s=float(sys.argv[3])), flush=True)
sys.stdin.read()
"""
NUM_CORES = len(os.sched_getaffinity(0))

Claim = Callable[..., tuple["subprocess.Popen[str]", "list[int] | None"]]


@pytest.fixture
def claim(tmp_path: Path) -> Iterator[Claim]:
    """Starts a process that claims cores and holds them; what it got."""
    started = []

    def start(num_cores: int, wait_s: float = 0) -> tuple[subprocess.Popen[str], list[int] | None]:
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIMS, tmp_path, str(num_cores), str(wait_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        answer = process.stdout.readline().strip()
        return process, None if answer == "None" else [int(core) for core in answer.strip("[]").split(",")]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_share_no_core_and_a_third_goes_without(claim: Claim) -> None:
    if NUM_CORES < 2:
        pytest.skip("two processes with a core each need two cores")
    size = NUM_CORES // 2
    (_, first), (_, second) = claim(size), claim(size)
    assert first is not None
    assert second is not None
    assert len(first) == len(second) == size
    assert not set(first) & set(second)
    assert claim(NUM_CORES - 2 * size + 1)[1] is None


def test_a_killed_process_gives_its_cores_back(claim: Claim) -> None:
    holder, held = claim(NUM_CORES)
    assert held == sorted(os.sched_getaffinity(0))
    assert claim(1)[1] is None
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert claim(NUM_CORES, wait_s=5)[1] == held


def test_a_claim_that_fails_holds_nothing(claim: Claim) -> None:
    claim(1)
    assert claim(NUM_CORES)[1] is None
    if NUM_CORES > 1:
        assert claim(NUM_CORES - 1)[1] is not None


def test_more_cores_than_there_are_are_not_waited_for(claim: Claim) -> None:
    assert claim(NUM_CORES + 1, wait_s=600)[1] is None


def test_every_thread_of_a_bound_process_is_bound_and_so_are_those_to_come(tmp_path: Path) -> None:
    code = f"""
import os, threading, time
from pathlib import Path
import cluster.cores
cluster.cores.lock_folder = lambda: Path({str(tmp_path)!r})
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
def make(place):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return place
assert cluster.cores.OnOwnCores(make, 1)(7) == 7
tasks = [int(task) for task in os.listdir("/proc/self/task")]
assert len(tasks) >= 3
print({{tuple(os.sched_getaffinity(task)) for task in tasks}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str({(min(os.sched_getaffinity(0)),)})


def test_a_folder_that_others_can_write_to_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.cores, "Path", lambda _: tmp_path / "locks")
    assert lock_folder().stat().st_mode & 0o777 == 0o700
    (tmp_path / "locks").chmod(0o777)
    with pytest.raises(ClusterError, match="not a folder that you alone can write to"):
        OnOwnCores(lambda place: place, 1)(0)
    (tmp_path / "locks").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "locks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ClusterError, match="not a folder that you alone can write to"):
        lock_folder()

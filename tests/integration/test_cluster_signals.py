"""A driver that is told to end, with its Ray in the same process group as a terminal would have it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pooled import CPUS, gone, wait_until, worker_in

from cluster.launch import connect, disconnect
from cluster.policy import Policy
from cluster.pool import Pool
from cluster.task import Outcome, Task

ROOT = Path(__file__).parents[2]


def driver(folder: Path, sleep_s: float) -> subprocess.Popen[str]:
    """Twenty tasks of so long on two actors, each of which leaves a trace where it begins and where it ends."""
    code = f"""
        import json, os, signal, time
        from pathlib import Path
        from cluster.launch import connect, disconnect
        from cluster.pool import Pool
        from cluster.task import Task

        folder = Path({str(folder)!r})

        def work(number):
            (folder / f"pid-{{os.getpid()}}").touch()
            (folder / f"began-{{number}}").touch()
            time.sleep({sleep_s})
            (folder / f"ended-{{number}}").touch()

        connect(num_cpus=2)
        before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
        pool = Pool(lambda place: work, 2, num_cpus=1)
        try:
            outcome = pool.run([Task(str(i), i) for i in range(20)])
            print(json.dumps([outcome.done, outcome.left, outcome.drained]))
            pool.close()
        finally:
            assert before == [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
        """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


class Run:
    """A driver at work, and all that it started."""

    def __init__(self, folder: Path, sleep_s: float) -> None:
        self.folder, self.process = folder, driver(folder, sleep_s)
        assert wait_until(lambda: len(list(folder.glob("pid-*"))) == 2, 60)
        self.family = [
            process.pid
            for process in psutil.Process(self.process.pid).children(recursive=True)
            if "Agent" not in process.cmdline()[0]  # Ray's two spend a minute on reporting the death, then go too
        ]
        assert len(self.family) >= 4  # raylet, gcs, two actors

    def traces(self, what: str) -> set[str]:
        return {path.name.removeprefix(f"{what}-") for path in self.folder.glob(f"{what}-*")}

    def end(self) -> tuple[str, str]:
        """What it said; all its processes are gone then."""
        said = self.process.communicate(timeout=30)
        assert wait_until(lambda: all(map(gone, self.family)), 15), [pid for pid in self.family if not gone(pid)]
        return said


@pytest.fixture
def here(tmp_path: Path, nothing_is_left: None) -> Iterator[Pool]:
    """A pool in this very process, which gets the signals."""
    connect(num_cpus=2)
    with Pool(worker_in(tmp_path), 2, num_cpus=CPUS, policy=Policy(drain_s=1)) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def disconnected() -> Iterator[None]:
    yield
    disconnect()


def kill_once_begun(signum: signal.Signals, folder: Path, then: signal.Signals | None = None) -> None:
    """Signals to this process, once a task has begun."""

    def kill() -> None:
        assert wait_until(lambda: any(folder.glob("pid-*")), 60)
        os.kill(os.getpid(), signum)
        if then is not None:
            time.sleep(0.3)
            os.kill(os.getpid(), then)

    threading.Thread(target=kill, daemon=True).start()


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    pids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    assert wait_until(lambda: all(map(gone, pids)), 10)


def test_a_driver_that_is_killed_takes_its_ray_with_it(tmp_path: Path) -> None:
    run = Run(tmp_path, sleep_s=60)
    run.process.send_signal(signal.SIGKILL)
    run.end()


def test_the_first_ctrl_c_of_a_terminal_lets_running_tasks_end_and_begins_no_other(tmp_path: Path) -> None:
    run = Run(tmp_path, sleep_s=3)
    os.killpg(run.process.pid, signal.SIGINT)
    time.sleep(1)
    assert not any(map(gone, run.family)), "Ctrl-C reached more than the driver"
    assert not run.traces("ended")
    stdout, stderr = run.end()
    assert run.process.returncode == 0, stderr
    done, left, drained = json.loads(stdout)
    assert drained
    assert run.traces("began") == run.traces("ended")
    assert len(run.traces("ended")) == done == 20 - left
    assert 2 <= done <= 4


def test_what_does_not_end_in_time_is_dropped(here: Pool, tmp_path: Path) -> None:
    kill_once_begun(signal.SIGTERM, tmp_path)
    began = time.monotonic()
    outcome = here.run([Task(f"t{i}", ("begin_and_sleep", 60)) for i in range(10)])
    assert time.monotonic() - began < 30
    assert outcome == Outcome(0, (), left=10, drained=True)
    assert here.run([Task("next", ("add_one", 1))]).done == 1


def test_a_second_signal_ends_at_once_and_the_handlers_are_put_back(here: Pool, tmp_path: Path) -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    kill_once_begun(signal.SIGINT, tmp_path, signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        here.run([Task(f"t{i}", ("begin_and_sleep", 60)) for i in range(10)])
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before
    assert not here.started


def test_another_thread_leaves_signals_to_the_main_one(here: Pool) -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    during: list[object] = []

    def run() -> None:
        here.run([Task("t", ("add_one", 1))], lambda _: during.append(signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert during == before[:1]

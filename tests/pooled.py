"""Workers that misbehave on purpose, and what tests of real pools ask of them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.pool import Pool
from cluster.task import Outcome, Result, Task
from harvest.errors import StoreError

CPUS = 0.1  # each actor's share, so that pools never wait for one another's


def worker_in(folder: Path) -> Callable[[int], Any]:
    """The class of workers that leave their traces in a folder; made here, so that it is pickled by value."""

    class NoWeightsError(Exception):
        retryable = False

    class Worker:
        """Obeys its payload: (order, argument)."""

        def __init__(self, place: int) -> None:
            self.place, self.folder = place, folder

        def __call__(self, payload: tuple[str, Any]) -> Any:
            order, argument = payload
            return getattr(self, order)(argument)

        def add_one(self, number: int) -> int:
            return number + 1

        def sleep(self, seconds: float) -> None:
            time.sleep(seconds)

        def begin_and_sleep(self, seconds: float) -> None:
            (self.folder / f"pid-{os.getpid()}").touch()
            time.sleep(seconds)

        def die(self, _: None) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def die_once(self, name: str) -> str:
            marker = self.folder / name
            if not marker.exists():
                marker.touch()
                self.die(None)
            return "second time"

        def fail(self, message: str) -> None:
            self._try(message)
            raise ValueError(message)

        def refuse(self, message: str) -> None:
            self._try(message)
            raise NoWeightsError(message)

        def fill_up(self, message: str) -> None:
            raise StoreError(message)

        def _try(self, message: str) -> None:
            with (self.folder / message).open("a") as file:
                file.write("x")

        def lock(self, _: None) -> Any:
            return threading.Lock()

        def who(self, _: None) -> tuple[int, int, str | None]:
            time.sleep(0.2)
            return os.getpid(), self.place, os.environ.get("POOL_TEST")

        def breed(self, _: None) -> None:
            child = subprocess.Popen(["sleep", "300"])
            (self.folder / "child").write_text(str(child.pid))
            self.die(None)

        def close(self) -> None:
            (self.folder / f"closed-{self.place}").touch()

    return Worker


def run(pool: Pool, *tasks: Task) -> tuple[Outcome, dict[str, Result]]:
    results: dict[str, Result] = {}

    def keep(result: Result) -> None:
        assert result.task_id not in results, "delivered twice"
        results[result.task_id] = result

    return pool.run(tasks, keep), results


def gone(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" in status.read_text()
    except FileNotFoundError:
        return True


def wait_until(happened: Callable[[], bool], limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while not happened() and time.monotonic() < end:
        time.sleep(0.1)
    return happened()

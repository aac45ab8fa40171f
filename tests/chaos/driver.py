"""A driver as a process of its own: the missing units through a real pool, round by round, then merged.

It reads one JSON object from its first argument, tells one JSON object a line on stdout, and between two rounds waits
for a line on stdin.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import psutil

from chaos.job import Errand, Hire, be_patient, unit_of
from chaos.journal import Journal
from cluster.crew import Crew
from cluster.launch import connect, disconnect
from cluster.policy import Policy
from cluster.pool import Pool
from cluster.task import Result, Task
from harvest.store.commit import Store
from harvest.store.merge import merge_moments
from harvest.store.reader import digest, open_merged

MEMORY_EVERY = 100
# tasks


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class Watch:
    """Counts what each actor has in its hands, and the driver's memory as results come in."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.most_held = self.results = 0
        self.memory: list[int] = []
        submit, stop = Crew.submit, Crew.stop

        def counted(crew: Crew, actor_id: int, *more: Any) -> None:
            self.held[actor_id] = self.held.get(actor_id, 0) + 1
            self.most_held = max(self.most_held, self.held[actor_id])
            submit(crew, actor_id, *more)

        def stopped(crew: Crew, actor_id: int) -> None:
            self.held.pop(actor_id, None)
            stop(crew, actor_id)

        Crew.submit, Crew.stop = counted, stopped  # type: ignore[method-assign]

    def keep(self, result: Result) -> None:
        if result.actor_id in self.held:
            self.held[result.actor_id] -= 1
        self.results += 1
        if self.results % MEMORY_EVERY == 0:
            self.memory.append(psutil.Process().memory_info().rss)


def work(spec: dict[str, Any]) -> None:
    place, retry_s = spec["store"], spec.get("retry_s")
    store, journal = Store(place if place.startswith("s3://") else Path(place)), Journal(Path(spec["folder"]))
    dooms, watch = spec.get("dooms", {}), Watch()
    environment = {"PYTHONPATH": os.environ["PYTHONPATH"], "OMP_NUM_THREADS": "1", **spec.get("environment", {})}
    hire = Hire(store, journal, spec.get("pace_s", 0.02), spec.get("small", False), retry_s)
    be_patient(retry_s)
    store.prepare()
    with Pool(
        hire, spec.get("actors", 2), num_cpus=1, env=environment, policy=Policy(**spec.get("policy", {}))
    ) as pool:
        for index, numbers in enumerate(spec["rounds"]):
            committed = store.committed([unit_of(number) for number in numbers])
            missing = [number for number in numbers if unit_of(number) not in committed]
            journal.note("run", detail=" ".join(map(str, missing)))
            tasks = [Task(unit_of(one), Errand(one, *dooms.get(str(one), ()))) for one in missing]
            outcome = pool.run(tasks, watch.keep)
            failures = [[failure.task_id, failure.attempts, failure.reason] for failure in outcome.failures]
            tell(round=index, tasks=len(tasks), done=outcome.done, failures=failures, left=outcome.left)
            if index + 1 < len(spec["rounds"]):
                sys.stdin.readline()
    tell(most_held=watch.most_held, memory=watch.memory)
    if spec.get("merge", True):
        path = merge_moments(store, [unit_of(one) for numbers in spec["rounds"] for one in numbers], {"job": "chaos"})
        tell(sha256=digest(path), tokens=int(open_merged(path)["token_count"].sum()))


def main() -> None:
    spec = json.loads(sys.argv[1])
    connect(spec.get("address"), num_cpus=None if spec.get("address") else 2)
    tell(connected=True)
    try:
        work(spec)
    except Exception as error:  # noqa: BLE001 - told as data: what its type is, is the question
        tell(error=type(error).__name__, message=str(error), cause=type(error.__cause__).__name__)
        sys.exit(1)
    finally:
        disconnect()


if __name__ == "__main__":
    main()

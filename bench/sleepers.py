"""The real pool on real Ray, with as many engines as fit: each is an actor that sleeps for as long as a unit takes."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.memory import forget_peak, peak
from bench.payloads import block_sizes, capture_tasks
from cluster import launch
from cluster.pool import Pool
from cluster.task import Result, Task
from harvest.capture import CaptureTask

NUM_CPUS = 0.05
# that an actor asks for: it sleeps
_DISTINCT_GROUPS = 12
_WARM_S = 0.05
# of a task that only shows that its actor is there


@dataclass(slots=True)
class Notes:
    """When each task was sent; the driver's alone, and empty wherever it arrives."""

    sent: dict[int, float] = field(default_factory=dict)

    def __reduce__(self) -> tuple[type[Notes], tuple[()]]:
        return Notes, ()


@dataclass(frozen=True, slots=True)
class Sleep:
    """How long a unit takes, and a capture that is as heavy as the real one."""

    number: int
    seconds: float
    capture: CaptureTask
    notes: Notes

    def __reduce__(self) -> tuple[type[Sleep], tuple[int, float, CaptureTask, Notes]]:
        # Ray pickles a payload when it is handed to an actor
        self.notes.sent[self.number] = time.perf_counter()
        return Sleep, (self.number, self.seconds, self.capture, Notes())


@dataclass(frozen=True, slots=True)
class Slept:
    """A receipt."""

    number: int
    calls_inside: int
    # most calls that were in the worker at once, so far


class Sleeper:
    """One engine, which runs one forward at a time, however many calls there are."""

    def __init__(self) -> None:
        self._engine, self._lock = threading.Lock(), threading.Lock()
        self._inside = self._most = 0

    def __call__(self, sleep: Sleep) -> Slept:
        with self._lock:
            self._inside += 1
            self._most = max(self._most, self._inside)
        with self._engine:
            time.sleep(sleep.seconds)
        with self._lock:
            self._inside -= 1
        return Slept(sleep.number, self._most)


def make_sleeper(place: int) -> Sleeper:
    del place
    return Sleeper()


@dataclass(frozen=True, slots=True)
class Drove:
    """What a run cost the driver, and how close it came to the shortest run that is possible."""

    num_tasks: int
    cpu_s: float
    # of all threads of the driver, per task
    growth_bytes: int
    # most memory during the run, beyond what was resident before
    in_flight_driver: int
    # most tasks that one actor had and whose result had not arrived
    in_flight_worker: int
    # most calls at once that a worker saw
    makespan_s: float
    lower_bound_s: float
    # Σ ÷ engines, or the longest if that is more

    @property
    def stretch(self) -> float:
        return self.makespan_s / self.lower_bound_s


def drive(num_actors: int, num_tasks: int, mean_s: float) -> Drove:
    """Runs so many tasks on so many actors that are there already; starting them is not measured."""
    notes = Notes()
    sleeps = _sleeps(num_tasks, mean_s, notes)
    launch.connect(num_cpus=os.cpu_count())
    try:
        with Pool(make_sleeper, num_actors, num_cpus=NUM_CPUS) as pool:
            seen: set[int] = set()
            while len(seen) < num_actors:
                pool.run(_tasks(_sleeps(2 * num_actors, _WARM_S, Notes())), lambda result: seen.add(result.actor_id))
            return _driven(pool, sleeps, num_actors, notes)
    finally:
        launch.disconnect()


def _driven(pool: Pool, sleeps: Sequence[Sleep], num_actors: int, notes: Notes) -> Drove:
    tasks = _tasks(sleeps)
    arrived: dict[int, float] = {}
    by_actor: dict[int, list[int]] = defaultdict(list)
    inside = 0

    def on_result(result: Result) -> None:
        nonlocal inside
        arrived[result.value.number] = time.perf_counter()
        by_actor[result.actor_id].append(result.value.number)
        inside = max(inside, result.value.calls_inside)

    before, cpu_s, began = forget_peak(), _cpu_s(), time.perf_counter()
    outcome = pool.run(tasks, on_result)
    makespan_s, cpu_s = time.perf_counter() - began, _cpu_s() - cpu_s
    assert outcome.done == len(arrived) == len(notes.sent) == len(sleeps), outcome
    seconds = [sleep.seconds for sleep in sleeps]
    return Drove(
        len(sleeps),
        cpu_s / len(sleeps),
        peak() - before,
        max(most_at_once(notes.sent, arrived, numbers) for numbers in by_actor.values()),
        inside,
        makespan_s,
        max(sum(seconds) / num_actors, *seconds),
    )


def most_at_once(began: Mapping[int, float], ended: Mapping[int, float], numbers: Iterable[int]) -> int:
    """The most of some intervals that overlap; one that ends as another begins does not."""
    changes = sorted([change for at in numbers for change in ((began[at], 1), (ended[at], -1))])
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _sleeps(number: int, mean_s: float, notes: Notes) -> list[Sleep]:
    """Units whose questions are as many as real blocks have, and whose time is proportional to them."""
    real = capture_tasks(_DISTINCT_GROUPS)
    sizes = block_sizes(number)
    mean_size = sum(sizes) / number
    sleeps = []
    for at, size in enumerate(sizes):
        # few distinct tokens, so that the payloads' weight in the driver is not what is measured here
        capture = min(real, key=lambda task: abs(len(task.block.texts) - size))
        block = replace(capture.block, texts=capture.block.texts[:size])
        sleeps.append(Sleep(at, mean_s * size / mean_size, replace(capture, block=block), notes))
    return sleeps


def _tasks(sleeps: Sequence[Sleep]) -> list[Task]:
    return [Task(f"{sleep.number}", sleep, cost=sleep.seconds) for sleep in sleeps]

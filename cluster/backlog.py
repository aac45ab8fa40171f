"""The tasks that wait for an actor, costliest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from cluster.task import Task


@dataclass(slots=True, eq=False)
class Job:
    """A task that has not ended, and what happened to it so far."""

    task: Task
    order: int
    attempts: int = 0
    tried: set[int] = field(default_factory=set)
    # the actors that failed at it
    machines_lost: int = 0
    # under it, and not held against it
    alone: bool = False
    # it was in flight beside another when their actor was lost: nothing runs beside it any more


_Entry = tuple[float, int, Job]


class Backlog:
    """Costliest first, then in the order they were added. An operation is O(log n), whatever waits."""

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._shared: list[_Entry] = []
        self._alone: list[_Entry] = []
        for job in jobs:
            (self._alone if job.alone else self._shared).append(_entry(job))
        heapify(self._shared)
        heapify(self._alone)

    def __len__(self) -> int:
        return len(self._shared) + len(self._alone)

    def __iter__(self) -> Iterator[Job]:
        return (job for heap in (self._shared, self._alone) for _, _, job in heap)

    @property
    def leads_alone(self) -> bool:
        """Whether the first one must have an actor to itself."""
        return bool(self._alone) and (not self._shared or self._alone[0] < self._shared[0])

    @property
    def next_cost(self) -> float:
        """Of the first one that may run beside another; 0 if there is none."""
        return self._shared[0][-1].task.cost if self._shared else 0.0

    def push(self, job: Job) -> None:
        heappush(self._alone if job.alone else self._shared, _entry(job))

    def pop(self, may_run: Callable[[Job], bool], beside: bool) -> Job | None:
        """Takes out the first one that may run, `beside` another or not; None if there is none.

        One step more for each that comes before it and may not: those that the asking actor failed at itself.
        """
        heaps = (self._shared,) if beside else (self._shared, self._alone)
        refused = []
        found = None
        while found is None and any(heaps):
            job = heappop(min(heap for heap in heaps if heap))[-1]
            if may_run(job):
                found = job
            else:
                refused.append(job)
        for job in refused:
            self.push(job)
        return found


def _entry(job: Job) -> _Entry:
    return (-job.task.cost, job.order, job)

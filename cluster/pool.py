"""A pool of actors that runs opaque tasks, each delivered once.

`schedule` decides, `crew` acts, and the pool carries what one says to the other.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cluster.actor import MakeWorker
from cluster.crew import Build, Crew
from cluster.errors import ClusterError, ClusterLost, RunEnded, SetupFailed
from cluster.events import (
    CallActor,
    Deliver,
    Drain,
    Event,
    GiveUp,
    Quarantine,
    RoomSeen,
    StartActor,
    StopActor,
    Submit,
    TasksAdded,
    Tick,
)
from cluster.launch import is_connected
from cluster.metrics import Metrics
from cluster.placement import Shape
from cluster.policy import Policy
from cluster.progress import Progress
from cluster.schedule import Schedule
from cluster.signals import drained_by_signals
from cluster.task import Counts, Failure, Outcome, Result, Task

_TURN_S = 0.5  # how late a deadline or a progress line may be
_LOOK_S = 3.0  # how late a machine that joined is seen
_PATIENCE_S = 20.0  # how long an actor waits for a machine before anybody is told

OnResult = Callable[[Result], None]
OnFailure = Callable[[Failure], None]


class Pool:
    """Actors that start with the first run that has work for them, and stay for the next until the pool is closed.

    `num_actors` must fit on the machines when the first run begins; up to `max_actors` (default: as many) are started
    when machines join. Leaving the `with` block closes the workers in order; leaving it by an exception kills them. No
    more actors start than there are tasks. One thread may use a pool; `drain` alone may be called from anywhere.
    """

    def __init__(
        self,
        make_worker: MakeWorker,
        num_actors: int,
        *,
        max_actors: int | None = None,
        num_cpus: float = 1,
        num_gpus: float = 0,
        num_parts: int = 1,
        env: Mapping[str, str] | None = None,
        policy: Policy | None = None,
    ) -> None:
        self._max_actors = num_actors if max_actors is None else max_actors
        if not 1 <= num_actors <= self._max_actors:
            raise ValueError(f"a pool needs at least one actor, and may grow, not {num_actors} … {self._max_actors}")
        self._build = Build(make_worker, Shape(num_cpus, num_gpus, num_parts), dict(env or {}))
        self._num_actors = num_actors
        self._policy = policy or Policy()
        self._reset()

    def _reset(self) -> None:
        self._schedule = Schedule(self._num_actors, self._policy, self._max_actors)
        self._crew = Crew(self._build, self._policy.max_in_flight)
        self._drain_asked = False

    @property
    def started(self) -> bool:
        """Whether any actor has been started and not stopped."""
        return len(self._crew) > 0

    def run(
        self,
        tasks: Iterable[Task],
        on_result: OnResult | None = None,
        progress: Progress | None = None,
        metrics: Metrics | None = None,
        on_failure: OnFailure | None = None,
    ) -> Outcome:
        """Runs tasks, the costliest first, and hands each result to `on_result` once; results are not kept.

        A task that is given up is told to `on_failure` at once, so that it is known however the run ends.

        In the main thread the first SIGINT or SIGTERM drains the run, and the second raises KeyboardInterrupt.
        Raises SetupFailed if no worker can be built, PlacementImpossible if the actors do not fit, ClusterLost if
        none is left, RunEnded for a failure that says it would meet every task. Whatever is raised, also by
        `on_result` and `on_failure`, the actors are killed first.
        """
        added = TasksAdded(tuple(tasks))
        self._drain_asked = False
        try:
            self._check_cluster()
            if progress is not None:
                progress.begin(len(added.tasks))
            failed = True
            try:
                with drained_by_signals(self.drain):
                    self._work(added, _Told(on_result, on_failure), _Watch(self._build, progress, metrics))
                failed = False
            finally:
                if metrics is not None:
                    metrics.end()
                if progress is not None:
                    progress.end(self._schedule.counts, failed)
        except BaseException:
            self.kill()
            raise
        schedule = self._schedule
        return Outcome(schedule.counts.done, tuple(schedule.failures), schedule.left, schedule.draining)

    def drain(self) -> None:
        """Asks the run in progress to hand out nothing more, and to return once the running tasks have ended.

        They get `Policy.drain_s`; what has not ended by then is dropped, and its actor killed.
        """
        self._drain_asked = True
        self._crew.wake()

    def close(self) -> None:
        """Stops the actors after their workers' `close()`; raises ClusterError if one of those failed."""
        faults = self._crew.close_all() if is_connected() else []
        self._reset()
        if faults:
            raise ClusterError(f"{len(faults)} worker(s) failed to close, the first with {faults[0].reason}")

    def kill(self) -> None:
        """Stops the actors now, whatever they do."""
        if is_connected():
            self._crew.stop_all()
        self._reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.kill()

    def _check_cluster(self) -> None:
        if not is_connected():
            raise ClusterError("not connected to Ray: call cluster.launch.connect first")
        if not self.started:
            self._crew.check_fit(self._num_actors)

    def _work(self, added: TasksAdded, told: _Told, watch: _Watch) -> None:
        self._tell(added, told)
        looked = -_LOOK_S
        while not self._schedule.finished:
            if self._drain_asked:
                self._tell(Drain(), told)
            if self._max_actors > self._num_actors and time.monotonic() - looked >= _LOOK_S:
                looked = time.monotonic()
                self._tell(RoomSeen(self._crew.room()), told)
            for event in self._crew.listen(_TURN_S):
                self._tell(event, told)
            self._tell(Tick(), told)
            watch.update(self._schedule.counts)
        if self._schedule.ended_by is not None:
            raise self._caused(RunEnded, self._schedule.ended_by)

    def _tell(self, event: Event, told: _Told) -> None:
        for instruction in self._schedule.handle(event, time.monotonic()):
            match instruction:
                case StartActor(actor_id, place):
                    self._crew.start(actor_id, place)
                case CallActor(actor_id):
                    self._crew.call(actor_id)
                case StopActor(actor_id):
                    self._crew.stop(actor_id)
                case Submit(actor_id, task):
                    self._crew.submit(actor_id, task)
                case Deliver(actor_id, task_id):
                    result = self._crew.take(actor_id, task_id)
                    if told.on_result is not None:
                        told.on_result(result)
                case Quarantine(failure):
                    if told.on_failure is not None:
                        told.on_failure(failure)
                case GiveUp(actor_id, reason):
                    if actor_id in self._crew.faults:
                        raise self._caused(SetupFailed, actor_id)
                    raise ClusterLost(f"no actor is left and none may be started again: {reason}")

    def _caused(self, kind: type[SetupFailed | RunEnded], actor_id: int) -> ClusterError:
        fault = self._crew.faults[actor_id]
        error = kind(fault.type_name, fault.message)
        if fault.pickled is not None:
            error.__cause__ = pickle.loads(fault.pickled)  # noqa: S301 - our actor's bytes, as all that Ray brings
        return error


@dataclass(frozen=True, slots=True)
class _Told:
    """Who is told what becomes of each task."""

    on_result: OnResult | None
    on_failure: OnFailure | None


class _Watch:
    """Tells those who look on where the run is, and what it waits for once that takes long."""

    def __init__(self, build: Build, progress: Progress | None, metrics: Metrics | None) -> None:
        self._build, self._progress, self._metrics = build, progress, metrics
        self._all_placed = time.monotonic()
        # when that was last so

    def update(self, counts: Counts) -> None:
        now = time.monotonic()
        if counts.unplaced == 0:
            self._all_placed = now
        if self._metrics is not None:
            self._metrics.update(counts)
        if self._progress is not None:
            waits = now - self._all_placed >= _PATIENCE_S
            self._progress.update(
                counts, f"room for {counts.unplaced} actor(s) of {self._build.shape}" if waits else ""
            )
